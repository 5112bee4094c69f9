"""Training a classifier: the bundle's own configuration, run through MONAI's workflow, recorded in a folder."""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl.errors import ConfigError, DatalistError, InputError, OutputError
from medssl.io.files import (
    read_json,
    require_new_run,
    require_same_hashes,
    sha256_once,
    write_json,
    write_text,
)
from medssl.io.image_cohort import ImageCohort, folders_of_images, read_image_cohort, write_manifest
from medssl.io.image_items import passed_over_remark
from medssl.io.image_leaks import check_images, inspect_images, require_no_image_leaks, without_images
from medssl.io.image_splits import LEAST_HELD_OUT, Digests, carve_validation, draw_labeled
from medssl.networks.compact import network_facts
from medssl.reporting.model_card import Origin
from medssl.transforms.image_augmentation import PRESETS
from medssl.workflows.classification.budgets import image_budget
from medssl.workflows.classification.calibrate import calibrate
from medssl.workflows.classification.given_weights import copies, expressions, given_weights, with_weights
from medssl.workflows.classification.image_input import channels_of, white_of_cohort, with_facts
from medssl.workflows.classification.methods import online_method
from medssl.workflows.classification.model_card import license_warning, started_from, write_model_card
from medssl.workflows.configuration import as_yaml, changed, one_line, overlaid
from medssl.workflows.devices import choose_device
from medssl.workflows.models import packaged_bundle, read_config
from medssl.workflows.provenance import command_line, relative, versions
from medssl.workflows.running import Training, only_trainer, run_training
from medssl.workflows.watching import Watcher

BUNDLE = "compact_image_classification"
"""Folder name of the bundle of image classifiers."""

COPIED = ("evaluate.yaml", "logging.conf")
"""Configurations a run folder takes from the bundle as they are."""

SHARED = ("classes", "network_name", "image_size", "channels", "interpolation", "fit", "white")
"""Values that training and inference have in common."""

CLASS_WEIGHTS = ("none", "balanced")
"""Rules of `class_weights`."""

logger = logging.getLogger(__name__)

