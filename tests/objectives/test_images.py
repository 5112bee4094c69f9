"""The same objectives on whole images: zero spatial axes, references in float64."""

import copy
import math

import pytest
import torch

from medssl.functional.clustering import RULES
from medssl.labels import UNKNOWN
from medssl.objectives import (
    FixMatch,
    MeanTeacher,
    MixMatch,
    OnlinePseudoLabel,
    OnlineSSLDEC,
    SoftDistillation,
    StoredTargets,
    SupervisedLoss,
)


def cross_entropy():
    return SupervisedLoss(dice_weight=0.0)


def _shares(values):
    return [value / sum(values) for value in values]


def _labeled(case, rows):
    """Return the cross-entropy over the images whose label is known."""
    pairs = zip(case.batch["label"][:, 0].tolist(), rows, strict=True)
    losses = [-math.log(row[label]) for label, row in pairs if label != UNKNOWN]
    return sum(losses) / len(losses)


def _kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _check(case, objective, labeled, terms, weight=1.0):
    """Compare both terms and their sum with the references; terms are those of the images that count."""
    output = objective(case.network, case.batch)
    unlabeled = sum(terms) / len(terms)
    assert output["loss_labeled"].item() == pytest.approx(_labeled(case, labeled), abs=1e-5)
    assert output["loss_unlabeled"].item() == pytest.approx(unlabeled, abs=1e-5)
    total = output["loss_labeled"].item() + weight * output["loss_unlabeled"].item()
    assert output["loss"].item() == pytest.approx(total, abs=1e-5)
    assert output["mass"].shape == (4,)
    return output


@pytest.mark.parametrize("own", [True, False])
def test_online_pseudo_labels(images, own):
    labeled, student = images.joint("strong")
    source = student if own else images.taught()
    best = sorted(max(source[n]) for n in images.valid())
    threshold = (best[1] + best[2]) / 2
    sure = [n for n in images.valid() if max(source[n]) >= threshold]
    terms = [-math.log(student[n][source[n].index(max(source[n]))]) for n in sure]
    assert len(terms) == 3
    teacher = None if own else images.teacher
    _check(
        images, OnlinePseudoLabel(teacher, threshold=threshold, labeled_loss=cross_entropy()), labeled, terms
    )


def test_mean_teacher(images):
    labeled, student = images.joint("strong")
    teacher = images.taught()
    terms = [sum((a - b) ** 2 for a, b in zip(student[n], teacher[n], strict=True)) for n in images.valid()]
    _check(images, MeanTeacher(images.teacher, labeled_loss=cross_entropy()), labeled, terms, weight=10.0)


@pytest.mark.parametrize("rule", RULES)
def test_online_ssldec(images, rule):
    labeled, student = images.joint("strong")
    teacher, valid = images.taught(), images.valid()
    f = _shares([sum(teacher[n][c] for n in valid) for c in range(4)])
    known = [label for label in images.batch["label"][:, 0].tolist() if label != UNKNOWN]
    prior = _shares([known.count(c) for c in range(4)])
    factors = {
        "dec": [1 / f[c] for c in range(4)],
        "sharpen": [1] * 4,
        "prior": [prior[c] / f[c] for c in range(4)],
    }
    terms = []
    for n in valid:
        target = teacher[n]
        if rule != "soft":
            target = _shares([q**2 * factor for q, factor in zip(target, factors[rule], strict=True)])
        terms.append(_kl(target, student[n]))
    objective = OnlineSSLDEC(images.teacher, labels=4, rule=rule, labeled_loss=cross_entropy())
    _check(images, objective, labeled, terms)
    assert objective.frequencies.tolist() == pytest.approx(f, rel=1e-5)
    assert objective.label_mass.tolist() == [known.count(c) for c in range(4)]


@pytest.mark.parametrize("hard", [True, False])
def test_stored_targets(images, hard):
    """One-hot targets give the cross-entropy; an image without a target is left out."""
    if hard:
        target = images.unlabeled["target"]
        images.unlabeled["target"] = torch.eye(4)[target.argmax(1)] * (target.sum(1, keepdim=True) > 0)
    labeled, student = images.joint("strong")
    target = images.unlabeled["target"].double().tolist()
    known = [n for n in images.valid() if sum(target[n]) > 0.5]
    assert known == [1, 3, 4, 5]
    terms = [_kl(target[n], student[n]) for n in known]
    if hard:
        assert terms == pytest.approx([-math.log(student[n][target[n].index(1)]) for n in known])
    _check(images, StoredTargets(labeled_loss=cross_entropy()), labeled, terms)


