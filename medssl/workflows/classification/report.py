"""The report on a classifier: what a run folder, its images and its measurements have to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import ImageError
from medssl.evaluation.classification import as_text, scores
from medssl.inference.latency import this_machine
from medssl.io.files import read_json, read_tsv, write_text
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_items import ImageItem, natural_order
from medssl.io.image_leaks import check_images
from medssl.io.images import read_image
from medssl.networks.compact import network_facts
from medssl.reporting.classification import (
    MAX_THUMBNAILS,
    Arm,
    ClassificationReport,
    Networks,
    ShownImage,
    render_classification_report,
)
from medssl.workflows.classification.audit import run_audit
from medssl.workflows.classification.baseline import SUPERVISED, steps_of_distillation
from medssl.workflows.classification.bench import Bench, exported_files
from medssl.workflows.classification.calibrate import calibrated
from medssl.workflows.classification.card_facts import command_without_folders
from medssl.workflows.classification.evaluate import Evaluation, images_of_run
from medssl.workflows.classification.model_card import license_warning
from medssl.workflows.classification.models import ImageModel, open_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.thresholds import spoken
from medssl.workflows.running import CANDIDATES

MOST_LOOKED_AT = 2000
"""Unlabeled images, spread over all of them, among which the least certain ones are looked for."""


def write_report(  # noqa: PLR0913 (one argument an option)
    out: Path,
    data: Path,
    run: Path,
    result: Evaluation,
    *,
    bench: Bench | None = None,
    student: Path | None = None,
    exported: Path | None = None,
    commands: Sequence[str] = (),
    allow_outside: bool = False,
) -> Path:
    """Write ``report.html`` and return it.

    Args:
        out: Folder.
        data: The images that were scored.
        run: Run folder or file of weights of the model that was scored.
        result: Its scores.
        bench: Times of its exported files.
        student: Run folder of a distillation, whose pseudo-labels are audited; None: those of the run itself.
        exported: Folder of exported files, which are scored beside the run.
        commands: What was typed.
        allow_outside: As in `evaluate_classifier`.

    Raises:
        OutputError: The folder cannot be written to.
        InputError: ``exported`` holds no exported file.
    """
    cohort = read_image_cohort(data, allow_outside=allow_outside)
    classes = result.model.card.classes
    used = images_of_run(student or run, classes)
    cohort = replace(
        cohort,
        validation=cohort.validation or used.validation,
        unlabeled=cohort.unlabeled or used.unlabeled,
    )
    looked_at = spread(cohort.unlabeled, MOST_LOOKED_AT)
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    found = result.scores
    page = ClassificationReport(
        headline=(
            f"{as_text(100 * found.measures['accuracy'], 1)} % of {found.n} {result.section} images are right; "
            f"macro F1 {as_text(found.measures['macro_f1'])}."
        ),
        arms=_arms(run, cohort, result, record, exported),
        shown=_name(record),
        scored_on=f"{found.n} {result.section} images",
        selection=(
            "The best step, the temperature and the abstain threshold were chosen on validation images, or left as "
            "they are where there are none. Test images chose nothing."
        ),
        verdict=record.get("verdict", {}).get("sentence", ""),
        done=_done(run, record),
        warnings=[*result.warnings, *_warnings(result.model, record)],
        counts=[(name, int(number)) for name, number in record.get("images", {}).items()],
        operating=_operating(result),
        audit=run_audit(student or run, replace(cohort, training=used.training or cohort.training), classes),
        threshold=_threshold(student or run),
        least_certain=_least_certain(looked_at, result.model),
        looked_at=(len(looked_at), len(cohort.unlabeled)),
        networks=_networks(bench),
        commands=commands
        or [command_without_folders(command) for command in [record.get("command")] if command],
        facts=_facts(result.model, record),
        footer="Written by medssl. For research, not for diagnosis.",
    )
    write_text(out / "report.html", render_classification_report(page))
    return out / "report.html"


def _name(record: Mapping[str, Any]) -> str:
    """Return what the page calls the network that was scored."""
    method = str(record.get("verdict", {}).get("returned", record.get("method", "model")))
    return "labeled-only" if method == SUPERVISED else method


def _arms(
    run: Path, cohort: ImageCohort, result: Evaluation, record: Mapping[str, Any], exported: Path | None
) -> list[Arm]:
    """Score every candidate of a run on the same images, labeled-only first, exported files last.

    The run that was promoted has a temperature, as its files have; the candidates get theirs here, from the same
    validation images, so that all are calibrated alike.
    """
    own = Arm(_name(record), result.scores.record(), _curve(run))
    held_out = images_of_run(run, result.model.card.classes).validation or cohort.validation
    places = {}
    for folder in sorted((run / CANDIDATES).glob("*/models")):
        name = "labeled-only" if folder.parent.name == SUPERVISED else folder.parent.name
        if name != own.name and "-round-" not in name:
            places[name] = folder.parent
    for precision, file in (exported_files(exported) if exported else {}).items():
        places[f"{own.name}, exported, {precision}"] = file
    items = cohort.section(result.section)
    others = []
    for name, place in places.items():
        model = open_classifier(place)
        if place.is_dir():
            model = calibrated(model, held_out)
        found = predict_items(items, [model], result.views).probabilities
        measured = scores(numbers_of(items, model.card.classes), found, model.card.classes).record()
        others.append(Arm(name, measured, _curve(place)))
    return sorted([own, *others], key=lambda arm: arm.name != "labeled-only")


def _curve(run: Path) -> tuple[Sequence[Mapping[str, object]], ...]:
    path = run / "metrics.tsv"
    return (read_tsv(path),) if path.is_file() else ()


def _done(run: Path, record: Mapping[str, Any]) -> list[str]:
    if not record:
        return []
    budget, images = record["budget"], record["images"]
    given = len(images_of_run(run, record["classes"]).training) or images["training"]
    labeled = f"{given} labeled images of {len(record['classes'])} classes"
    if images["training"] > given:
        labeled += f" and {images['training'] - given} that teachers labeled"
    said = [
        f"{record['network']} was trained for {budget['steps']} steps of {budget['images']} images on {labeled}."
    ]
    baseline = run / CANDIDATES / SUPERVISED / "run.json"
    if baseline.is_file():
        steps = read_json(baseline)["budget"]["steps"]
        said.append(
            f"The supervised baseline had {steps} steps of as many images, and the same augmentation; teachers, rounds "
            "and student of a distillation share that number."
        )
    elif (steps := steps_of_distillation(run)) is not None:
        said.append(
            f"Teachers, rounds and student of the distillation share {steps} steps of as many images."
        )
    return said


def _warnings(model: ImageModel, record: Mapping[str, Any]) -> list[str]:
    said = []
    if record.get("transductive"):
        said.append("Transductive: unlabeled images of the training may be among those that are scored here.")
    began = model.card.extra.get("config", {"init_weights": "unknown"})  # exported files do not say it
    if warning := license_warning(str(model.card.network["name"]), began):
        said.append(warning)
    return said


def _threshold(run: Path) -> float | None:
    """Return the threshold above which a distillation kept labels.

    None where the teachers' answers taught, where another rule or one threshold a class chose the labels, and where no
    record says it.
    """
    folder = run / "pseudo_labels"
    records = natural_order(path.name for path in folder.glob("round-*.json"))
    facts = read_json(folder / records[-1]) if records else {}
    if facts.get("targets") == "soft" or "threshold" not in facts:
        return None
    rule = KeepRule(
        threshold=facts["threshold"], top_k=facts.get("top_k"), percentile=facts.get("percentile")
    )
    name, value = rule.as_rule
    return value if name == "threshold" and not isinstance(value, Sequence) else None


def _operating(result: Evaluation) -> list[tuple[str, str]]:
    told = []
    if (point := result.abstaining) is not None:
        told += [
            ("abstain below", f"{point.threshold:.3f}"),
            ("images that get an answer", _share(point.coverage)),
            ("right among them", _share(point.accuracy)),
        ]
    if (line := result.finding) is not None:
        name = result.model.card.classes[line.positive]
        told += [
            (f"counts as {name}", spoken(line.threshold)),
            (f"{name} that is found (sensitivity)", _share(line.sensitivity)),
            ("others that are left alone (specificity)", _share(line.specificity)),
        ]
    return told


def _share(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{100 * value:.1f} %"


def spread(items: Sequence[ImageItem], most: int) -> Sequence[ImageItem]:
    """Return so many items at most, evenly spread over the list: neighbors in it are often of one patient or device."""
    some = min(most, len(items))
    return [items[place * len(items) // some] for place in range(some)]


def _least_certain(items: Sequence[ImageItem], model: ImageModel) -> list[ShownImage]:
    try:
        q = predict_items(items, [model]).probabilities
    except ImageError:  # unlabeled ones were not asked for: those that cannot be read are not shown
        bad = {
            finding.item for finding in check_images(ImageCohort(Path(), (), unlabeled=tuple(items)), "skip")
        }
        items = [item for item in items if item not in bad]
        q = predict_items(items, [model]).probabilities
    shown = []
    for place in np.argsort(q.max(1), kind="stable")[:MAX_THUMBNAILS]:
        label = model.card.classes[int(q[place].argmax())]
        image = read_image(items[place].path)
        shown.append(ShownImage(image, f"{Path(items[place].name).name}: {label} {q[place].max():.2f}"))
    return shown


def _networks(bench: Bench | None) -> Networks | None:
    if bench is None:
        return None
    some, machine = bench.candidates, this_machine()
    return Networks(
        [one.name for one in some],
        [one.macro_f1 for one in some],
        [one.p50_ms for one in some],
        [one.size_mb for one in some],
        [one.name for one in bench.best],
        bench.choice.sentence,
        machine=f"One image at a time on {machine.processor}; macro F1 on validation images.",
    )


def _facts(model: ImageModel, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    card = model.card
    facts = [
        ("network", str(card.network["name"])),
        ("input", f"{card.size} x {card.size}, {card.channels} channel{'s' * (card.channels > 1)}"),
        ("classes", ", ".join(card.classes)),
        ("temperature", f"{card.temperature:.3f}"),
        ("weights, sha256", model.weights_sha256[:16]),
        ("license of the network's weights", network_facts(str(card.network["name"])).license),
    ]
    if record:
        facts += [("seed", str(record["seed"])), *record["versions"].items()]
    return facts
