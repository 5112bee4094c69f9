"""Training: the bundle's own configuration, run through MONAI's workflow, recorded in a run folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import ConfigError, DatalistError, InputError, OutputError
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import read_json, require_new_run, require_same_hashes, write_json, write_text
from medssl.io.inspection import require_usable_cohort
from medssl.io.leaks import plain_id, require_no_leaks
from medssl.io.nifti import read_grid, voxel_sha256_once
from medssl.io.subjects import Cohort, Subject
from medssl.labels import BUILT_IN
from medssl.workflows.budgets import budget_named
from medssl.workflows.configuration import as_yaml, changed, one_line, overlaid
from medssl.workflows.devices import choose_device
from medssl.workflows.methods import (
    method_named,
    method_values,
    network_values,
    overlays_of,
    settings_of_network,
)
from medssl.workflows.models import (
    INIT_SCANS,
    KnownScans,
    find_weights,
    known_scans,
    packaged_bundle,
    read_config,
)
from medssl.workflows.provenance import command_line, file_hashes, relative, versions
from medssl.workflows.running import Training, only_trainer, run_training
from medssl.workflows.target_example import keep_target_example
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "dense-fcn": {"_target_": "medssl.networks.DenseFCN", "deep_window": "@crop_size"},
    "dense-fcn-small": {
        "_target_": "medssl.networks.DenseFCN",
        "deep_window": "@crop_size",
        "growth_rate": 8,
        "stem_channels": 16,
    },
    "fc-densenet": {"_target_": "medssl.networks.FCDenseNet3D"},
    "basic-unet": {
        "_target_": "monai.networks.nets.BasicUNet",
        "spatial_dims": 3,
        "features": [16, 16, 32, 64, 128, 16],
    },
}
"""Choices of ``--network``; channels and classes follow from the data."""

COPIED = ("evaluate.yaml", "multi_gpu_train.yaml", "logging.conf")
"""Configurations a run folder takes from the bundle as they are."""

INIT_FILE = "models/init.pt"
"""Copy of the weights that a run starts from, so that the run folder stands alone."""

REGISTRATIONS = "train#dataset#registered#folder"
"""Setting with which a user keeps registrations for several runs in one folder. The run's record names it as seen from
the run folder; its configuration names its own folder, so that it holds no path of this machine."""

SAME_SPACING = 0.01
"""Relative difference of two spacings that is not worth a word."""

LISTED = 5
"""Scans named in a message."""


@dataclass(frozen=True)
class TrainOptions:
    """What a user chooses for a training run.

    Args:
        method: A key of `methods.METHODS`.
        network: A key of `NETWORKS`.
        budget: A key of `budgets.BUDGETS`.
        seed: Of initialization, crops and dropout.
        device: "auto", "cpu", "cuda", ...
        hold_out: Labeled training scans to move to validation, the last ones of a seeded permutation.
        init: Run, bundle or file of weights to start from.
        contrasts: BIDS suffixes; None for those of the data.
        mask: "none" where scans have no brain mask.
        resample: Bring other contrasts to the first one's grid by their headers.
        rounds: Self-training rounds with stored targets; 0: targets are made online.
        target_rule: Of SSLDEC, or "hard" in rounds; None for the method's own.
        schedule: How rounds go on, one of `transforms.mixture.SCHEDULES`; None for the configuration's.
        clustering_head: Whether the network ends in a clustering head; None: only for SSLDEC.
        prior: What is known about the targets of SSLDEC beforehand, one of `methods.PRIORS`.
        transductive: Allow unlabeled scans that are also validation or test scans, and say so everywhere.
        settings: Further values of the configuration, id -> value.
    """

    method: str = "supervised"
    network: str = "dense-fcn"
    budget: str = "standard"
    seed: int = 0
    device: str = "auto"
    hold_out: int = 0
    init: str | None = None
    contrasts: tuple[str, ...] | None = None
    mask: str | None = None
    resample: bool = False
    rounds: int = 0
    target_rule: str | None = None
    schedule: str | None = None
    clustering_head: bool | None = None
    prior: str = "auto"
    transductive: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def train(
    data: Path,
    out: Path,
    options: TrainOptions | None = None,
    watcher: Watcher | None = None,
    resume: bool = False,
    *,
    registrations: Path | None = None,
    cohort: Cohort | None = None,
) -> Training:
    """Train on the labeled scans of a cohort.

    Args:
        data: Folder or datalist with at least one labeled scan.
        out: The run folder to make, or to go on with.
        options: See `TrainOptions`; a resumed run keeps its own.
        watcher: Told about the progress.
        resume: Go on with the run in ``out``.
        registrations: Folder that keeps registrations for several runs; None for the one that the settings name, or
            the run's own.
        cohort: What was read of the data before, held-out scans chosen; None: it is read now.

    Raises:
        DatalistError: No labeled scan, or a scan in two sections that must not share any.
        InputError: A scan is unusable, or the data changed since the run began.
        OutputError: The run folder is in use, also by another process, or cannot be written.
        ConfigError: An option or setting is unknown.
        TrainingInterrupted: The user stopped it; everything is saved.
    """
    with only_trainer(out, [data]):
        if resume:
            _require_same_data(data, out)
        else:
            prepare_run(data, out, options or TrainOptions(), cohort)
        if registrations is None and (named := read_json(out / "run.json").get("registrations")):
            registrations = out / named
        return run_training(
            out,
            watcher or Watcher(),
            resume,
            finish=partial(keep_target_example, out=out),
            registrations=registrations,
        )


def prepare_run(data: Path, out: Path, options: TrainOptions, cohort: Cohort | None = None) -> None:
    """Check the data and write the run folder: configuration, datalist, record. Nothing is trained yet.

    Args:
        data: As in `train`.
        out: As in `train`.
        options: As in `train`.
        cohort: As in `train`.

    Raises:
        MedsslError: As in `train`; nothing is written then.
    """
    if cohort is None:
        cohort = hold_out(read_cohort(data, options.contrasts, mask=options.mask), options)
    require_labels(cohort, data)
    method = method_named(options.method)
    if not method.semi_supervised:
        cohort = replace(cohort, unlabeled=())
    sections = ("training", "validation", "unlabeled")
    require_usable_cohort(cohort, sections, options.resample, options.transductive)
    leaks = require_no_leaks(cohort, transductive=options.transductive)
    require_new_run(out, [data])
    known = KnownScans() if options.init is None else known_scans(find_weights(options.init)[0])
    if seen_before := [one.key for one in cohort.validation if known.holds(one)]:
        logger.warning(
            "The weights of --init have learned from %s: scores there, which choose the step, lean high.",
            ", ".join(seen_before),
        )
    _tell_other_spacings(cohort, options.settings.get("spacing", training_spacing(cohort)))
    _write_bundle(out, cohort, options)
    record = _record(cohort, data, out, options)
    seen = [leak.describe() for leak in leaks if leak.transductive]
    if seen:
        record["transductive"] = seen
    if known.keys:
        record[INIT_SCANS] = {
            "subjects": sorted(known.keys),
            "sha256": sorted(known.sha256),
            "voxel_sha256": sorted(known.voxel_sha256),
        }
    write_json(out / "run.json", record)


def _write_bundle(out: Path, cohort: Cohort, options: TrainOptions) -> None:
    """Write what makes the run folder a bundle: configurations, metadata, datalist, weights to start from."""
    values = _values(cohort, options)
    bundle = packaged_bundle()
    overlays = [bundle / "configs" / name for name in overlays_of(options, cohort)]
    train_config = changed(overlaid(bundle / "configs" / "train.yaml", overlays), values)
    shared = {
        name: values[name] for name in ("contrasts", "label_table", "spacing", "crop_size", "network_def")
    }
    inference_config = changed(read_config(bundle / "configs" / "inference.yaml", {}), shared)
    configs = out / "configs"
    write_text(configs / "train.yaml", as_yaml(train_config, "The whole configuration of this run."))
    write_text(
        configs / "inference.yaml", as_yaml(inference_config, "Segments with the weights of this run.")
    )
    if options.init is not None:
        (out / INIT_FILE).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(find_weights(options.init)[1], out / INIT_FILE)
    for name in COPIED:
        shutil.copyfile(bundle / "configs" / name, configs / name)
    shutil.copyfile(bundle / "LICENSE", out / "LICENSE")
    write_json(configs / "metadata.json", _metadata(bundle, cohort, options))
    write_datalist(out / "datalist.json", cohort)


def require_labels(cohort: Cohort, data: Path) -> None:
    """Refuse a cohort without a labeled scan for training.

    Raises:
        DatalistError: There is none.
    """
    if not cohort.training:
        msg = (
            f"No labeled scan for training was found in {data} ({len(cohort.unlabeled)} unlabeled ones were)."
        )
        raise DatalistError(
            msg, "Put *_dseg.nii.gz files beside the scans or in derivatives, or list them under 'training'."
        )


def _values(cohort: Cohort, options: TrainOptions) -> dict[str, Any]:
    """Return what a run changes in the bundle's training configuration."""
    budget = budget_named(options.budget)
    table = cohort.table
    values: dict[str, Any] = {
        "dataset_dir": "@bundle_root",
        "output_dir": "@bundle_root",
        "contrasts": list(cohort.contrasts),
        "label_table": table.name
        if table in BUILT_IN.values()
        else [{"table": table.name, **row} for row in table.rows()],
        "spacing": training_spacing(cohort),
        "seed": options.seed,
        "resample": options.resample,
        "leak_check": False,  # done above, with --transductive respected
        "transductive": _is_transductive(options),
        "flip_probability": 0.0 if table.names_sides else 0.5,
        "batch_size": budget.crops,
        "crop_size": [budget.crop_size] * 3,
        "steps_per_epoch": budget.steps_per_epoch,
        "epochs": budget.steps // budget.steps_per_epoch,
        **network_values(_network(options), cohort, options),
        **method_values(options),
    }
    if options.device != "auto":
        values["device"] = f"$torch.device('{choose_device(options.device)}')"
    if options.init is not None:
        values["init_weights"] = f"$@bundle_root + '/{INIT_FILE}'"
    values |= settings_of_network(options.settings, values["network_def"])
    return values if named_registrations(options) is None else {**values, REGISTRATIONS: "@output_dir"}