METHODS = {
    "own pseudo-labels": lambda teacher: OnlinePseudoLabel(labeled_loss=cross_entropy()),
    "teacher's pseudo-labels": lambda teacher: OnlinePseudoLabel(teacher, labeled_loss=cross_entropy()),
    "mean teacher": lambda teacher: MeanTeacher(teacher, labeled_loss=cross_entropy()),
    "online ssldec": lambda teacher: OnlineSSLDEC(teacher, labels=4, labeled_loss=cross_entropy()),
    "stored targets": lambda teacher: StoredTargets(labeled_loss=cross_entropy()),
    "soft distillation": lambda teacher: SoftDistillation(),
    "fixmatch": lambda teacher: FixMatch(rule_options={"threshold": 0.2}),
    "flexmatch": lambda teacher: FixMatch("flexmatch", classes=4, pool=8),
    "freematch": lambda teacher: FixMatch("freematch", classes=4),
    "softmatch": lambda teacher: FixMatch("softmatch", classes=4, alignment="weights"),
    "mixmatch": lambda teacher: MixMatch(),
    "taught mixmatch": MixMatch,
}
VIEWS = ("strong", "views")


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def _gradients(case, objective, batch):
    """Return a step's output and gradients, with the same random numbers and the same student each time."""
    torch.manual_seed(0)
    network = copy.deepcopy(case.network)
    output = objective(network, batch)
    return output, torch.autograd.grad(output["loss"], list(network.parameters()))


def test_the_unlabeled_term_is_computed_in_every_step(images, method):
    """D1: not in the warm-up alone."""
    if images.batch["label"].max() == UNKNOWN:
        images.batch["label"][2] = 1
    objective = method(images.teacher)
    planned, seen = 12, []
    for step in range(planned):
        images.draw(torch.Generator().manual_seed(step))
        output, _ = _gradients(images, objective, {**images.batch, "progress": step / planned})
        seen.append(output["loss_unlabeled"].item())
        assert math.isfinite(output["loss"].item())
    assert len(seen) == planned
    assert all(value > 0 for value in seen)
    assert len(set(seen)) == planned


@pytest.mark.parametrize("progress", [0.3, 1.0])
def test_other_unlabeled_images_give_another_gradient(images, method, progress):
    """D1: and nothing else but the unlabeled images is changed."""
    images.batch["label"][2] = 1
    batch = {**images.batch, "progress": progress}
    _, before = _gradients(images, method(images.teacher), batch)
    _, again = _gradients(images, method(images.teacher), batch)
    assert all(torch.equal(one, other) for one, other in zip(before, again, strict=True))
    changed = {view: images.unlabeled[view].flip(-1) * 0.5 for view in VIEWS}
    other_batch = {**batch, "unlabeled": {**images.unlabeled, **changed}}
    _, after = _gradients(images, method(images.teacher), other_batch)
    last = before[-1], after[-1]
    assert not torch.allclose(*last, rtol=1e-3, atol=1e-7)


def test_batch_norm_is_updated_once_a_step(images, method):
    """D19: not once for each part of the batch, nor for guesses."""
    images.batch["label"][2] = 1
    norm = next(module for module in images.network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    objective = method(images.teacher)
    for step in range(1, 4):
        objective(images.network, images.batch)
        assert norm.num_batches_tracked.item() == step
    assert all(module.training for module in images.network.modules())


def test_one_labeled_image_makes_a_batch(images, method):
    """D18: no axis is squeezed away."""
    batch = {**images.batch, "image": images.batch["image"][:1], "label": images.batch["label"][:1]}
    batch["unlabeled"] = {name: value[1:2] for name, value in images.unlabeled.items()}
    output = method(images.teacher)(images.network, batch)
    assert torch.isfinite(output["loss"])
    output["loss"].backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_loss_is_that_of_the_cpu(images, method):
    """Objectives are not moved there: their buffers follow the batch."""
    images.batch["label"][2] = 1
    losses = []
    for device in ("cpu", "cuda"):
        images.network.to(device), images.teacher.to(device)
        objective = method(images.teacher)
        batch = on_device(images.batch, device)
        steps = [_gradients(images, objective, batch)[0]["loss"].item() for _ in range(2)]
        losses.append(steps)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def on_device(batch, device):
    """Move a batch and the unlabeled batch inside it."""
    if isinstance(batch, dict):
        return {name: on_device(value, device) for name, value in batch.items()}
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch


@pytest.mark.parametrize("make", [FixMatch, SoftDistillation, MixMatch])
def test_weights_of_images_count_in_the_labeled_term(images, make):
    """A manifest may give images a weight."""
    images.batch["label"][:, 0] = torch.arange(len(images.batch["label"])) % 4
    batch = {key: images.batch[key] for key in ("image", "label", "progress")}
    weight = torch.linspace(0, 3, len(batch["image"]))[:, None]
    rows = images.network(batch["image"]).softmax(1).tolist()
    losses = [-math.log(row[label]) for row, label in zip(rows, batch["label"][:, 0].tolist(), strict=True)]
    expected = sum(w * loss for w, loss in zip(weight[:, 0].tolist(), losses, strict=True)) / weight.sum()
    found = make()(images.network, {**batch, "weight": weight})["loss_labeled"]
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert found.item() != pytest.approx(sum(losses) / len(losses), abs=1e-3)
