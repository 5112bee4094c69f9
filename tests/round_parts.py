"""A round without a training around it: a network, scans in memory, and how one of several processes predicts them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import distributed

from medssl.transforms import Targets, VolumeStore
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


def rounds(folder, samples, scope="pool", limit=None, **more):
    torch.manual_seed(0)
    network = Scores()
    return Rounds(
        trainer=SimpleNamespace(state=SimpleNamespace(epoch=1, iteration=1, epoch_length=1)),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1.0),
        unlabeled=SimpleNamespace(cache=samples, store=VolumeStore(limit)),
        targets=Targets("dec", scope),
        ends=[1, 2],
        inferer=lambda image, network: network(image),
        folder=str(folder),
        names=NAMES,
        **more,
    )


def targets_of(made, samples):
    """Return what a round has for each scan, voxel by voxel."""
    return {str(one["subject"]): made.look_up(str(one["subject"]), one["place"][0]) for one in samples}


def main(folder, rank, ranks):
    """Predict three scans as one of some processes, and save frequencies and targets."""
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    samples = [scan(name, seed) for seed, name in enumerate("abc")]
    made = rounds(folder, samples).predict(1)
    torch.save({"f": made.frequencies(), "targets": targets_of(made, samples)}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