def named_registrations(options: TrainOptions) -> Path | None:
    """Return the folder in which a user keeps registrations for several runs; None for the run's own.

    Raises:
        ConfigError: The setting is no path.
    """
    named = options.settings.get(REGISTRATIONS)
    if str(named).startswith(("$", "@")):
        msg = f"{REGISTRATIONS}={named} is an expression; expected the path of a folder."
        raise ConfigError(msg, "Give the path itself.")
    return None if named is None else Path(str(named))


def settings_seen_from(start: Path, options: TrainOptions) -> dict[str, Any]:
    """Return a user's settings as they are put on record: without a folder of this machine in full."""
    named = named_registrations(options)
    seen = {} if named is None else {REGISTRATIONS: relative(named, start)}
    return {**options.settings, **seen}


def training_spacing(cohort: Cohort) -> list[float]:
    """Return the median spacing in mm of the training scans along R, A, S: the network works there."""
    sizes = [_spacing(subject) for subject in cohort.training]
    return [round(float(size), 3) for size in np.median(np.array(sizes), axis=0)]


def _spacing(subject: Subject) -> list[float]:
    """Return the spacing of a scan along R, A, S."""
    grid = read_grid(subject.images[0], subject.key)
    axis_of = dict(zip(grid.axcodes, grid.spacing, strict=True))
    return [next(axis_of[code] for code in pair if code in axis_of) for pair in ("RL", "AP", "SI")]


