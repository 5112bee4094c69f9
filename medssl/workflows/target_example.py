"""One unlabeled scan as the end of a training saw it: teacher, registered labels, and the target made of both."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from medssl.engines import torch_rank
from medssl.geometry import Grid
from medssl.io.files import atomic_path
from medssl.io.nifti import Volume
from medssl.labels import LabelTable
from medssl.objectives import OnlineSSLDEC

if TYPE_CHECKING:
    from medssl.workflows.rounds import Rounds

FILE_NAME = "target_example.npz"
MAPS = ("teacher", "registered labels", "target")
"""Its label maps."""


@dataclass(frozen=True, eq=False)
class TargetExample:
    """Label maps of one unlabeled scan in the network's space; the scan itself stays where it is.

    Args:
        subject: Whose.
        maps: Name (one of `MAPS`) -> stored label values, ``(I, J, K)``.
        grid: Of all of them.
    """

    subject: str
    maps: dict[str, NDArray[np.uint8]]
    grid: Grid


def keep_target_example(parser: ConfigParser, out: Path) -> None:
    """Write the example of a training that has just ended; nothing where no labeled scans were registered.

    Args:
        parser: Of its configuration, all parts built.
        out: The run folder.
    """
    if torch_rank() > 0:
        return
    found = _after_rounds(parser) if "train#rounds" in parser else _online(parser)
    if found is None:
        return
    sample, maps = found
    table: LabelTable = parser.get_parsed_content("labels")
    inside = np.asarray(sample["mask"])[0] > 0.5
    values = np.array(table.values, np.uint8)
    stored = {name: np.where(inside, values[labels], values[0]) for name, labels in maps.items()}
    with atomic_path(out / FILE_NAME) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            subject=str(sample["subject"]),
            affine=np.asarray(sample["image"].affine, np.float64),
            **stored,
        )


def read_target_example(run: Path) -> TargetExample | None:
    """Return the example that a run kept, None where there is none that can be read."""
    try:
        with np.load(run / FILE_NAME, allow_pickle=False) as found:
            maps = {name: found[name] for name in MAPS}
            i, j, k = maps[MAPS[0]].shape
            return TargetExample(str(found["subject"]), maps, Grid((i, j, k), found["affine"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def on_grid(volume: Volume, grid: Grid) -> NDArray[Any]:
    """Return the nearest voxels of a volume at the places of another grid; 0 outside its field of view."""
    there = np.linalg.inv(volume.grid.affine) @ grid.affine
    return np.asarray(affine_transform(volume.data, there[:3, :3], there[:3, 3], grid.shape, order=0))


def _online(parser: ConfigParser) -> tuple[Mapping[str, Any], dict[str, NDArray[np.int64]]] | None:
    """Return a scan with registered labels and the maps that the objective would make of it now."""
    loss = parser.get_parsed_content("loss")
    if not isinstance(loss, OnlineSSLDEC) or "train#unlabeled#dataset" not in parser:
        return None
    cache = getattr(parser.get_parsed_content("train#unlabeled#dataset"), "cache", ())
    sample = next((one for one in cache if "prior" in one), None)
    return (
        None
        if sample is None
        else (sample, _maps(loss, parser.get_parsed_content("validate#inferer"), sample))
    )


def _after_rounds(parser: ConfigParser) -> tuple[Mapping[str, Any], dict[str, NDArray[np.int64]]] | None:
    """Return a scan with registered labels and the maps of the last round; background where a target is unsure."""
    rounds: Rounds = parser.get_parsed_content("train#rounds")
    found = rounds.last_targets()
    if found is None:
        return None
    sample, *parts = found
    inside = np.asarray(sample["place"])[0] >= 0
    maps = {name: np.zeros(inside.shape, np.int64) for name in MAPS}
    for name, part in zip(MAPS, parts, strict=True):
        maps[name][inside] = torch.where(part.ne(0).any(0), part.argmax(0) + rounds.first, 0)
    return sample, maps


@torch.no_grad()
def _maps(loss: OnlineSSLDEC, inferer: Any, sample: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Return the likeliest label of every voxel by name, as the objective would see it at the last step."""
    network = loss.teacher.network  # type: ignore[attr-defined]
    device = next(network.parameters()).device
    scores = inferer(torch.as_tensor(sample["image"])[None].to(device), network).float().cpu()
    first = int(getattr(network, "first", 0))
    log_q = torch.as_tensor(scores)[:, first:].log_softmax(1)
    prior = torch.as_tensor(sample["prior"])[None]
    target = loss.log_target(loss.fused(log_q, prior, first), first)
    found = dict(zip(MAPS, (log_q, prior[:, first:].float(), target), strict=True))
    return {name: part[0].argmax(0).numpy() + first for name, part in found.items()}
