"""From which confidence on an image gets a label."""

import math

import pytest

from medssl.errors import ConfigError
from medssl.io.prediction_table import abstain_threshold


@pytest.mark.parametrize(
    ("asked", "expected"), [(0.8, 0.8), ("0.8", 0.8), ("0", 0.0), (1, 1.0), ("chosen", 0.6)]
)
def test_a_confidence_is_a_number_its_text_or_what_was_chosen(asked: float | str, expected: float) -> None:
    found = abstain_threshold(asked, {"abstain_below": 0.6}, "model.onnx")
    assert isinstance(found, float)
    assert found == expected


@pytest.mark.parametrize("asked", [1.5, math.nan, "-0.1", "nan", "most", ""])
def test_anything_else_is_refused_with_what_was_asked(asked: float | str) -> None:
    with pytest.raises(ConfigError, match=rf"--abstain-below is {asked}; expected 0 to 1, or 'chosen'"):
        abstain_threshold(asked, {"abstain_below": 0.6}, "model.onnx")


@pytest.mark.parametrize(("extra", "said"), [({}, "model.onnx says none"), ({"abstain_below": 7}, "says 7")])
def test_what_a_card_does_not_say_cannot_be_chosen(extra: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        abstain_threshold("chosen", extra, "model.onnx")
