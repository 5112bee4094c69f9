"""Scores of label maps against references: which file belongs to which, and the table."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

from medssl.errors import GridError, InputError, LabelError
from medssl.evaluation.metrics import COLUMNS, MEASURES, LabelSummary, Summary, score_labels, summarize
from medssl.io.bids import find_labels
from medssl.io.cohort import find_label_table, read_cohort
from medssl.io.datalist import FILE_NAME
from medssl.io.files import read_json, read_tsv, require_new_table, write_json, write_tsv
from medssl.io.nifti import read_labels
from medssl.io.subjects import TRANSDUCTIVE, is_transductive, name_parts, only_one, plain_label, stem
from medssl.labels import BRAIN_TISSUES, LabelTable

TABLE_COLUMNS = ("subject", *COLUMNS)

SEEN = "The model may have seen the scored scans, without their labels, in training (transductive)."

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, finished subjects, all subjects)."""

_DESCRIPTIONS = {
    "subject": "Subject, with its session where it has one",
    "label": "Abbreviation of the label",
    "dice": "Dice overlap, 0 to 1; 0 where only one of the two images holds the label",
    "hd95_mm": "Larger of the two directed 95th percentiles of the surface distances",
    "hd_mm": "Largest surface distance (Hausdorff)",
    "assd_mm": "Mean over the surface distances of both directions",
    "volume_pred_ml": "Volume of the label in the prediction, where the reference is known",
    "volume_ref_ml": "Volume of the label in the reference",
}


@dataclass(frozen=True)
class _LabelFile:
    """A label image and how its values are to be read."""

    path: Path
    encoding: str = "table"


@dataclass(frozen=True)
class Evaluation:
    """What a call of `evaluate` found.

    Args:
        rows: One row a subject and label, with `TABLE_COLUMNS`.
        summary: The rows summed up over subjects.
        out: The table that was written.
        warnings: What the user should know: subjects without a partner, labels without a score.
    """

    rows: tuple[Mapping[str, object], ...]
    summary: Summary
    out: Path
    warnings: tuple[str, ...] = ()

    def summary_rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return (label, n, mean Dice, sd, mean hd95 in mm, mean assd in mm) as texts, the mean last."""
        rows = [_summary_row(label) for label in self.summary.labels]
        return [*rows, ("mean", str(self.summary.n_subjects), _text(self.summary.mean_dice, 3), "", "", "")]


@dataclass(frozen=True)
class _Side:
    """The label images of a prediction or reference, by subject, and their table where they have one."""

    place: Path
    files: Mapping[str, _LabelFile]
    table: LabelTable | None = field(default=None)


def evaluate(
    pred: Path,
    ref: Path,
    out: Path,
    table: LabelTable | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score label maps against references and write the table.

    Subjects are matched by "sub-..[_ses-..]" in the file names. A JSON file of the same name beside the
    table explains its columns and holds the means.

    Args:
        pred: Folder written by ``medssl segment``, or one label image.
        ref: Cohort, datalist, folder with ``*_dseg.nii.gz``, or one label image.
        out: Table to write, ``*.tsv``.
        table: What the values mean; None: what stands beside the references, else beside the predictions,
            else the four brain tissues.
        overwrite: Replace a table that is there.
        progress: Told about each subject.

    Raises:
        InputError: Nothing to compare, or a file cannot be read.
        DatalistError: A subject has two label images.
        GridError: Prediction and reference of a subject are not on one grid.
        LabelError: Values outside the table, or the two sides have different tables.
        OutputError: The table exists, or cannot be written.
    """
    pred, ref, out = Path(pred), Path(ref), Path(out)
    require_new_table(out, overwrite)
    references = _references(ref, pred)
    predictions = _predictions(pred, ref)
    known = table or _common_table(references, predictions)
    pairs, warnings = _pair(predictions, references)
    models = {key: _told_of_model(prediction.path) for key, prediction, _ in pairs}
    rows: list[Mapping[str, object]] = []
    for number, (key, prediction, reference) in enumerate(pairs):
        if progress is not None:
            progress(key, number, len(pairs))
        rows += _score_pair(key, prediction, reference, known, models[key])
    if progress is not None:
        progress("", len(pairs), len(pairs))
    summary = summarize(rows)
    seen = any(name in row for row in rows for name in TRANSDUCTIVE)
    stamp = {"Transductive": SEEN} if seen else {}
    taught, listed = _no_evidence(ref, models)
    for name, some, why in (
        ("TrainedOn", taught, "labels were seen in training, or chose its step"),
        ("Listed", listed, "the datalist says 'training' or 'validation'"),
    ):
        if some:
            told = f"Of {len(some)} of {len(pairs)} scored subjects ({_listed(some)}) {why}"
            stamp[name] = f"{told}: their scores are no evidence for new scans."
    write_tsv(out, rows, [*TABLE_COLUMNS, *(TRANSDUCTIVE if seen else ())])
    write_json(out.with_suffix(".json"), _sidecar(summary) | stamp)
    warnings += [*_remarks(summary), *stamp.values()]
    return Evaluation(tuple(rows), summary, out, tuple(warnings))


