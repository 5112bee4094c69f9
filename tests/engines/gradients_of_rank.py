"""Run by `test_distributed.py` as each of two processes: one step, and its gradients in float64."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medssl.engines import SemiSupervisedTrainer
from medssl.labels import UNKNOWN
from medssl.objectives import LabeledOnly, SupervisedLoss


def network() -> nn.Module:
    """Return a network whose crops do not see each other: no batch norm, no dropout."""
    torch.manual_seed(0)
    layers = [nn.Conv3d(2, 6, 3, padding=1), nn.InstanceNorm3d(6), nn.GELU(), nn.Conv3d(6, 4, 3, padding=1)]
    return nn.Sequential(*layers).double()


def batch() -> dict[str, torch.Tensor]:
    """Return four crops, the first of 16 known voxels, the others of 64: the processes have different numbers."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 4, (4, 1, 4, 4, 4), generator=generator)
    label[0, :, :3] = UNKNOWN
    return {"image": torch.randn(4, 2, 4, 4, 4, generator=generator, dtype=torch.float64), "label": label}


def gradients(model: nn.Module, crops: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take one step of the trainer and return what it found."""
    trainer = SemiSupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[crops],
        network=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_function=LabeledOnly(SupervisedLoss(dice_weight=0.0)),
    )
    trainer.run()
    return {name.removeprefix("module."): value.grad for name, value in model.named_parameters()}


def main(folder: Path, rank: int, ranks: int) -> None:
    """Write the gradients of one of some processes, each with its share of the crops."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks
    )
    mine = {name: value[rank::ranks] for name, value in batch().items()}
    torch.save(gradients(DistributedDataParallel(network()), mine), folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
