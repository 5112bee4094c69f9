"""DeFixMatch: FixMatch's term of the unlabeled images, less that of the labeled ones."""

import math

import pytest
import torch

from medssl.errors import ConfigError
from medssl.objectives import DeFixMatch, FixMatch


def _term(weak, strong, threshold):
    losses = [
        -math.log(answer[row.index(max(row))]) if max(row) >= threshold else 0.0
        for row, answer in zip(weak, strong, strict=True)
    ]
    return sum(losses) / len(losses)


def _with_strong_labeled(case):
    generator = torch.Generator().manual_seed(9)
    case.batch["strong"] = torch.rand(case.batch["image"].shape, generator=generator)
    return case


def _rows(case):
    """Return the probabilities of labeled images, of all weak views and of all strong views, unlabeled first."""
    both = dict(case.batch)
    try:
        for view in ("image", "strong"):
            case.unlabeled[f"all_{view}"] = torch.cat([case.unlabeled[view], both[view]])
        return case.joint("all_image", "all_strong")
    finally:
        for view in ("image", "strong"):
            del case.unlabeled[f"all_{view}"]


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_term_equals_the_naive_loop(images, threshold):
    case = _with_strong_labeled(images)
    _, weak, strong = _rows(case)
    n, valid = len(case.unlabeled["mask"]), case.valid()
    of_unlabeled = _term([weak[i] for i in valid], [strong[i] for i in valid], threshold)
    expected = of_unlabeled - _term(weak[n:], strong[n:], threshold)
    output = DeFixMatch(rule_options={"threshold": threshold}, weight=0.5)(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(expected, abs=1e-5)
    assert output["loss"].item() == pytest.approx(output["loss_labeled"].item() + 0.5 * expected, abs=1e-5)
    assert output["n_unlabeled"].item() == len(valid)
    kept = [max(weak[i]) >= threshold for i in valid]
    assert output["kept"].item() == pytest.approx(sum(kept) / len(kept))
    assert 0 <= sum(kept) <= len(kept)
    labels = [weak[i].index(max(weak[i])) for i in valid]
    assert output["mass"].tolist() == [labels.count(c) for c in range(4)]


def test_the_term_is_nothing_where_both_kinds_are_the_same_images(some_images):
    case = _with_strong_labeled(some_images)
    n = len(case.batch["image"])
    case.batch["unlabeled"] = {name: case.batch[name] for name in ("image", "strong")} | {
        "mask": torch.ones(n, 1)
    }
    output = DeFixMatch(rule_options={"threshold": 0.3})(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(0, abs=1e-6)
    assert FixMatch(rule_options={"threshold": 0.0})(case.network, case.batch)["loss_unlabeled"].item() > 0.1


def test_without_labeled_or_unlabeled_images_there_is_one_term(some_images):
    case = _with_strong_labeled(some_images)
    own, plain = DeFixMatch(), FixMatch()
    for keys in (("image", "strong", "label"), ("unlabeled",)):
        found, expected = (method(case.network, case.only(*keys)) for method in (own, plain))
        assert found["loss"].item() == pytest.approx(expected["loss"].item())


def test_labeled_images_without_a_strong_view_are_refused(some_images):
    with pytest.raises(ConfigError, match="labeled_strong=True"):
        DeFixMatch()(some_images.network, some_images.batch)
