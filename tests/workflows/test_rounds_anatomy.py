"""Registered labels in stored targets: what is kept is the fused assignment, and its mass."""

from types import SimpleNamespace

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medssl.errors import ConfigError
from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import cluster_mass, log_target_distribution
from medssl.transforms import Targets
from medssl.workflows.rounds import Rounds

NAMES = ("background", "one", "two", "three")
SHAPE = (4, 3, 5)


class Scores(torch.nn.Module):
    """A network whose scores are a linear map of the image; background has no cluster."""

    first = 1

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, len(NAMES), 1)

    def forward(self, image):
        return self.layer(image)


def scan(name, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(SHAPE, generator=generator) > 0.3
    place = torch.full(SHAPE, -1, dtype=torch.int32)
    place[mask] = torch.arange(int(mask.sum()), dtype=torch.int32)
    prior = torch.rand(len(NAMES), *SHAPE, generator=generator).softmax(0).half()
    image = torch.randn(1, *SHAPE, generator=generator)
    return {"subject": name, "image": image, "place": place[None], "prior": prior}


def rounds(folder, samples, scope="pool", **more):
    torch.manual_seed(0)
    network = Scores()
    return Rounds(
        trainer=SimpleNamespace(state=SimpleNamespace(epoch=1, iteration=1, epoch_length=1)),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1.0),
        unlabeled=SimpleNamespace(cache=samples),
        targets=Targets("dec", scope),
        ends=[1, 2],
        inferer=lambda image, network: network(image),
        folder=str(folder),
        names=NAMES,
        **more,
    )


@pytest.mark.parametrize("weight", [0.5, [9.0, 0.0, 0.5, 1.0]], ids=["one", "each"])
@pytest.mark.parametrize("scope", ["pool", "subject"])
def test_targets_are_those_of_the_fused_assignment(tmp_path, weight, scope):
    samples = [scan("a", 1), scan("b", 2)]
    priors = {sample["subject"]: sample["prior"] for sample in samples}
    one = rounds(tmp_path, samples, scope, anatomy_weight=weight)
    one._take_priors()
    assert not any("prior" in sample for sample in samples)  # crops would copy it
    targets = one.predict(1)
    w = torch.tensor(weight) if isinstance(weight, float) else torch.tensor(weight[1:])
    known = {}
    for sample in samples:
        inside = sample["place"][0] >= 0
        with torch.no_grad():
            log_q = one.network(sample["image"][None])[:, 1:].log_softmax(1)[:, :, inside]
        known[sample["subject"]] = (
            log_q,
            log_anatomical_factor(priors[sample["subject"]][None, 1:, inside], w),
        )
    masses = {
        name: cluster_mass((q + a).softmax(1), torch.ones(1, q.shape[2], dtype=torch.bool))
        for name, (q, a) in known.items()
    }
    for sample in samples:
        name = sample["subject"]
        f = masses[name] if scope == "subject" else sum(masses.values())
        log_q, log_a = known[name]
        wanted = log_target_distribution(log_q, "dec", f, log_evidence=log_a).exp()[0]
        found = targets.look_up(name, sample["place"][0])[:, sample["place"][0] >= 0]
        torch.testing.assert_close(found, wanted.float(), atol=2e-3, rtol=0)


def test_without_registered_scans_predictions_are_stored_as_they_are(tmp_path):
    samples = [scan("a", 1)]
    del samples[0]["prior"]
    one = rounds(tmp_path, samples)
    one._take_priors()
    targets = one.predict(1)
    inside = samples[0]["place"][0] >= 0
    with torch.no_grad():
        log_q = one.network(samples[0]["image"][None])[0, 1:].log_softmax(0)[:, inside]
    torch.testing.assert_close(targets.log_q["a"].float(), log_q, atol=2e-3, rtol=1e-3)


def test_a_wrong_number_of_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected one number or 4"):
        rounds(tmp_path, [], anatomy_weight=[0.5, 0.5])


def test_last_targets_hold_teacher_prior_and_target_apart(tmp_path):
    samples = [scan("a", 1), scan("b", 2)]
    prior = samples[0]["prior"].clone()
    one = rounds(tmp_path, samples, anatomy_weight=[9.0, 0.0, 0.5, 1.0])
    one._take_priors()
    one.predict(1)
    sample, log_q, a, target = one.last_targets()
    assert sample["subject"] == "a"
    inside = sample["place"][0] >= 0
    with torch.no_grad():
        expected = one.network(sample["image"][None])[0, 1:, inside].log_softmax(0)
    assert torch.allclose(log_q.log_softmax(0), expected, atol=5e-3)
    assert torch.equal(a, prior[1:, inside].float())
    whole = one.targets.look_up("a", sample["place"][0])
    assert torch.equal(target, whole[:, inside])


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_frequencies_do_not_depend_on_windows_or_their_overlap(tmp_path, overlap):
    """Invariant 4: each voxel of the mask counts once, however the prediction was put together."""
    samples = [scan("a", 1), scan("b", 2)]
    whole, windows = rounds(tmp_path / "whole", samples), rounds(tmp_path / "windows", samples[::-1])
    windows.inferer = SlidingWindowInferer((2, 2, 3), overlap=overlap, mode="gaussian")
    f = [one.predict(1).frequencies() for one in (whole, windows)]
    assert float(f[0].sum()) == pytest.approx(sum(int((sample["place"] >= 0).sum()) for sample in samples))
    torch.testing.assert_close(f[1], f[0], rtol=1e-5, atol=0)


def test_labels_do_not_enter_the_frequencies_of_a_round(tmp_path):
    """Invariant 5: they change the prior pi, and nothing else while the network answers the same."""
    samples = [scan("a", 1), scan("b", 2)]
    found = []
    for number, prior in enumerate(([1.0, 1.0, 8.0], [5.0, 4.0, 1.0])):
        one = rounds(tmp_path / str(number), samples, prior=torch.tensor(prior))
        found.append(one.predict(1))
    assert torch.equal(found[0].frequencies(), found[1].frequencies())
    assert not torch.equal(found[0].prior, found[1].prior)
