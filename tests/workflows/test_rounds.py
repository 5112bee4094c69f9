"""What a round stores: frequencies and targets of the unlabeled scans, whatever stands around them."""

import subprocess
import sys
from pathlib import Path

import pytest
import round_parts
import torch
from monai.inferers import SlidingWindowInferer
from round_parts import rounds, scan, targets_of

from medssl.errors import CheckpointError


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_frequencies_do_not_depend_on_windows_their_overlap_order_or_number(
    tmp_path, overlap, batch, backwards
):
    """Invariant 4: each voxel of the mask counts once, however the prediction was put together."""
    samples = [scan("a", 1), scan("b", 2)]
    whole, windows = rounds(tmp_path / "whole", samples), rounds(tmp_path / "windows", samples[::-1])
    cut = SlidingWindowInferer((2, 2, 3), batch, overlap, mode="gaussian")
    axes = (2, 3, 4) if backwards else ()  # windows from the far end on: the network looks at single voxels
    windows.inferer = lambda image, network: cut(image.flip(axes), network).flip(axes)
    f = [one.predict(1).frequencies() for one in (whole, windows)]
    assert float(f[0].sum()) == pytest.approx(sum(int((sample["place"] >= 0).sum()) for sample in samples))
    torch.testing.assert_close(f[1], f[0], rtol=1e-5, atol=0)


def test_what_lies_outside_the_mask_changes_neither_frequencies_nor_targets(tmp_path):
    """Invariant 4."""
    samples = [scan("a", 1), scan("b", 2)]
    made = rounds(tmp_path / "one", samples).predict(1)
    for sample in samples:
        sample["image"] = torch.where(sample["place"] < 0, 9.0, sample["image"])
    other = rounds(tmp_path / "other", samples).predict(1)
    assert torch.equal(made.frequencies(), other.frequencies())
    for name, target in targets_of(made, samples).items():
        assert torch.equal(target, targets_of(other, samples)[name])


def test_two_processes_make_the_frequencies_and_targets_of_one(tmp_path):
    """Invariants 4 and 10: of three scans one process predicts two."""
    script = Path(round_parts.__file__)
    started = [subprocess.Popen([sys.executable, script, tmp_path, str(rank), "2"]) for rank in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    samples = [scan(name, seed) for seed, name in enumerate("abc")]
    alone = rounds(tmp_path / "alone", samples).predict(1)
    wanted = targets_of(alone, samples)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["f"], alone.frequencies(), rtol=1e-12, atol=0)
        assert found["targets"].keys() == wanted.keys()
        assert all(torch.equal(found["targets"][name], wanted[name]) for name in wanted)


def test_labels_do_not_enter_the_frequencies_of_a_round(tmp_path):
    """Invariant 5: they change the prior pi, and nothing else while the network answers the same."""
    samples = [scan("a", 1), scan("b", 2)]
    found = []
    for number, prior in enumerate(([1.0, 1.0, 8.0], [5.0, 4.0, 1.0])):
        one = rounds(tmp_path / str(number), samples, prior=torch.tensor(prior))
        found.append(one.predict(1))
    assert torch.equal(found[0].frequencies(), found[1].frequencies())
    assert not torch.equal(found[0].prior, found[1].prior)


def test_a_class_without_any_mass_is_named_and_targets_stay_finite(tmp_path, caplog):
    """Invariant 8."""
    samples = [scan("a", 1)]
    one = rounds(tmp_path, samples)
    with torch.no_grad():
        one.network.layer.bias[2] = -100.0
    made = one.predict(1)
    assert "no voxel of the unlabeled scans goes to two" in caplog.text
    assert torch.isfinite(targets_of(made, samples)["a"]).all()


@pytest.mark.parametrize("more", [-1, 1])
def test_stored_targets_of_another_mask_are_refused(tmp_path, more):
    """One voxel more or fewer in the mask: every voxel after it would have the target of its neighbor."""
    sample = scan("a", 1)
    rounds(tmp_path, [sample]).predict(1)
    place = sample["place"].flatten()
    voxels = int((place >= 0).sum())
    change = int((place < 0).nonzero()[0]) if more > 0 else int((place >= 0).nonzero()[-1])
    place[change] = voxels if more > 0 else -1
    with pytest.raises(
        CheckpointError, match=rf"{voxels} mask voxels of a; the mask has {voxels + more} now"
    ):
        rounds(tmp_path, [sample]).predict(1)