def _told_of_model(path: Path) -> Mapping[str, Any]:
    """Return what the file beside a map says about its model; nothing where it is somebody else's."""
    try:
        return dict(read_json(path.with_name(f"{stem(path)}.json"))["Model"])
    except (InputError, KeyError, TypeError, ValueError):
        return {}


def _no_evidence(ref: Path, models: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the subjects whose labels taught the model, as their maps say; and those that a datalist lists so.

    A map of another program, or of a model that keeps no record, says nothing.
    """
    told = {key: model.get("SeenWithLabel") for key, model in models.items()}
    datalist = ref if ref.suffix == ".json" else ref / FILE_NAME
    cohort = read_cohort(datalist) if datalist.is_file() else None
    known = {one.key for one in (*cohort.training, *cohort.validation)} if cohort else set()
    listed = [key for key, seen in told.items() if seen is None and key in known]
    return [key for key, seen in told.items() if seen], listed


def read_scores(path: Path) -> list[dict[str, object]]:
    """Read a table that `evaluate` wrote; "n/a" becomes NaN.

    Raises:
        InputError: The file is missing or lacks a column.
    """
    rows = read_tsv(path)
    missing = [name for name in TABLE_COLUMNS if rows and name not in rows[0]]
    if missing or not rows:
        found = f"lacks the columns {', '.join(missing)}" if missing else "has no rows"
        msg = f"{path} {found}; expected a table written by medssl evaluate."
        raise InputError(msg, "Give that table, or write it again.")
    numbers = (*MEASURES, "volume_pred_ml", "volume_ref_ml")
    return [{**row, **{name: _number(row[name], path) for name in numbers}} for row in rows]


def _predictions(pred: Path, ref: Path) -> _Side:
    """Find the label maps to score."""
    if pred.is_file():
        return _Side(pred, {_key_of(pred): _LabelFile(pred)}, find_label_table([pred], pred.parent))
    _require_there(pred)
    files = _label_files(pred, without=ref)
    if not files:
        msg = f"No label map (sub-*_dseg.nii.gz) was found in {pred}."
        raise InputError(msg, "Give the folder that medssl segment wrote, or one label map.")
    return _Side(pred, files, _table_beside(files, pred))


def _references(ref: Path, pred: Path) -> _Side:
    """Find the references: those of the datalist or layout, and every dseg file of a folder."""
    _require_there(ref)
    if ref.is_file() and ref.suffix != ".json":
        return _Side(ref, {_key_of(ref): _LabelFile(ref)}, find_label_table([ref], ref.parent))
    files, table = {}, None
    if ref.is_file() or (ref / FILE_NAME).is_file() or not find_labels(ref):
        cohort = read_cohort(ref)
        labeled = [subject for subject in cohort.all() if subject.label is not None]
        files = {s.key: _LabelFile(s.label, s.encoding) for s in labeled if s.label is not None}
        table = cohort.table
    if ref.is_dir():
        files |= _label_files(ref, without=pred, known=files)
        table = table or _table_beside(files, ref)
    if not files:
        msg = f"No reference label image was found in {ref}."
        raise InputError(
            msg, "Give a cohort with labels, a folder with sub-*_dseg.nii.gz, or one label image."
        )
    return _Side(ref, files, table)


def _label_files(folder: Path, without: Path, known: Container[str] = ()) -> dict[str, _LabelFile]:
    """Find the one ``*_dseg`` image of every subject below a folder.

    Args:
        folder: Where to look.
        without: A folder inside it that belongs to the other side of the comparison.
        known: Subjects whose file a datalist names.
    """
    other = without.resolve()
    inside = folder.resolve() in other.parents
    files = {}
    for key, paths in find_labels(folder).items():
        if key in known:
            continue
        own = [path for path in paths if not (inside and path.resolve().is_relative_to(other))]
        native = [p for p in own if "space" not in name_parts(p)[0]] or own
        path = only_one(native, key, "label image")
        if path is not None:
            files[key] = _LabelFile(path)
    return files


def _table_beside(files: Mapping[str, _LabelFile], root: Path) -> LabelTable | None:
    return find_label_table([file.path for file in files.values()], root)


def _common_table(references: _Side, predictions: _Side) -> LabelTable:
    """Return the table of both sides.

    Raises:
        LabelError: They give one value two names, or one side has more labels.
    """
    table = references.table or predictions.table or BRAIN_TISSUES
    other = predictions.table or table
    if _meaning(other) != _meaning(table):
        msg = (
            f"The labels mean different things: {other.describe()} in {predictions.place}, "
            f"{table.describe()} in {references.place}."
        )
        raise LabelError(msg, "Compare maps made with the same label table.")
    return table


def _meaning(table: LabelTable) -> dict[int, str]:
    return {label.value: label.name.casefold() for label in table.foreground}


def _pair(
    predictions: _Side, references: _Side
) -> tuple[list[tuple[str, _LabelFile, _LabelFile]], list[str]]:
    """Match both sides by subject; two single files belong together whatever their names.

    Raises:
        InputError: No subject is on both sides.
    """
    if predictions.place.is_file() and references.place.is_file() and references.place.suffix != ".json":
        (key, prediction), (other, reference) = *predictions.files.items(), *references.files.items()
        return [(key if key.startswith("sub-") else other, prediction, reference)], []
    common = sorted(predictions.files.keys() & references.files.keys())
    if not common:
        msg = (
            f"No subject is in both: {predictions.place} has {_listed(predictions.files)}, "
            f"{references.place} has {_listed(references.files)}."
        )
        raise InputError(msg, "Give the two files themselves, or name the files alike (sub-01[_ses-6mo]).")
    warnings = []
    for side, other, lacking in (
        (predictions, references, "no reference"),
        (references, predictions, "no prediction"),
    ):
        lone = side.files.keys() - other.files.keys()
        if lone:
            warnings.append(f"Not scored, {lacking} in {other.place}: {_listed(lone)}.")
    return [(key, predictions.files[key], references.files[key]) for key in common], warnings


def _score_pair(
    key: str, prediction: _LabelFile, reference: _LabelFile, table: LabelTable, model: Mapping[str, Any]
) -> Iterator[dict[str, object]]:
    """Read and score one subject; its map may say of its model that it was trained with ``--transductive``."""
    transductive = is_transductive(model.get("Transductive"), str(model.get("TrainedOn", "")))
    stamp = TRANSDUCTIVE if transductive else {}
    truth = read_labels(reference.path, key, table, reference.encoding)
    found = read_labels(prediction.path, key, table, prediction.encoding, allow_empty=True)
    difference = truth.grid.difference(found.grid)
    if difference is not None:
        msg = f"{key}: {prediction.path.name} is not on the grid of {reference.path.name}: {difference}."
        raise GridError(
            msg, "Segment the scan that the reference was drawn on, or resample by nearest neighbor."
        )
    for row in score_labels(found.data, truth.data, truth.grid.spacing, table):
        yield {"subject": key, **row, **stamp}


def _remarks(summary: Summary) -> list[str]:
    """Say which labels have no score, or none on one side."""
    remarks = []
    for label in summary.labels:
        for count, what in (
            (label.n_excluded, "in neither image: left out of the means"),
            (label.n_missed, "only in the reference: Dice 0, no distances"),
            (label.n_invented, "only in the prediction: Dice 0, no distances"),
        ):
            if count:
                remarks.append(f"{label.label}: in {count} of {summary.n_subjects} subjects {what}.")
    return remarks


def _sidecar(summary: Summary) -> dict[str, object]:
    """Explain the columns and keep the means."""
    columns: dict[str, object] = {
        name: {
            "Description": text,
            **({"Units": name.rsplit("_", 1)[1]} if name.endswith(("_mm", "_ml")) else {}),
        }
        for name, text in _DESCRIPTIONS.items()
    }
    labels = {label.label: vars(label) for label in summary.labels}
    return {**columns, "summary": {"mean_dice": summary.mean_dice, "n": summary.n_subjects, "labels": labels}}


def _summary_row(label: LabelSummary) -> tuple[str, str, str, str, str, str]:
    mean = label.mean
    numbers = (
        _text(mean["dice"], 3),
        _text(label.sd["dice"], 3),
        _text(mean["hd95_mm"], 2),
        _text(mean["assd_mm"], 2),
    )
    return (label.label, str(label.n), *numbers)


def _require_there(place: Path) -> None:
    if not place.exists():
        msg = f"There is no file or folder {place}."
        raise InputError(msg, "Check the spelling and the current folder.")


def _key_of(path: Path) -> str:
    """Return "sub-01_ses-6mo" of a file name, or the name itself where it says no subject."""
    entities, _ = name_parts(path)
    if "sub" not in entities:
        return stem(path)
    session = f"_ses-{plain_label(entities['ses'])}" if "ses" in entities else ""
    return f"sub-{plain_label(entities['sub'])}{session}"


def _listed(keys: Iterable[str], limit: int = 8) -> str:
    names = sorted(keys)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _number(text: str, path: Path) -> float:
    try:
        return nan if text in ("n/a", "") else float(text)
    except ValueError as error:
        msg = f"{path} holds '{text}' where a number should be."
        raise InputError(msg, "Write the table again.") from error


def _text(value: float, digits: int) -> str:
    return "n/a" if isnan(value) else f"{value:.{digits}f}"