def _tell_other_spacings(cohort: Cohort, spacing: Any) -> None:
    """Name the scans that are interpolated to the network's spacing, where that is known already: three numbers."""
    if not isinstance(spacing, list | tuple) or [type(size) in (int, float) for size in spacing] != 3 * [
        True
    ]:
        return
    found = {one.key: _spacing(one) for one in (*cohort.training, *cohort.validation, *cohort.unlabeled)}
    others = [
        f"{name} ({_in_mm(sizes)})"
        for name, sizes in found.items()
        if not np.allclose(sizes, spacing, rtol=SAME_SPACING)
    ]
    if others:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        shown = ", ".join(others[:LISTED])
        logger.info("Interpolated to %s, along R, A, S: %s%s", _in_mm(spacing), shown, more)


def _in_mm(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes) + " mm"


def _network(options: TrainOptions) -> dict[str, Any]:
    if options.network not in NETWORKS:
        msg = f"There is no network '{options.network}'. Choose one of: {', '.join(NETWORKS)}."
        raise ConfigError(msg)
    return dict(NETWORKS[options.network])


def hold_out(cohort: Cohort, options: TrainOptions) -> Cohort:
    """Move some labeled training scans to validation, whole subjects at a time.

    Their unlabeled sessions are left out, unless held-out scans may be among the unlabeled ones.
    """
    if not options.hold_out:
        return cohort
    names = sorted({subject.subject for subject in cohort.training})
    if options.hold_out >= len(names):
        msg = f"--hold-out {options.hold_out} leaves no scan to train on: {len(names)} labeled subjects were found."
        raise DatalistError(msg, "Hold out fewer.")
    order = np.random.default_rng(options.seed).permutation(len(names))
    held = {names[place] for place in order[-options.hold_out :]}
    persons = set() if options.transductive else {plain_id(name) for name in held}
    left_out = [subject.key for subject in cohort.unlabeled if plain_id(subject.subject) in persons]
    if left_out:
        logger.info("Left out, being unlabeled scans of held-out subjects: %s", ", ".join(left_out))
    return replace(
        cohort,
        unlabeled=tuple(subject for subject in cohort.unlabeled if subject.key not in left_out),
        training=tuple(subject for subject in cohort.training if subject.subject not in held),
        validation=cohort.validation
        + tuple(subject for subject in cohort.training if subject.subject in held),
    )


