"""Finding a model: the packaged bundle, a run folder, another bundle, or a single file of weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import nn

from medssl.errors import CheckpointError, InputError
from medssl.io.checkpoint import ModelCard, card_of, load_weights, read_checkpoint
from medssl.io.files import read_json, sha256, sha256_once
from medssl.io.nifti import Volume, voxel_sha256_once
from medssl.io.subjects import Subject, is_transductive
from medssl.labels import LabelTable, label_table

logger = logging.getLogger(__name__)

PACKAGED = "infant_brain_segmentation"
"""Folder name of the bundle that comes with the package."""

INIT_SCANS = "init_scans"
"""In a run's record: the labeled scans of the run whose weights it began with."""


@dataclass(frozen=True)
class KnownScans:
    """The training and validation scans of a run.

    Args:
        keys: Their names.
        sha256: Of the files that the run read, those of unlabeled scans among them.
        voxel_sha256: Of the voxels of their first contrasts (`Volume.voxel_sha256`); earlier versions kept none.
    """

    keys: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    voxel_sha256: frozenset[str] = frozenset()

    def holds(self, subject: Subject, volume: Volume | None = None) -> bool:
        """Tell whether a scan is one of them: by its image file, and its name or label image; or by its voxels.

        Args:
            subject: The scan.
            volume: Its first contrast, where it has been read.

        Raises:
            InputError: A file cannot be read.
        """
        if not self.keys:
            return False
        if self._holds_files(subject):
            return True
        if not self.voxel_sha256:
            return False
        if volume is None:
            return voxel_sha256_once(subject.images[0], subject.key) in self.voxel_sha256
        return volume.voxel_sha256() in self.voxel_sha256

    def _holds_files(self, subject: Subject) -> bool:
        if subject.key not in self.keys and subject.label is None:
            return False
        if sha256_once(subject.images[0]) not in self.sha256:
            return False
        return subject.key in self.keys or sha256_once(Path(str(subject.label))) in self.sha256


@dataclass(frozen=True)
class Model:
    """A network that is ready to segment, and what is known about it.

    Args:
        name: For people and for file names.
        network: With its weights, in evaluation mode.
        contrasts: BIDS suffixes in channel order.
        table: The labels of its outputs.
        spacing: Voxel size in mm of its space.
        preprocessing: From files to its input.
        trained_on: A sentence.
        weights_sha256: Of the file of weights.
        device: Where the network is.
        transductive: Whether held-out scans may have been among the unlabeled ones of its training.
        labeled: The scans whose labels its training or the choice of its step saw, where it is a run's.
    """

    name: str
    network: nn.Module
    contrasts: tuple[str, ...]
    table: LabelTable
    spacing: tuple[float, ...]
    preprocessing: Compose
    trained_on: str
    weights_sha256: str
    device: str = "cpu"
    transductive: bool = False
    labeled: KnownScans = field(default_factory=KnownScans)


@dataclass(frozen=True)
class ModelFacts:
    """What a model segments.

    Args:
        contrasts: BIDS suffixes in channel order.
        table: The labels of its outputs.
        spacing: Voxel size in mm of its space.
    """

    contrasts: tuple[str, ...]
    table: LabelTable
    spacing: tuple[float, ...]


def packaged_bundle(name: str = PACKAGED) -> Path:
    """Return the folder of a bundle that comes with the package.

    Args:
        name: Of the folder.

    Raises:
        InputError: The installation lacks it.
    """
    inside = Path(str(resources.files("medssl"))) / "_bundles" / name
    checkout = Path(str(resources.files("medssl"))).parent / "bundles" / name
    for folder in (inside, checkout):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    msg = f"This installation of medssl lacks its bundle '{name}'. Install the package again."
    raise InputError(msg)


def find_weights(model: Path | str | None) -> tuple[Path, Path]:
    """Return the bundle folder and the file of weights that ``--model`` means.

    Args:
        model: None for the packaged bundle, a run folder, a bundle folder, or a file of weights. A file
            that lies in no bundle is run with the configuration of the packaged one.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: A folder that is no run and no bundle, or one without weights.
    """
    path = packaged_bundle() if model is None else Path(model)
    if path.is_dir():
        if not (path / "configs" / "inference.yaml").is_file():
            msg = (
                f"{path} is neither a run folder nor a bundle: found no configs/inference.yaml in it. "
                f"Give the --out folder of 'medssl train', a MONAI bundle, or a .pt file."
            )
            raise CheckpointError(msg)
        weights = path / "models" / "model.pt"
        if not weights.is_file():
            msg = (
                f"{path} holds no models/model.pt yet. Finish the training first (medssl train ... --resume)."
            )
            raise CheckpointError(msg)
        return path, weights
    if not path.exists():
        msg = f"{path}: no such run folder, bundle or file of weights. Check the path given to --model."
        raise InputError(msg)
    around = path.resolve().parent.parent
    return (around if (around / "configs" / "inference.yaml").is_file() else packaged_bundle()), path


