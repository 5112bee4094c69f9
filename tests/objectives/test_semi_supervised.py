"""What holds for every objective."""

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.functional.schedules import linear_ramp
from medssl.labels import UNKNOWN
from medssl.objectives import (
    FixMatch,
    LabeledOnly,
    MeanTeacher,
    OnlinePseudoLabel,
    OnlineSSLDEC,
    SemiSupervisedObjective,
    SoftDistillation,
    StoredTargets,
    SupervisedLoss,
)

COUNTS = torch.tensor([50.0, 400.0, 300.0, 250.0])


def online(teacher, **options):
    objective = OnlineSSLDEC(teacher, labels=len(COUNTS), **options)
    objective.label_mass += 1e9 * COUNTS  # so that the few labels of a test do not move the prior
    return objective


def fixmatch(teacher, **options):
    return FixMatch(**{"labeled_loss": SupervisedLoss(), "rule_options": {"threshold": 0.3}, **options})


def soft_distillation(teacher, **options):
    return SoftDistillation(**{"labeled_loss": SupervisedLoss(), **options})


METHODS = {
    "mean teacher": MeanTeacher,
    "own pseudo-labels": lambda teacher, **options: OnlinePseudoLabel(**options),
    "teacher's pseudo-labels": OnlinePseudoLabel,
    "online ssldec": online,
    "confident ssldec": lambda teacher, **options: online(teacher, rule="dec", confident=True, **options),
    "stored targets": lambda teacher, **options: StoredTargets(**options),
    "fixmatch": fixmatch,
    "soft distillation": soft_distillation,
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def _labeled_loss(case):
    label = case.batch["label"]
    scores = case.network(case.batch["image"])
    return SupervisedLoss()(scores, torch.where(label < case.first, UNKNOWN, label))


@pytest.mark.parametrize("name", ["weight", "start", "end"])
@pytest.mark.parametrize("value", ["1,0", None, True])
def test_what_is_no_number_is_refused_before_anything_is_trained(name, value):
    with pytest.raises(ConfigError, match=f"The {name} of the unlabeled term is .*expected a number"):
        MeanTeacher(nn.Identity(), **{name: value})


def test_without_unlabeled_crops_the_loss_is_the_labeled_one(case, method):
    output = method(case.teacher)(case.network, case.only("image", "label"))
    assert torch.equal(output["loss"], _labeled_loss(case))
    assert torch.equal(output["loss_labeled"], output["loss"])
    assert set(output) == {"pred", "loss", "loss_labeled", "n_labeled"}


def test_both_terms_are_added_with_weight_and_ramp(case, method):
    labeled = _labeled_loss(case).item()
    term = method(case.teacher)(case.network, case.only("unlabeled"))["loss_unlabeled"].item()
    assert term > 1e-3
    for progress in (0.0, 0.2, 0.3, 1.0):
        objective = method(case.teacher, weight=3.0, start=0.2, end=0.6)
        output = objective(case.network, {**case.batch, "progress": progress})
        ramp = linear_ramp(progress, 0.2, 0.6)
        assert output["unlabeled_weight"].item() == pytest.approx(3 * ramp)
        assert output["loss_labeled"].item() == pytest.approx(labeled, abs=1e-6)
        assert output["loss_unlabeled"].item() == pytest.approx(term, abs=1e-6)
        assert output["loss"].item() == pytest.approx(labeled + 3 * ramp * term, abs=1e-5)


def test_without_a_ramp_the_weight_is_whole_from_the_first_step(case, method):
    output = method(case.teacher, weight=0.5)(case.network, {**case.batch, "progress": 0.0})
    assert output["unlabeled_weight"].item() == 0.5


def test_unlabeled_crops_alone_make_a_step(case, method):
    """The schedule `alternate` never mixes both kinds."""
    objective = method(case.teacher, weight=2.0)
    output = objective(case.network, case.only("unlabeled"))
    assert "loss_labeled" not in output
    assert output["loss"].item() == pytest.approx(2 * output["loss_unlabeled"].item())
    assert len(output["pred"]) == 3 * len(objective.views)
    output["loss"].backward()
    assert any(bool((p.grad != 0).any()) for p in case.network.parameters())


def test_gradient_reaches_the_student_only(case, method):
    target = case.unlabeled["target"] = case.unlabeled["target"].requires_grad_()
    method(case.teacher)(case.network, case.only("unlabeled"))["loss"].backward()
    assert all(p.grad is None for p in case.teacher.parameters())
    assert target.grad is None
    assert any(bool((p.grad != 0).any()) for p in case.network.parameters())


def test_only_the_loss_and_the_prediction_carry_a_graph(case, method):
    output = method(case.teacher)(case.network, case.batch)
    assert {name for name, value in output.items() if value.requires_grad} == {"loss", "pred"}
    assert all(torch.isfinite(value).all() for value in output.values())
    assert {"loss_labeled", "loss_unlabeled", "unlabeled_weight", "confidence", "mass"} <= set(output)
    assert output["mass"].sum().item() > 0
    assert len(output["mass"]) == 4 - case.first


def test_an_empty_mask_gives_exactly_zero_with_a_graph(case, method):
    """Invariant 8."""
    case.unlabeled["mask"] = torch.zeros_like(case.unlabeled["mask"])
    output = method(case.teacher)(case.network, case.only("unlabeled"))
    assert output["loss"].item() == 0
    assert output["loss_unlabeled"].item() == 0
    output["loss"].backward()
    assert all(bool((p.grad == 0).all()) for p in case.network.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in case.network.parameters())
    assert output["mass"].sum().item() == 0


def test_what_lies_outside_the_mask_does_not_count(case, method):
    """Invariant 4."""
    before = method(case.teacher)(case.network, case.batch)
    outside = case.unlabeled["mask"] < 0.5
    for key in ("image", "strong", "target"):
        case.unlabeled[key] = torch.where(outside, 7.0 + case.unlabeled[key], case.unlabeled[key])
    after = method(case.teacher)(case.network, case.batch)
    for name in set(before) - {"pred"}:
        assert torch.allclose(before[name], after[name]), name


def test_a_head_without_background_does_not_learn_background(clustered, method):
    """Label 0 inside the mask is an unknown voxel to it: neither loss nor gradient."""
    assert bool((clustered.batch["label"] == 0).any())
    label = clustered.batch["label"]
    unknown = {**clustered.batch, "label": torch.where(label == 0, UNKNOWN, label)}
    output, expected = (
        method(clustered.teacher)(clustered.network, one) for one in (clustered.batch, unknown)
    )
    assert torch.equal(output["loss"], expected["loss"])
    output["pred"].retain_grad()
    output["loss"].backward()
    background = (label == 0).expand(-1, 4, -1, -1, -1)
    assert torch.all(output["pred"].grad[:2][background] == 0)
    assert output["loss"].item() < 30


def test_a_softmax_network_learns_background(softmax, method):
    label = softmax.batch["label"]
    unknown = {**softmax.batch, "label": torch.where(label == 0, UNKNOWN, label)}
    one, other = (
        method(softmax.teacher)(softmax.network, batch)["loss"] for batch in (softmax.batch, unknown)
    )
    assert one.item() != other.item()


def test_both_kinds_take_one_forward_pass_labeled_first(case, method):
    seen = []
    case.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    objective = method(case.teacher)
    output = objective(case.network, case.batch)
    assert len(seen) == 1
    views = [case.unlabeled[view] for view in objective.views]
    assert torch.equal(seen[0], torch.cat([case.batch["image"], *views]))
    assert len(output["pred"]) == len(seen[0]) == 2 + 3 * len(views)


def test_only_fixmatch_shows_the_student_two_views(case, method):
    objective = method(case.teacher)
    assert objective.views == (("image", "strong") if isinstance(objective, FixMatch) else ("strong",))


def test_a_subclass_gets_the_views_it_asks_for_one_after_the_other(case):
    seen = {}

    class Both(SemiSupervisedObjective):
        views = ("image", "strong")

        def unlabeled_term(self, log_q, valid, unlabeled, first):
            seen.update(log_q=log_q.detach(), valid=valid)
            return log_q.sum() * 0, {}

    Both()(case.network, case.batch)
    with torch.no_grad():
        scores = [case.network(case.unlabeled[view])[:, case.first :] for view in Both.views]
    assert torch.allclose(seen["log_q"], torch.cat(scores).log_softmax(1), atol=1e-6)
    assert len(seen["valid"]) == 3


def test_a_teacher_sees_the_unchanged_view(case, method):
    seen = []
    case.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method(case.teacher)(case.network, case.batch)
    assert all(torch.equal(image, case.unlabeled["image"]) for image in seen)


def test_a_wrapped_network_gives_the_same(case, method):
    """As in distributed training, where the network hides behind ``module``."""
    plain = method(case.teacher)(case.network, case.batch)
    wrapped = method(case.teacher)(nn.DataParallel(case.network), case.batch)
    assert torch.equal(plain["loss"], wrapped["loss"])


def test_another_labeled_loss_may_be_given(case, method):
    objective = method(case.teacher, labeled_loss=SupervisedLoss(dice_weight=0.0))
    output = objective(case.network, case.only("image", "label"))
    label = case.batch["label"]
    expected = SupervisedLoss(dice_weight=0.0)(
        case.network(case.batch["image"]), torch.where(label < case.first, UNKNOWN, label)
    )
    assert torch.equal(output["loss"], expected)
    assert output["loss"].item() != _labeled_loss(case).item()


def test_objectives_hold_no_parameters(case, method):
    objective = method(case.teacher)
    assert isinstance(objective, SemiSupervisedObjective)
    names = set(objective.state_dict())
    assert not {name for name in names if not name.startswith("teacher.")} - {"frequencies", "label_mass"}


def test_a_method_has_to_say_its_term(case):
    with pytest.raises(NotImplementedError):
        SemiSupervisedObjective()(case.network, case.batch)
    assert isinstance(LabeledOnly(), SemiSupervisedObjective)


def test_the_networks_own_mass_is_counted_voxel_by_voxel(case, method):
    objective = method(case.teacher)
    if objective.views != ("strong",):
        pytest.skip("several views")
    output = objective(case.network, case.only("unlabeled"))
    expected = [sum(column) for column in zip(*case.assignments(case.network, "strong"), strict=True)]
    assert output["predicted_mass"].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_each_term_runs_over_is_counted(case, method):
    """Known labels that have a cluster, and voxels in the mask: with a target, where targets are stored."""
    output = method(case.teacher)(case.network, case.batch)
    label = case.batch["label"]
    assert output["n_labeled"].item() == int(((label != UNKNOWN) & (label >= case.first)).sum())
    counted = case.unlabeled["mask"][:, 0] > 0.5
    if method in (METHODS["stored targets"], METHODS["soft distillation"]):
        counted &= case.unlabeled["target"].sum(1) > 0.5
        assert int(counted.sum()) < len(case.voxels())
    assert output["n_unlabeled"].item() == int(counted.sum())


def test_means_run_over_the_voxels_of_all_processes(case, method, monkeypatch):
    """This process has all the voxels there are, the other none: the average of two is half of twice the loss."""
    alone = method(case.teacher)(case.network, case.batch)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value)
    both = method(case.teacher)(case.network, case.batch)
    assert both["loss"].item() == pytest.approx(2 * alone["loss"].item(), rel=1e-5)
    assert both["loss_unlabeled"].item() == pytest.approx(alone["loss_unlabeled"].item(), rel=1e-5)