def _metadata(bundle: Path, cohort: Cohort, options: TrainOptions) -> dict[str, Any]:
    """Return the metadata of the bundle that a run folder is."""
    metadata = read_json(bundle / "configs" / "metadata.json")
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    image["num_channels"] = len(cohort.contrasts)
    image["channel_def"] = {str(channel): name for channel, name in enumerate(cohort.contrasts)}
    pred["num_channels"] = len(cohort.table)
    pred["value_range"] = [0, len(cohort.table) - 1]
    pred["channel_def"] = {str(channel): label.name for channel, label in enumerate(cohort.table)}
    scans = f"{len(cohort.training)} labeled scan{'s' if len(cohort.training) != 1 else ''}"
    if cohort.unlabeled:
        scans += f" and {len(cohort.unlabeled)} unlabeled"
    if _is_transductive(options):
        scans += ", transductive: held-out scans may be among the unlabeled"
    return metadata | {
        "name": f"medssl run ({cohort.table.name})",
        "data_source": f"trained with method {options.method} on {scans} ({', '.join(cohort.contrasts)})",
        "data_type": "NIfTI",
        "image_classes": ", ".join(cohort.contrasts),
        "label_classes": cohort.table.describe(),
        "pred_classes": cohort.table.describe(),
        "eval_metrics": {},
        "transductive": _is_transductive(options),
    }


def _is_transductive(options: TrainOptions) -> bool:
    """Tell whether held-out scans may be among the unlabeled ones; a labeled-only training has none."""
    return options.transductive and method_named(options.method).semi_supervised


def repeat_command(data: Path, out: Path, options: TrainOptions, *, checked: bool = False) -> str:
    """Return the command that repeats a run, ``checked`` or not against labeled-only training."""
    unchecked = method_named(options.method).semi_supervised and not checked
    chosen = [
        ("method", options.method),
        ("no-check", unchecked),
        ("network", options.network),
        ("budget", options.budget),
        ("seed", options.seed),
        ("hold-out", options.hold_out),
        ("rounds", options.rounds),
        ("target-rule", options.target_rule),
        ("schedule", options.schedule),
        ("clustering-head", options.clustering_head),
        ("softmax-head", options.clustering_head is False),
        ("prior", options.prior if options.prior != "auto" else None),
        ("transductive", options.transductive),
        ("contrasts", ",".join(options.contrasts or ())),
        ("mask", options.mask),
        ("resample", options.resample),
        ("device", options.device if options.device != "auto" else None),
        ("init", relative(options.init, out.parent) if options.init else None),
        *[
            ("set", f"{name}={one_line(value)}")
            for name, value in settings_seen_from(out.parent, options).items()
        ],
    ]
    return command_line("train", [data], out, chosen)


def _record(cohort: Cohort, data: Path, out: Path, options: TrainOptions) -> dict[str, Any]:
    budget = budget_named(options.budget)
    registrations = named_registrations(options)
    return {
        "command": repeat_command(data, out, options),
        "versions": versions(),
        "data": relative(data, out),
        **({} if registrations is None else {"registrations": relative(registrations, out)}),
        "method": options.method,
        "network": options.network,
        "seed": options.seed,
        "device": options.device,
        "budget": {
            "name": budget.name,
            "steps": budget.steps,
            "crops": budget.crops,
            "crop_size": budget.crop_size,
        },
        "contrasts": list(cohort.contrasts),
        "labels": cohort.table.rows(),
        "subjects": {
            "training": [subject.key for subject in cohort.training],
            "validation": [subject.key for subject in cohort.validation],
            "unlabeled": [subject.key for subject in cohort.unlabeled],
        },
        "data_sha256": file_hashes((*cohort.training, *cohort.validation, *cohort.unlabeled), out),
        "voxel_sha256": {
            one.key: voxel_sha256_once(one.images[0], one.key)
            for one in (*cohort.training, *cohort.validation)
        },
        "finished": False,
    }


def _require_same_data(data: Path, out: Path) -> None:
    """Compare the data of a run with those it began with.

    Raises:
        InputError: A file is gone or changed, other data are given, or there is no run to go on with.
    """
    if not (out / "run.json").is_file():
        msg = f"{out} holds no run.json, so there is no run to go on with."
        raise InputError(msg, "Start it without --resume.")
    record = read_json(out / "run.json")
    if record.get("finished"):
        msg = f"The run in {out} is finished ({record.get('steps')} steps)."
        raise OutputError(msg, "Choose a new --out for another run.")
    if relative(data, out) != record["data"]:
        msg = f"The run in {out} began with other data: {record['data']} as seen from its folder, now {data}."
        raise InputError(msg, "Give the same data, or start a new run.")
    listed = read_cohort(out)
    now = file_hashes((*listed.training, *listed.validation, *listed.unlabeled), out)
    require_same_hashes(record["data_sha256"], now, f"the run in {out} began")
