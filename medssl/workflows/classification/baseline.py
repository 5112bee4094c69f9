"""Did the unlabeled images help? The supervised baseline of the same budget is trained beside every method."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medssl.errors import DatalistError, OutputError
from medssl.evaluation.classification_verdict import ClassificationVerdict, verdict
from medssl.io.files import read_json, require_new_run, write_json
from medssl.io.image_cohort import ImageCohort, write_manifest
from medssl.io.subjects import TRANSDUCTIVE
from medssl.reporting.model_card import Origin
from medssl.workflows.classification.budgets import image_budget
from medssl.workflows.classification.calibrate import calibrate
from medssl.workflows.classification.candidates import Say
from medssl.workflows.classification.given_weights import FOLDER, GIVEN, keep, kept_places, with_weights
from medssl.workflows.classification.methods import online_method
from medssl.workflows.classification.model_card import license_warning, started_from, write_model_card
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items
from medssl.workflows.classification.rounds import require_rounds, train_method
from medssl.workflows.classification.train import (
    ClassifyOptions,
    begun,
    cohort_of_run,
    folders_of_inputs,
    image_hashes,
    prepare_classifier,
    repeat_command,
    require_unchanged,
    require_used_options,
    usable_cohort,
    with_input_of,
)
from medssl.workflows.devices import choose_device
from medssl.workflows.provenance import moved_hashes, relative
from medssl.workflows.running import CANDIDATES, Training, only_trainer, promote_parts, require_parts
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)

SUPERVISED = "supervised"

PROMOTED = ("configs", "models", "events", "metrics.tsv", "LICENSE")
"""What is copied from the better run to the top of the run folder."""


@dataclass(frozen=True)
class Compared:
    """What a training with its baseline did.

    Args:
        training: The run that is returned.
        verdict: Whether the unlabeled images helped.
    """

    training: Training
    verdict: ClassificationVerdict


def train_with_baseline(
    data: Path,
    out: Path,
    options: ClassifyOptions,
    watcher: Watcher | None = None,
    *,
    resume: bool = False,
    say: Say = logger.info,
) -> Compared:
    """Train a method and the supervised baseline of equal steps, images and augmentation; return the better one.

    Both are compared on the validation images, on which both chose their best step too; test images are not
    looked at. Without validation images nothing can be told, and the method's network is returned, unless it was
    trained in rounds or lost a class.

    Args:
        data: As in `train_classifier`.
        out: The run folder. It becomes a copy of the better run; both lie under ``candidates``.
        options: Of the semi-supervised run.
        watcher: Told about the progress of each training.
        resume: Go on with the run in ``out``.
        say: Told what comes next.

    Raises:
        MedsslError: As in `train_classifier`.
    """
    with only_trainer(out, folders_of_inputs(data, options)):
        return _train_with_baseline(data, out, options, watcher, resume, say)


def _train_with_baseline(
    data: Path, out: Path, options: ClassifyOptions, watcher: Watcher | None, resume: bool, say: Say
) -> Compared:
    if (out / "verdict.json").is_file():
        msg = f"The run in {out} is finished."
        raise OutputError(msg, "Choose a new --out for another run.")
    if resume:
        plan = begun(out, "plan.json")
        kept = plan["options"]
        if "student" in kept:
            msg = f"The run in {out} is a distillation."
            places = shlex.join([str(data), "--out", str(out)])
            raise OutputError(msg, f"Go on with: medssl classify distill {places} --resume")
        require_unchanged(out, plan)
        options = planned(kept, out)
    else:
        require_used_options(options)
        cohort = usable_cohort(data, options)
        options = with_input_of(cohort, options)
        _begin(out, cohort, options, data)
        options = planned(kept_options(options, out), out)
    cohort = cohort_of_run(out, read_json(out / "plan.json")["classes"])
    candidates = {SUPERVISED: _baseline(options), options.method: options}
    trainings = {
        name: train_method(out / CANDIDATES / name, cohort, chosen, data, watcher, say)
        for name, chosen in candidates.items()
    }
    device = choose_device(options.device)
    runs = [trainings[name].run for name in (SUPERVISED, options.method)]
    lost = read_json(runs[1] / "run.json").get("vanished")
    safe = (
        not options.rounds and not lost
    )  # rounds go on from what their targets say, whatever the labels taught
    found = compare_runs(options.method, cohort, *runs, device, safe=safe)
    winner = options.method if found.method_wins else SUPERVISED
    told = repeat_command(data, out, options, baseline=True)
    promote(out, trainings[winner].run, winner, found, told, device)
    say(found.sentence)
    return Compared(replace(trainings[winner], run=out), found)


def _baseline(options: ClassifyOptions) -> ClassifyOptions:
    return replace(
        options,
        method=SUPERVISED,
        rounds=0,
        target_rule=None,
        schedule=ClassifyOptions.schedule,
        settings=shared_settings(options),
    )


def has_baseline(out: Path) -> bool:
    """Tell whether a run folder belongs to several trainings, as a method and its baseline, finished or not."""
    return (out / "plan.json").is_file()


def compare_runs(
    method: str,
    cohort: ImageCohort,
    baseline: Path,
    candidate: Path,
    device: str = "cpu",
    *,
    safe: bool = True,
) -> ClassificationVerdict:
    """Compare two runs on the validation images; where there are none the method is returned if it is safe."""
    models = [load_classifier(run, device) for run in (baseline, candidate)]
    before, after = (predict_items(cohort.validation, [model]).probabilities for model in models)
    labels = numbers_of(cohort.validation, models[0].card.classes)
    return verdict(method, labels, before, after, safe=safe)


def promote(
    out: Path, source: Path, winner: str, found: ClassificationVerdict, command: str, device: str = "cpu"
) -> None:
    """Copy the better run to the top of the run folder; the verdict comes last and says that all is done."""
    promote_parts(source, out, PROMOTED)
    record: dict[str, Any] = dict(read_json(source / "run.json"))
    record["data_sha256"] = moved_hashes(record["data_sha256"], source, out)
    stamp = TRANSDUCTIVE if record.get("transductive") else {}
    said: Mapping[str, Any] = {"returned": winner, **asdict(found), **stamp}
    record["data"] = relative(source / record["data"], out)
    cohort = cohort_of_run(out, record["classes"])
    record |= {"command": command, "verdict": said}
    origin = _origin(out, record, cohort)
    whole = record | {"budget": {**record["budget"], "steps": origin.steps}}
    calibrate(out, cohort.validation, whole, device)
    write_model_card(out, record, origin, cohort.validation, sentence=found.sentence, device=device)
    write_json(out / "run.json", record)
    write_json(out / "verdict.json", said)


def _origin(out: Path, record: Mapping[str, Any], cohort: ImageCohort) -> Origin:
    """Return what all trainings of a run together were made with; the record is that of one of them."""
    kept = read_json(out / "plan.json")["options"]
    asked = kept.get("student", kept)
    given = {"pretrained": asked["pretrained"], **asked["settings"]}
    return Origin(
        steps=record.get("steps_of_rounds") or _steps(asked),  # fewer where rounds ended early
        seed=asked["seed"],
        started_from=started_from(record["network"], given),
        warning=license_warning(record["network"], given),
        taught=max(0, record["images"]["training"] - len(cohort.training)),
    )


def steps_of_distillation(out: Path) -> int | None:
    """Return the steps that teachers, rounds and student of a run folder share; None if it is no distillation."""
    if not has_baseline(out):
        return None
    student = read_json(out / "plan.json")["options"].get("student")
    return None if student is None else _steps(student)


def _steps(asked: Mapping[str, Any]) -> int:
    return asked["steps"] or image_budget(asked["budget"]).steps


def shared_settings(options: ClassifyOptions) -> dict[str, Any]:
    """Return the settings that a supervised configuration has too; those of the overlay are left out."""
    return {
        name: value
        for name, value in options.settings.items()
        if name.partition("#")[0] not in METHOD_SETTINGS and not name.startswith(METHOD_PARTS)
    }


METHOD_SETTINGS = frozenset(
    {
        *(
            "unlabeled_weight",
            "unlabeled_share",
            "unlabeled_start",
            "threshold",
            "threshold_rule",
            "rule_options",
            "alignment",
        ),
        *("target_rule", "features", "alpha", "views", "temperature", "teacher_weight", "loss", "alternate"),
        *("network_def", "card"),
    }
)
"""Values of the overlays, which a supervised configuration does not have; those under them too."""

METHOD_PARTS = (
    *("train#unlabeled", "train#dataset#targets", "train#sampler#mixture", "train#dataloader#views"),
    *("train#dataloader#labeled_strong", "train#center_start", "train#best_model#begin"),
)
"""Where the overlays change the training itself."""


def kept_options(options: ClassifyOptions, out: Path) -> dict[str, Any]:
    """Return options as a plan keeps them: plain values, folder and weights as seen from the run."""
    unlabeled = relative(options.unlabeled, out) if options.unlabeled else None
    options = with_weights(options, kept_places(options))
    return vars(options) | {"unlabeled": unlabeled, "settings": dict(options.settings)}


def write_plan(out: Path, cohort: ImageCohort, kept: Mapping[str, Any]) -> None:
    """Write which images are used for what, what they hold, and the options: from these a run is resumed.

    Args:
        out: The run folder.
        cohort: Its images.
        kept: The options as `kept_options` gives them.
    """
    write_manifest(out / "images.csv", cohort)
    hashes = image_hashes(cohort, out)
    write_json(out / "plan.json", {"classes": list(cohort.classes), "options": kept, "data_sha256": hashes})


def planned(kept: Mapping[str, Any], out: Path) -> ClassifyOptions:
    """Return the options that a plan keeps."""
    unlabeled = out / str(kept["unlabeled"]) if kept["unlabeled"] else None
    options = ClassifyOptions(**{**kept, "unlabeled": unlabeled})
    asked = {"pretrained": options.pretrained, **options.settings}
    own = [name for name in GIVEN if str(asked.get(name)).startswith(f"{FOLDER}/{name}/")]
    return with_weights(options, {name: str(out / asked[name]) for name in own})


def _begin(out: Path, cohort: ImageCohort, options: ClassifyOptions, data: Path) -> None:
    """Write the plan from which the run is resumed: options, and which images are used for what."""
    online_method(options.method)
    require_new_run(out, folders_of_inputs(data, options))
    if not cohort.unlabeled:
        msg = f"{data.name} holds no unlabeled image, so there is nothing to compare with labeled-only."
        raise DatalistError(msg, "Put images into unlabelled/, or use --method supervised.")
    if options.rounds:
        require_rounds(options, cohort)
    with TemporaryDirectory() as scratch:  # nothing that can be known now shall turn up after hours
        for number, own in enumerate((replace(options, rounds=0), _baseline(options))):
            prepare_classifier(Path(scratch) / str(number), cohort, own, data)
            require_parts(Path(scratch) / str(number), ("loss", "train#sampler", "network_def", "optimizer"))
    keep(options, out)
    write_plan(out, cohort, kept_options(options, out))
