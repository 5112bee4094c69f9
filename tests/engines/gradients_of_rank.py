"""Run by `test_distributed.py` as each of two processes: one step, its loss and gradients in float64."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medssl.engines import SemiSupervisedTrainer
from medssl.labels import UNKNOWN
from medssl.objectives import LabeledOnly, MeanTeacher, OnlineSSLDEC, StoredTargets, SupervisedLoss

OBJECTIVES = {
    "labeled": lambda teacher, **loss: LabeledOnly(**loss),
    "mean teacher": MeanTeacher,
    "ssldec": lambda teacher, **loss: OnlineSSLDEC(teacher, labels=4, **loss),
    "stored targets": lambda teacher, **loss: StoredTargets(**loss),
}


def network(seed: int = 0) -> nn.Module:
    """Return a network whose crops do not see each other: no batch norm, no dropout."""
    torch.manual_seed(seed)
    layers = [nn.Conv3d(2, 6, 3, padding=1), nn.InstanceNorm3d(6), nn.GELU(), nn.Conv3d(6, 4, 3, padding=1)]
    return nn.Sequential(*layers).double()


def batch() -> dict[str, Any]:
    """Return four crops of either kind, the first with few known voxels: the processes have different numbers."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 4, (4, 1, 4, 4, 4), generator=generator)
    label[0, :, :3] = UNKNOWN
    image, weak, strong = torch.randn(3, 4, 2, 4, 4, 4, generator=generator, dtype=torch.float64)
    mask = torch.ones(4, 1, 4, 4, 4)
    mask[0, :, 1:] = 0
    target = torch.rand(4, 4, 4, 4, 4, generator=generator, dtype=torch.float64).softmax(1)
    unlabeled = {"image": weak, "strong": strong, "mask": mask, "target": target}
    return {"image": image, "label": label, "unlabeled": unlabeled}


def part_of(values: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    """Return the share of the crops that one of some processes has."""
    return {
        name: part_of(value, rank, ranks) if isinstance(value, dict) else value[rank::ranks]
        for name, value in values.items()
    }


def gradients(model: nn.Module, crops: dict[str, Any], objective: str) -> dict[str, torch.Tensor]:
    """Take one step of the trainer and return its gradients, and its loss among them."""
    trainer = SemiSupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[crops],
        network=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_function=OBJECTIVES[objective](
            network(seed=7).eval(), labeled_loss=SupervisedLoss(dice_weight=0.0)
        ),
    )
    trainer.run()
    found = {name.removeprefix("module."): value.grad for name, value in model.named_parameters()}
    return {"loss": trainer.state.output["loss"].detach(), **found}


def main(folder: Path, rank: int, ranks: int) -> None:
    """Write the gradients of one of some processes, each with its share of the crops."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks
    )
    mine = part_of(batch(), rank, ranks)
    found = {name: gradients(DistributedDataParallel(network()), mine, name) for name in OBJECTIVES}
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
