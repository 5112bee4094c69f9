"""Registered labels in stored targets: what is kept is the fused assignment, and its mass."""

import pytest
import torch
from round_parts import rounds, scan

from medssl.errors import ConfigError
from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import cluster_mass, log_target_distribution


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


def test_priors_beyond_the_limit_of_the_scans_are_in_files_and_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.transforms.volume_store.SMALL", 1)
    kept = [rounds(tmp_path, [scan("a", 1)], limit=limit) for limit in (None, 0)]
    for one in kept:
        one._take_priors()
    assert [one.unlabeled.store.mapped for one in kept] == [0, 1]
    assert torch.equal(kept[0].priors["a"], kept[1].priors["a"])


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