def load_model(model: Path | str | None = None, device: str = "cpu") -> Model:
    """Load a network with its weights, its labels and its preprocessing.

    Only load bundles you trust: their configuration may run code.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: The weights are unreadable, or of another network or label table.
    """
    bundle, weights = find_weights(model)
    parser, facts = _read_model(bundle, weights, device)
    network = parser.get_parsed_content("network_def")
    load_weights(network, weights, ModelCard(facts.contrasts, facts.table.rows(), facts.spacing))
    meta = read_json(bundle / "configs" / "metadata.json")
    trained_on = str(meta.get("data_source", ""))
    return Model(
        name=str(meta.get("name", bundle.name)),
        network=network.to(torch.device(device)).eval(),
        contrasts=facts.contrasts,
        table=facts.table,
        spacing=facts.spacing,
        preprocessing=parser.get_parsed_content("preprocessing"),
        trained_on=trained_on,
        weights_sha256=sha256(weights),
        device=device,
        transductive=is_transductive(meta.get("transductive"), trained_on),
        labeled=known_scans(bundle),
    )


def known_scans(bundle: Path) -> KnownScans:
    """Read what a run folder says of its scans, and of those that its first weights knew; a bundle says nothing."""
    record = read_json(bundle / "run.json") if (bundle / "run.json").is_file() else {}
    names = ("subjects", "data_sha256", "voxel_sha256", INIT_SCANS)
    subjects, files, voxels, before = (record.get(name, {}) for name in names)
    keys = (key for part in ("training", "validation") for key in subjects.get(part, ()))
    return KnownScans(
        frozenset(keys).union(before.get("subjects", ())),
        frozenset(files.values()).union(before.get("sha256", ())),
        frozenset(voxels.values()).union(before.get("voxel_sha256", ())),
    )


def model_facts(model: Path | str | None = None) -> ModelFacts:
    """Return what a model segments, without building its network.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: The weights are unreadable.
    """
    return _read_model(*find_weights(model), "cpu")[1]


def _read_model(bundle: Path, weights: Path, device: str) -> tuple[ConfigParser, ModelFacts]:
    """Read the configuration that belongs to some weights."""
    card = card_of(read_checkpoint(weights))
    parser = read_config(bundle / "configs" / "inference.yaml", _facts_of(card, bundle))
    parser["device"] = device
    table = label_table(parser.get_parsed_content("label_table"))
    spacing = tuple(float(size) for size in parser.get_parsed_content("spacing"))
    return parser, ModelFacts(tuple(parser.get_parsed_content("contrasts")), table, spacing)


def read_config(path: Path, changes: Mapping[str, Any]) -> ConfigParser:
    """Read a bundle's configuration and change some of its values.

    Raises:
        InputError: It is no YAML.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        msg = f"{path.name} is no valid YAML ({str(error).splitlines()[0]}). Correct it or train again."
        raise InputError(msg) from error
    parser = ConfigParser(config)
    parser.update(dict(changes))
    return parser


def quiet_libraries() -> None:
    """Silence remarks of MONAI and torch that tell a user nothing about the own data."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for remark in (
        ".*parsing config_file.*",
        ".*class balanced samples.*",
        ".*nvImageCodec decoder plugin.*",
    ):
        warnings.filterwarnings("ignore", message=remark)
    for name in ("monai", "ignite", "torch", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("monai", "ignite", "torch"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _facts_of(card: ModelCard | None, bundle: Path) -> dict[str, Any]:
    """Let a lone file of weights say what it segments; a bundle's own weights must fit its configuration."""
    if card is None or bundle != packaged_bundle():
        return {}
    labels = label_table(card.labels)
    told = {"contrasts": list(card.contrasts), "label_table": labels.rows(), "spacing": list(card.spacing)}
    return told if card.crop_size is None else {**told, "crop_size": list(card.crop_size)}
