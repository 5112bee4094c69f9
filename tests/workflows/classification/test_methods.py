"""Names of methods, ours and the study's."""

import pytest

from medssl.cli.classify import distill as command
from medssl.errors import ConfigError
from medssl.workflows.classification.methods import DISTILLATIONS, SHORT_NAMES, named_distillation


@pytest.mark.parametrize(
    ("name", "rounds", "expected"),
    [
        ("PD", None, ("plain", 1)),
        ("DD", None, ("data", 1)),
        ("MD", 3, ("model", 3)),
        ("MDD", None, ("data-model", 1)),
        ("IPD", None, ("plain", 5)),
        ("IDD", 2, ("data", 2)),
        ("IMD", None, ("model", 5)),
        ("IMDD", None, ("data-model", 5)),
        ("data-model", None, ("data-model", 1)),
        ("plain", 4, ("plain", 4)),
    ],
)
def test_the_study_s_names_are_ours(name, rounds, expected):
    assert named_distillation(name, rounds) == expected


def test_one_round_is_not_iterative():
    with pytest.raises(ConfigError, match=r"--kind IMDD is iterative; found --rounds 1\."):
        named_distillation("IMDD", 1)


def test_the_command_line_has_all_names():
    assert list(DISTILLATIONS) == command.KINDS
    assert [*SHORT_NAMES, *(f"I{name}" for name in SHORT_NAMES)] == command.SHORT_NAMES