PER_EPOCH = 25
"""Steps between two looks at the validation images."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """What a user chooses for the training of a classifier.

    Args:
        method: A key of `methods.ONLINE`.
        network: A name of the registry of networks.
        budget: A key of `budgets.BUDGETS`.
        steps: Optimizer steps instead of the budget's.
        seed: Of initialization, order, augmentation and dropout, and of what is drawn from the labeled images.
        device: "auto", "cpu", "cuda", ...
        size: Pixels a side; None for the network's own.
        channels: 1 for gray, 3 for color; None for those of the images.
        fit: How images that are not square become so, one of `transforms.classification.FITS`.
        white: Value of 16-bit images that becomes white; None: 255, 4095 or 65535, as the images are.
        preset: Of augmentation, see `transforms.image_augmentation`.
        labels_per_class: Keep so many labels a class, the rest counts as unlabeled; None for all.
        hold_out: Share of the labeled images to hold out where the data have no validation images.
        pretrained: File of weights of the backbone, or "cached".
        label_smoothing: Share of a label that all classes divide equally.
        logit_adjustment: How much the shares of the classes among the labels add to the scores in the labeled loss, so
            that rare classes are not drowned; 1 as published, 0 for nothing.
        class_weights: "balanced": rare classes count more in the labeled loss, each class as much in all; "none".
        balanced: Draw every class equally often from the labeled images.
        unlabeled: Folder of unlabeled images beside the data.
        rounds: Of SSLDEC with stored targets, see `rounds.train_in_rounds`; 0: targets are made online.
        target_rule: Of SSLDEC; None for the configuration's.
        schedule: How rounds go on, see `rounds.train_in_rounds`.
        transductive: Allow unlabeled images that are validation or test images too, and say so everywhere.
        skip_unreadable: Leave unreadable images out instead of refusing.
        allow_outside: Accept paths and links that leave the folder of the data.
        settings: Further values of the configuration, id -> value.
        decided: Channels and white have been decided on all images; that no white is given then means that there are
            no images of 16 bits.
    """

    method: str = "supervised"
    network: str = "vgg-small-64"
    budget: str = "standard"
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    size: int | None = None
    channels: int | None = None
    fit: str = "crop"
    white: int | None = None
    preset: str = "natural"
    labels_per_class: int | None = None
    hold_out: float = 0.2
    pretrained: str | None = None
    label_smoothing: float = 0.0
    logit_adjustment: float = 0.0
    class_weights: str = "none"
    balanced: bool = False
    unlabeled: Path | None = None
    rounds: int = 0
    target_rule: str | None = None
    schedule: str = "union_warm"
    transductive: bool = False
    skip_unreadable: bool = False
    allow_outside: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    decided: bool = False


def train_classifier(
    data: Path,
    out: Path,
    options: ClassifyOptions | None = None,
    watcher: Watcher | None = None,
    resume: bool = False,
) -> Training:
    """Train on the labeled images of a folder or manifest, with the unlabeled ones where the method uses them.

    Args:
        data: Folder tree, folder with ``images.csv``, or CSV manifest.
        out: The run folder to make, or to go on with.
        options: See `ClassifyOptions`; a resumed run keeps its own.
        watcher: Told about the progress.
        resume: Go on with the run in ``out``.

    Raises:
        InputError: Images that cannot be used, or that changed since the run began.
        DatalistError: No labeled images, or images in two sections that must not share any.
        OutputError: The run folder is in use, or cannot be written.
        ConfigError: An option or setting is unknown.
        TrainingInterrupted: The user stopped it; everything is saved.
    """
    with only_trainer(out, folders_of_inputs(data, options or ClassifyOptions())):
        return _train_classifier(data, out, options or ClassifyOptions(), watcher, resume)


def _train_classifier(
    data: Path, out: Path, options: ClassifyOptions, watcher: Watcher | None, resume: bool
) -> Training:
    if resume:
        require_same_images(out)
    elif options.rounds:
        msg = f"--rounds belongs to --method ssldec; found {options.method} without a baseline."
        raise ConfigError(msg, "Leave --rounds out, or train with the baseline.")
    else:
        require_used_options(options)
        prepare_classifier(out, usable_cohort(data, options), options, data)
    record = read_json(out / "run.json")
    validation, device = cohort_of_run(out, record["classes"]).validation, choose_device(options.device)

    def finish(_: object) -> None:
        calibrate(out, validation, record, device)
        config = read_config(out / "configs" / "train.yaml", {}).config
        begin = record["network"], {**config, "pretrained": record.get("pretrained", config["pretrained"])}
        origin = Origin(
            record["budget"]["steps"], record["seed"], started_from(*begin), warning=license_warning(*begin)
        )
        write_model_card(out, record, origin, validation, device=device)

    return run_training(out, watcher or Watcher(), resume, finish=finish)


def folders_of_inputs(data: Path, options: ClassifyOptions) -> list[Path]:
    """Return the folders of the images that a run is trained with, in which it must not lie."""
    return [*folders_of_images(data), *([options.unlabeled] if options.unlabeled else [])]


def require_used_options(options: ClassifyOptions) -> None:
    """Refuse options of SSLDEC where nothing would follow them.

    Raises:
        ConfigError: A target rule with another method, or a schedule without rounds.
    """
    if options.target_rule is not None and options.method != "ssldec":
        msg = f"--target-rule belongs to --method ssldec; found --method {options.method}."
        raise ConfigError(msg, "Leave --target-rule out, or use --method ssldec.")
    if options.schedule != ClassifyOptions.schedule and not options.rounds:
        msg = f"Found --schedule {options.schedule}, which says how rounds go on, without --rounds."
        raise ConfigError(msg, "Give --rounds 1 or more, or leave --schedule out.")


def usable_cohort(data: Path, options: ClassifyOptions) -> ImageCohort:
    """Read and check the images; draw the labels that shall be used and those that are held out.

    Raises:
        InputError: Images that cannot be read, or leaks.
        DatalistError: There is no labeled image.
    """
    cohort = read_image_cohort(data, unlabeled=options.unlabeled, allow_outside=options.allow_outside)
    if cohort.passed_over:
        logger.warning("%s: %s", data, passed_over_remark(cohort.passed_over))
    if not cohort.training:
        msg = f"No labeled image for training was found in {data.name} ({len(cohort.unlabeled)} unlabeled ones were)."
        raise DatalistError(msg, "Put images into train/CLASS/, or list them with a label in images.csv.")
    look = inspect_images(cohort)
    findings = check_images(cohort, "skip" if options.skip_unreadable else "fail", check=look)
    cohort = replace(without_images(cohort, findings), facts=look.facts)
    require_no_image_leaks(cohort, transductive=options.transductive, check=replace(look, findings=()))
    if options.labels_per_class is not None:
        cohort = draw_labeled(
            cohort, labels_per_class=options.labels_per_class, seed=options.seed, digests=look.digests
        )
    if options.hold_out and not cohort.validation:
        cohort = _carved(cohort, options, look.digests)
    return cohort


def _carved(cohort: ImageCohort, options: ClassifyOptions, digests: Digests) -> ImageCohort:
    """Hold out images of the classes that have enough of them; rarer ones learn with all they have."""
    counts = Counter(item.label for item in cohort.training)
    rare = [name for name in cohort.classes if counts[name] < LEAST_HELD_OUT]
    if len(rare) == len(cohort.classes):
        return _none_held_out(cohort, f"No class has {LEAST_HELD_OUT} labeled images")
    if rare:
        logger.warning(
            "Fewer than %d labeled images of %s: all of them are learned from, and validation says nothing about them.",
            LEAST_HELD_OUT,
            ", ".join(rare),
        )
    try:
        return carve_validation(
            cohort,
            share=options.hold_out,
            seed=options.seed,
            digests=digests,
            rare=rare,
            transductive=options.transductive,
        )
    except DatalistError:
        return _none_held_out(cohort, "Groups or copies hold all labeled images of a class together")


def _none_held_out(cohort: ImageCohort, why: str) -> ImageCohort:
    logger.warning(
        "%s, so none is held out: nothing chooses the best step or a temperature, and nothing tells whether unlabeled "
        "images helped. val/ in the folder of the data would.",
        why,
    )
    return cohort


def prepare_classifier(
    out: Path,
    cohort: ImageCohort,
    options: ClassifyOptions,
    data: Path,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a run folder: configuration, manifest, record. Nothing is trained yet.

    Args:
        out: The folder; its ``run.json`` comes last and says that it is whole.
        cohort: Its images.
        options: See `ClassifyOptions`.
        data: Where the images come from, for the record.
        files: Name in the folder -> file that is copied there.

    Raises:
        OutputError: The folder is in use, or cannot be written.
        ConfigError: An option or setting is unknown.
    """
    require_new_run(out, folders_of_inputs(data, options))
    bundle = packaged_bundle(BUNDLE)
    values = _values(cohort, with_input_of(cohort, options))  # the same with and without the unlabeled images
    if not online_method(options.method).overlays:
        cohort = replace(cohort, unlabeled=())
    overlays = [bundle / "configs" / name for name in online_method(options.method).overlays]
    config = changed(overlaid(bundle / "configs" / "train.yaml", overlays), values)
    write_text(out / "configs" / "train.yaml", as_yaml(config, "The whole configuration of this run."))
    shared = {name: config[name] for name in SHARED} | {"network_def": _without_references(config)}
    inference = changed(read_config(bundle / "configs" / "inference.yaml", {}), shared)
    write_text(
        out / "configs" / "inference.yaml", as_yaml(inference, "Classifies with the weights of this run.")
    )
    for name in COPIED:
        shutil.copyfile(bundle / "configs" / name, out / "configs" / name)
    shutil.copyfile(bundle / "LICENSE", out / "LICENSE")
    write_json(out / "configs" / "metadata.json", _metadata(bundle, cohort, values))
    write_manifest(out / "images.csv", cohort)
    for name, source in {**copies(options), **(files or {})}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    write_json(out / "run.json", _record(out, cohort, options, values, data))


