"""D7: a run that is killed outright goes on, ends as an undisturbed one does, and leaves the images as they are."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_trees import hash_of_tree
from pictures import options
from runs import same, table, weights

from medssl.workflows.classification.baseline import train_with_baseline
from medssl.workflows.classification.distill import DistillOptions, distill
from medssl.workflows.watching import Watcher

STEPS = 6


class Killed(Watcher):
    """Kill this process within the second training, after its first saving; no handler runs."""

    left = STEPS + 5

    def step(self, step, loss):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train(verb, images, run, watcher=None, *, resume=False):
    settings = {"steps_per_epoch": 2, "epochs": STEPS // 2, "val_interval": 1}
    chosen = options(method="ssldec", steps=STEPS, settings=settings)
    if verb == "distill":
        distill(images, run, DistillOptions(kind="plain", student=chosen), watcher, resume=resume)
    else:
        train_with_baseline(images, run, chosen, watcher, resume=resume)


def last_average(run):
    """Return the averaged weights after the last step; those that are kept may be of an earlier one."""
    point = run / "checkpoints" / "resume.pt"
    return torch.load(point, weights_only=True)["teacher"] if point.is_file() else {}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "distill"])
def test_a_killed_run_ends_as_one_that_was_not(verb, pictures, tmp_path):
    before = hash_of_tree(pictures)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, __file__, verb, str(pictures), str(killed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    train(verb, pictures, killed, resume=True)
    train(verb, pictures, whole)
    runs = [path.parent.relative_to(whole) for path in whole.rglob("metrics.tsv")]
    assert len(runs) > 2
    for run in runs:
        assert same(weights(killed / run), weights(whole / run)), run
        assert same(*(last_average(place / run) for place in (killed, whole))), run
        assert table(killed / run / "metrics.tsv") == table(whole / run / "metrics.tsv"), run
    assert hash_of_tree(pictures) == before


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Killed())
