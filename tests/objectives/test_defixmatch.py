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


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_terms_equal_the_naive_loop(images, threshold):
    case = _with_strong_labeled(images)
    case.unlabeled["labeled"] = torch.cat([case.batch["image"], case.batch["strong"]])
    n, labels = len(case.batch["image"]), case.batch["label"][:, 0].tolist()
    plain = dict(case.batch)
    case.batch["image"] = case.unlabeled.pop("labeled")
    both, weak, strong = case.joint("image", "strong")
    case.batch["image"] = plain["image"]
    valid = case.valid()
    of_unlabeled = _term([weak[i] for i in valid], [strong[i] for i in valid], threshold)
    expected = of_unlabeled - _term(both[:n], both[n:], threshold)
    output = DeFixMatch(rule_options={"threshold": threshold})(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(expected, abs=1e-5)
    known = [-math.log(row[y]) for row, y in zip(both, 2 * labels, strict=True) if y != 255]
    assert output["loss_labeled"].item() == pytest.approx(sum(known) / len(known), abs=1e-5)
    assert output["loss"].item() == pytest.approx(sum(known) / len(known) + 0.5 * expected, abs=1e-5)
    assert output["n_unlabeled"].item() == len(valid)
    kept = [max(weak[i]) >= threshold for i in valid]
    assert output["kept"].item() == pytest.approx(sum(kept) / len(kept))
    predicted = [weak[i].index(max(weak[i])) for i in valid]
    assert output["mass"].tolist() == [predicted.count(c) for c in range(4)]


def test_the_gradient_is_that_of_the_whole_loss(some_images):
    """The subtracted part has one, through the strong view alone."""
    case = _with_strong_labeled(some_images)
    found = []
    for weight in (0.0, 0.5):
        case.network.zero_grad()
        output = DeFixMatch(rule_options={"threshold": 0.0}, weight=weight)(case.network, case.batch)
        output["loss"].backward()
        found.append(torch.cat([one.grad.flatten() for one in case.network.parameters()]))
    assert not torch.allclose(found[0], found[1])


def test_the_loss_has_a_lower_bound_where_pseudo_labels_are_right(some_images):
    case = _with_strong_labeled(some_images)
    case.batch["label"][2] = 1
    optimizer = torch.optim.Adam(case.network.parameters(), lr=0.05)
    objective = DeFixMatch(rule_options={"threshold": 0.6})
    for _ in range(150):
        optimizer.zero_grad()
        loss = objective(case.network, case.batch)["loss"]
        loss.backward()
        optimizer.step()
    assert -0.5 < loss.item() < 1


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
    own = DeFixMatch()(case.network, case.only("unlabeled"))
    plain = FixMatch(weight=0.5)(case.network, case.only("unlabeled"))
    assert own["loss"].item() == pytest.approx(plain["loss"].item())
    own = DeFixMatch()(case.network, case.only("image", "strong", "label"))
    assert own["loss"].item() == own["loss_labeled"].item()
    assert "loss_unlabeled" not in own


def test_labeled_images_without_a_strong_view_are_refused(some_images):
    with pytest.raises(ConfigError, match="labeled_strong=True"):
        DeFixMatch()(some_images.network, some_images.batch)