def _without_references(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network of a configuration as one that lacks the values of its overlay can hold it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(one) for name, one in value.items() if name != "pretrained"}
        if isinstance(value, str) and value.startswith("@") and value[1:] not in SHARED:
            return config[value[1:]]
        return value

    network: dict[str, Any] = plain(config["network_def"])
    return network


def _require_fitting(options: ClassifyOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: With what to do instead.
    """
    if options.preset not in PRESETS:
        msg = f"There is no preset '{options.preset}'. Choose one of: {', '.join(PRESETS)}."
        raise ConfigError(msg)
    if "pretrained" in options.settings:
        msg = "Found --set pretrained=...; weights are given with --pretrained."
        raise ConfigError(msg)
    if "classes" in options.settings:
        msg = "Found --set classes=...; the classes are the labels of the data, in the order of their names."
        raise ConfigError(msg, "Leave it out; the model's card says the order.")
    init = str(options.settings.get("init_weights") or "$")
    if not init.startswith(("$", "@")) and not Path(init).is_file():
        msg = f"There are no weights to start from in {init}."
        raise ConfigError(msg, "Correct --set init_weights=FILE.")
    reweighed = options.class_weights != "none" or options.logit_adjustment
    if options.method == "mixmatch" and (options.label_smoothing or reweighed):
        msg = "MixMatch mixes labels: --label-smoothing, --class-weights, --logit-adjustment have no meaning with it."
        raise ConfigError(msg, "Leave them out, or use --balanced.")
    if options.logit_adjustment and (options.balanced or options.class_weights != "none"):
        msg = "--logit-adjustment, --class-weights and --balanced each make rare classes count; found two of them."
        raise ConfigError(msg, "Choose one.")


def _values(cohort: ImageCohort, options: ClassifyOptions) -> dict[str, Any]:
    """Return what a run changes in the bundle's training configuration."""
    facts = network_facts(options.network)
    method = online_method(options.method)
    budget = image_budget(options.budget)
    steps = options.steps or budget.steps
    per_epoch = next(number for number in range(PER_EPOCH, 0, -1) if steps % number == 0)
    _require_fitting(options)
    facts.require_side(options.size or facts.input_size)
    values: dict[str, Any] = {
        "dataset_dir": "@bundle_root",
        "allow_outside": True,
        "transductive": options.transductive and bool(method.overlays),
        "output_dir": "@bundle_root",
        "classes": list(cohort.classes),
        "network_name": facts.name,
        "image_size": options.size or facts.input_size,
        "channels": options.channels,
        "interpolation": facts.interpolation,
        "fit": options.fit,
        "white": options.white,
        "preset": options.preset,
        "seed": options.seed,
        "batch_size": budget.images,
        "steps_per_epoch": per_epoch,
        "epochs": steps // per_epoch,
        "val_interval": min(max(1, PER_EPOCH // per_epoch), steps // per_epoch),  # steps may be prime
        "label_smoothing": options.label_smoothing,
        "class_weights": class_weights(cohort, options.class_weights),
        "log_prior": log_prior(cohort, options.logit_adjustment),
        "balanced": options.balanced,
        **method.values,
    }
    _warn_of_rule(options)
    if options.target_rule is not None and options.method == "ssldec":
        values["target_rule"] = options.target_rule
    if options.pretrained is not None:
        values["pretrained"] = options.pretrained
    if options.device != "auto":
        values["device"] = f"$torch.device('{choose_device(options.device)}')"
    return values | dict(options.settings) | expressions(options)


def _warn_of_rule(options: ClassifyOptions) -> None:
    """Say what SSLDEC's rules make of classes of different size."""
    if options.method == "ssldec" and options.target_rule == "dec":
        logger.warning(
            "The target rule 'dec' takes images from larger classes and gives them to smaller ones, more in every "
            "round; where classes differ in size use 'prior', which does not."
        )
    if options.method != "ssldec" or (options.target_rule or "prior") != "prior":
        return
    if options.balanced:
        logger.warning(
            "With --balanced all classes are drawn alike, so the target rule 'prior' takes them for equally frequent "
            "among the unlabeled images too; where they are not, use --class-weights balanced instead."
        )
    if options.logit_adjustment or options.class_weights != "none":
        logger.warning(
            "On unlabeled images the target rule 'prior' pulls answers back to the classes' shares among the labels, "
            "against what --logit-adjustment and --class-weights do on labeled ones; --target-rule sharpen does not."
        )


def class_weights(cohort: ImageCohort, rule: str) -> list[float] | None:
    """Return a weight of the labeled loss for each class, None for equal ones.

    Args:
        cohort: Its training images are counted.
        rule: "balanced": images over classes times images of the class, so that the classes count alike in all
            and the mean weight of an image is 1; "none".

    Raises:
        ConfigError: There is no such rule.
    """
    if rule not in CLASS_WEIGHTS:
        msg = f"There is no rule of class weights '{rule}'. Choose one of: {', '.join(CLASS_WEIGHTS)}."
        raise ConfigError(msg)
    if rule == "none":
        return None
    counts = Counter(item.label for item in cohort.training)
    return [len(cohort.training) / (len(cohort.classes) * max(1, counts[name])) for name in cohort.classes]


def log_prior(cohort: ImageCohort, strength: float) -> list[float] | None:
    r"""Return what the shares of the classes add to the scores, :math:`\tau \log \pi`; None where that is nothing.

    Args:
        cohort: Its training images are counted, a class without any as one image.
        strength: :math:`\tau`.
    """
    if not strength:
        return None
    counts = Counter(item.label for item in cohort.training)
    return [strength * math.log(max(1, counts[name]) / len(cohort.training)) for name in cohort.classes]


def share_of(steps: int, trainings: int) -> int:
    """Divide the steps of a budget among trainings, each a multiple of `PER_EPOCH` where it is that long.

    Raises:
        ConfigError: There are fewer steps than trainings.
    """
    share = steps // trainings
    if share < 1:
        msg = f"{steps} steps cannot be shared by {trainings} trainings."
        raise ConfigError(msg, "Use a larger budget, or fewer rounds or teachers.")
    return share if share < PER_EPOCH else share // PER_EPOCH * PER_EPOCH


def with_input_of(cohort: ImageCohort, options: ClassifyOptions) -> ClassifyOptions:
    """Decide on all images what the user left open, once, so that all trainings of a run prepare images alike."""
    if options.decided or (options.channels and options.white):
        return options
    cohort = with_facts(cohort)
    channels = options.channels or channels_of(cohort)
    return replace(options, channels=channels, white=options.white or white_of_cohort(cohort), decided=True)


def _metadata(bundle: Path, cohort: ImageCohort, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the bundle that a run folder is."""
    metadata: dict[str, Any] = read_json(bundle / "configs" / "metadata.json")
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    image["num_channels"] = values["channels"]
    image["spatial_shape"] = [values["image_size"], values["image_size"]]
    names = {1: ["gray"], 3: list("RGB")}
    channels = names.get(values["channels"], [f"channel {c}" for c in range(values["channels"])])
    image["channel_def"] = {str(c): name for c, name in enumerate(channels)}
    pred["num_channels"] = len(cohort.classes)
    pred["channel_def"] = {str(number): name for number, name in enumerate(cohort.classes)}
    classes = ", ".join(f"{number} {name}" for number, name in enumerate(cohort.classes))
    return metadata | {
        "name": f"medssl run ({values['network_name']})",
        "data_source": f"{len(cohort.training)} labeled and {len(cohort.unlabeled)} unlabeled images",
        "label_classes": classes,
        "pred_classes": classes,
        "eval_metrics": {},
    }


def repeat_command(data: Path, out: Path, options: ClassifyOptions, *, baseline: bool = False) -> str:
    """Return the command that repeats a run, with or without the baseline beside it."""
    method = {"stored-targets": "ssldec", "soft-targets": "supervised"}.get(options.method, options.method)
    chosen = [
        ("method", method),
        ("no-baseline", not baseline and method != "supervised"),
        ("rounds", options.rounds),
        ("target-rule", options.target_rule),
        ("schedule", options.schedule if options.rounds else None),
    ]
    return command_line("classify train", [data], out, [*chosen, *shared_words(out, options)])


def shared_words(out: Path, options: ClassifyOptions) -> list[tuple[str, object]]:
    """Return the options that training and distillation have in common, as a command says them."""
    seen = {name: relative(file, out.parent) for name, file in given_weights(options).items()}
    options = with_weights(options, seen)
    return [
        ("network", options.network),
        ("budget", options.budget),
        ("steps", options.steps),
        ("seed", options.seed),
        ("size", options.size),
        ("channels", options.channels),
        ("fit", options.fit if options.fit != "crop" else None),
        ("white", options.white),
        ("preset", options.preset),
        ("labels-per-class", options.labels_per_class),
        ("hold-out", str(options.hold_out)),
        ("pretrained", options.pretrained),
        ("label-smoothing", options.label_smoothing or None),
        ("class-weights", options.class_weights if options.class_weights != "none" else None),
        ("logit-adjustment", options.logit_adjustment or None),
        ("balanced", options.balanced),
        ("unlabeled", relative(options.unlabeled, out.parent) if options.unlabeled else None),
        ("transductive", options.transductive),
        ("skip-unreadable", options.skip_unreadable),
        ("allow-outside", options.allow_outside),
        ("device", options.device if options.device != "auto" else None),
        *[("set", f"{name}={one_line(value)}") for name, value in options.settings.items()],
    ]


def _record(
    out: Path, cohort: ImageCohort, options: ClassifyOptions, values: Mapping[str, Any], data: Path
) -> dict[str, Any]:
    sections = {name: getattr(cohort, name) for name in ("training", "validation", "test", "unlabeled")}
    return {
        "command": repeat_command(data, out, options),
        "versions": versions(),
        "data": relative(data, out),
        "method": options.method,
        "network": values["network_name"],
        "pretrained": None if options.pretrained is None else Path(options.pretrained).name,
        "seed": options.seed,
        "device": options.device,
        "budget": {"steps": values["epochs"] * values["steps_per_epoch"], "images": values["batch_size"]},
        "classes": list(cohort.classes),
        "image": {"size": values["image_size"], "channels": values["channels"]},
        "images": {name: len(items) for name, items in sections.items()},
        "transductive": options.transductive,
        "data_sha256": image_hashes(cohort, out),
        "finished": False,
    }


def image_hashes(cohort: ImageCohort, start: Path) -> dict[str, str]:
    """Return the sha256 of every image that training sees, by its path as seen from a folder."""
    items = (*cohort.training, *cohort.validation, *cohort.unlabeled)
    return {relative(item.path, start): sha256_once(item.path) for item in items}


def cohort_of_run(out: Path, classes: Sequence[str]) -> ImageCohort:
    """Read the manifest of a run folder: which of its images were used for what."""
    return read_image_cohort(out / "images.csv", classes=classes, allow_outside=True)


def begun(out: Path, name: str) -> dict[str, Any]:
    """Read what a run wrote down when it began.

    Args:
        out: The run folder.
        name: ``run.json``, or ``plan.json`` where several trainings belong together.

    Raises:
        InputError: There is no run to go on with.
    """
    if not (out / name).is_file():
        msg = f"{out} holds no {name}, so there is no run to go on with."
        raise InputError(msg, "Start it without --resume.")
    found: dict[str, Any] = read_json(out / name)
    return found


def require_same_images(out: Path) -> None:
    """Compare the images of a run with those it began with.

    Raises:
        InputError: An image is gone or changed, or there is no run to go on with.
        OutputError: The run is finished.
    """
    record = begun(out, "run.json")
    if record.get("finished"):
        msg = f"The run in {out} is finished ({record.get('steps')} steps)."
        raise OutputError(msg, "Choose a new --out for another run.")
    require_unchanged(out, record)


def require_unchanged(out: Path, record: Mapping[str, Any]) -> None:
    """Compare the images of a run folder with what was written down of them when it began.

    Args:
        out: Folder with the manifest ``images.csv``.
        record: ``classes``, and in ``data_sha256`` what `image_hashes` gave; older plans have no hashes.

    Raises:
        InputError: An image is gone or changed.
    """
    kept = record.get("data_sha256")
    if kept is None:
        return
    now = image_hashes(cohort_of_run(out, record["classes"]), out)
    require_same_hashes(kept, now, f"the run in {out} began")
