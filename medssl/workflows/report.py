"""The report on a cohort: what a run, its label maps and their scores say, gathered into one page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import medssl
from medssl.errors import InputError, OutputError
from medssl.evaluation.metrics import LabelSummary, Summary, summarize
from medssl.geometry import Grid
from medssl.io.bids import find_labels
from medssl.io.cohort import read_cohort
from medssl.io.files import read_json, read_tsv, write_text
from medssl.io.nifti import Volume, read_labels, read_volume
from medssl.io.subjects import SECTIONS, Cohort, Subject
from medssl.labels import LabelTable
from medssl.reporting.figures import (
    CONVENTION,
    SMOOTHED_FROM,
    figure_to_png,
    plot_dice,
    plot_label_maps,
    plot_learning_curve,
    plot_subject,
    plot_volumes,
)
from medssl.reporting.report import (
    Block,
    Commands,
    Facts,
    Picture,
    Report,
    Section,
    Steps,
    Table,
    Text,
    Tile,
    render_report,
)
from medssl.workflows.evaluate import read_scores
from medssl.workflows.provenance import other_baseline, versions
from medssl.workflows.target_example import TargetExample, on_grid, read_target_example

logger = logging.getLogger(__name__)

FILE_NAME = "report.html"

MAX_PICTURES = 6
MAX_VOLUME_ROWS = 24
MAX_LABEL_TILES = 4

_WERE = ("was", "were")

Row = Mapping[str, object]


@dataclass(frozen=True)
class _Split:
    """How scores of a group of scans are to be read.

    Args:
        title: Above its table.
        scan: One of them, in a sentence.
        remark: What its scores are worth.
    """

    title: str
    scan: str
    remark: str

    def counted(self, n: int) -> str:
        return _count(n, self.scan)


_SPLITS = {
    "test": _Split(
        "Held-out test scans",
        "held-out test scan",
        "Training saw neither these scans nor their labels: what to expect of new scans like them.",
    ),
    "validation": _Split(
        "Validation scans",
        "validation scan",
        "Their labels chose the checkpoint, so these scores lean high.",
    ),
    "other": _Split(
        "Other scans",
        "other scan",
        "The run did not use these scans.",
    ),
    "unlabeled": _Split(
        "Unlabeled scans",
        "unlabeled scan",
        "Their labels were kept from training.",
    ),
    "training": _Split(
        "Training scans",
        "training scan",
        "The network learned from these very labels: no evidence for new scans.",
    ),
    "scored": _Split(
        "All scored scans",
        "scan",
        "Without a training run, this report cannot tell which of them the model had seen.",
    ),
}
"""The groups a score can belong to, the most telling first."""

_UNLABELED_REMARKS = {
    True: "Labeled-only training used them in no way.",
    False: "Training saw these images, but not their labels (transductive).",
}


@dataclass(frozen=True)
class _Material:
    """All that was found in the folders; what is missing is empty."""

    cohort: Cohort
    run: Mapping[str, Any]
    metrics: Sequence[Row]
    segmented: Mapping[str, Any]
    maps: Mapping[str, list[Path]]
    volumes: Sequence[Row]
    scores: Sequence[Row]
    references: Mapping[str, list[Path]]
    example: TargetExample | None = None

    @property
    def table(self) -> LabelTable:
        return self.cohort.table

    @property
    def subjects(self) -> dict[str, Subject]:
        return {subject.key: subject for subject in self.cohort.all()}

    def split_of(self, key: str) -> str:
        """Return the key of `_SPLITS` that a subject belongs to."""
        if not self.run:
            return "scored"
        for name, keys in self.run.get("subjects", {}).items():
            if key in keys and name in _SPLITS:
                return str(name)
        placed = {subject.key: name for name, subject in self.cohort.placed()}
        return placed[key] if placed.get(key) in ("test", "unlabeled") else "other"

    def scores_by_split(self) -> dict[str, list[Row]]:
        """Return the rows of each group that has any, the most telling first."""
        found: dict[str, list[Row]] = {name: [] for name in _SPLITS}
        for row in self.scores:
            found[self.split_of(str(row["subject"]))].append(row)
        return {name: rows for name, rows in found.items() if rows}


def write_report(
    out: Path,
    *,
    cohort: Cohort | Path,
    run: Path | None = None,
    segmentation: Path | None = None,
    evaluation: Path | None = None,
    commands: Sequence[str] = (),
    title: str = "medssl report",
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML page about a cohort.

    Args:
        out: The page (``*.html``), or a folder that gets a ``report.html``.
        cohort: The scans, with the split and the label table; or their folder or datalist.
        run: Run folder of the training; without it the learning curve and the split's meaning are left out.
        segmentation: Folder with label maps; without it pictures and volumes are left out.
        evaluation: Table of scores; without it Dice is left out.
        commands: What was typed, in its order; empty for the commands the folders recorded.
        title: Of the page.
        overwrite: Replace a page that is there.

    Returns:
        The page.

    Raises:
        InputError: A folder or table that was named is missing or not what it should be.
        OutputError: The page exists, or cannot be written.
    """
    page = out if out.suffix == ".html" else out / FILE_NAME
    if page.exists() and not overwrite:
        msg = f"{page} exists already."
        raise OutputError(msg, "Choose another name, or replace it with --overwrite.")
    material = _gather(cohort, run, segmentation, evaluation)
    write_text(page, render_report(_compose(material, commands, title)))
    return page


def _gather(
    cohort: Cohort | Path, run: Path | None, segmentation: Path | None, evaluation: Path | None
) -> _Material:
    """Read the records of all folders."""
    for folder in (run, segmentation):
        if folder is not None and not folder.is_dir():
            msg = f"There is no folder {folder} to report on."
            raise InputError(msg, "Correct the path, or leave it out.")
    volumes = None if segmentation is None else segmentation / "volumes.tsv"
    metrics = None if run is None else run / "metrics.tsv"
    record = {} if run is None else read_json(run / "run.json")
    known = cohort if isinstance(cohort, Cohort) else read_cohort(cohort, record.get("contrasts"))
    return _Material(
        cohort=known,
        run=record,
        metrics=_rows(metrics),
        segmented=_record(segmentation),
        maps={} if segmentation is None else find_labels(segmentation),
        volumes=sorted(_rows(volumes), key=lambda row: str(row["subject"])),
        scores=[] if evaluation is None else read_scores(evaluation),
        references={} if evaluation is None else _truths(known.root, segmentation),
        example=None if run is None else read_target_example(run),
    )


def _truths(root: Path, segmentation: Path | None) -> dict[str, list[Path]]:
    """Find the label images of a cohort that are not results."""
    found = find_labels(root)
    if segmentation is None:
        return found
    results = segmentation.resolve()
    return {
        key: [path for path in paths if not path.resolve().is_relative_to(results)]
        for key, paths in found.items()
    }


def _record(folder: Path | None) -> Mapping[str, Any]:
    if folder is None or not (folder / "run.json").is_file():
        return {}
    return dict(read_json(folder / "run.json"))


def _rows(path: Path | None) -> Sequence[Row]:
    return [] if path is None or not path.is_file() else read_tsv(path)


def _compose(material: _Material, commands: Sequence[str], title: str) -> Report:
    """Put the page together; sections without content drop out."""
    recorded = [record["command"] for record in (material.run, material.segmented) if "command" in record]
    typed = tuple(commands) or tuple(recorded)
    return Report(
        title=title,
        headline=_headline(material),
        explanation=_explanation(material),
        tiles=_tiles(material),
        sections=(
            Section("What was done", (Steps(_what_was_done(material)),)),
            Section("Did the unlabeled scans help?", _verdict_blocks(material)),
            Section("What an unlabeled scan was told", _target_blocks(material)),
            Section(_per_label(material.table), _dice_blocks(material)),
            Section("Scans", _pictures(material)),
            Section("Volumes", _volume_blocks(material)),
            Section("Learning curve", _curve_blocks(material)),
            Section("Commands", (Commands(typed),) if typed else ()),
            Section("Provenance", _provenance(material)),
        ),
        footer=f"Written by medssl {medssl.__version__}.",
    )


# ---------------------------------------------------------------------------------------- the first lines


def _headline(material: _Material) -> str:
    """Say the result in one sentence."""
    maps = "tissue maps" if material.table.name == "braintissues" else "label maps"
    groups = material.scores_by_split()
    if groups:
        name, rows = next(iter(groups.items()))
        summary = summarize(rows)
        scans = _SPLITS[name].counted(summary.n_subjects)
        mean = _text(summary.mean_dice, 2)
        return f"On {scans}, the {maps} overlap the reference with a mean Dice of {mean}."
    if material.maps:
        return (
            f"{_count(len(material.maps), 'scan', _WERE)} segmented; nothing was given to score them against."
        )
    if material.run:
        n = len(material.run.get("subjects", {}).get("training", ()))
        return f"A network was trained on {_count(n, 'labeled scan')}; nothing is segmented yet."
    return f"A cohort of {_count(len(material.cohort.all()), 'scan')}; nothing is trained or segmented yet."


def _explanation(material: _Material) -> str:
    """Say how the headline is to be read."""
    groups = material.scores_by_split()
    if not groups:
        return ""
    name = next(iter(groups))
    meaning = "Dice is 1 where two maps agree in every voxel and 0 where they share none."
    return f"{meaning} {_remark(name, material)}"


def _tiles(material: _Material) -> list[Tile]:
    """Choose the numbers that stand first."""
    tiles = []
    groups = material.scores_by_split()
    if groups:
        summary = summarize(next(iter(groups.values())))
        tiles.append(Tile(_text(summary.mean_dice, 2), "mean Dice"))
        if len(summary.labels) <= MAX_LABEL_TILES:
            tiles += [_label_tile(label, material.table) for label in summary.labels]
    training = material.run.get("subjects", {}).get("training", ())
    if training:
        tiles.append(_count_tile(len(training), "labeled scan", "in training"))
    if material.maps:
        tiles.append(_count_tile(len(material.maps), "scan", "segmented"))
    return tiles


def _count_tile(n: int, what: str, after: str) -> Tile:
    return Tile(str(n), f"{what}{'' if n == 1 else 's'} {after}")


def _label_tile(label: LabelSummary, table: LabelTable) -> Tile:
    name, color = _name_and_color(label.label, table)
    return Tile(_text(label.mean["dice"], 2), name, color)


# --------------------------------------------------------------------------------------------- sections


def _what_was_done(material: _Material) -> tuple[str, ...]:
    """Tell the steps, one or two sentences each."""
    cohort = material.cohort
    parts = [f"{len(cohort.section(name))} {name}" for name in SECTIONS if cohort.section(name)]
    scans = _count(len(cohort.all()), "scan")
    steps = [f"The cohort has {scans} with {' and '.join(cohort.contrasts)}: {', '.join(parts)}."]
    if material.run:
        steps.append(_training_sentence(material.run))
    if material.maps:
        steps.append(_segmentation_sentence(material))
    if material.scores:
        n = len({row["subject"] for row in material.scores})
        steps.append(
            f"The label maps of {_count(n, 'scan')} were compared with references, "
            f"with distances in mm from the true voxel size."
        )
    return tuple(steps)


def _training_sentence(run: Mapping[str, Any]) -> str:
    subjects, budget = run.get("subjects", {}), run.get("budget", {})
    training, validation = subjects.get("training", ()), subjects.get("validation", ())
    method = str(run.get("method", "unknown"))
    method = "supervised (labeled scans only)" if method == "supervised" else method
    text = f"The network {run.get('network', '')} was trained on {_count(len(training), 'labeled scan')}"
    text += f", method {method}"
    if budget:
        text += f": {run.get('steps', budget['steps'])} steps of {budget['crops']} crops"
        text += f" of {budget['crop_size']}³ voxels"
    text += f", seed {run['seed']}." if "seed" in run else "."
    if "seconds" in run:
        text += f" This took {_duration(float(run['seconds']))}."
    if validation:
        text += f" {_count(len(validation), 'validation scan')} chose the checkpoint."
    return text


def _segmentation_sentence(material: _Material) -> str:
    record = material.segmented
    text = f"{_count(len(material.maps), 'scan', _WERE)} segmented on their own voxel grid"
    text += f" in {_duration(float(record['seconds']))}" if "seconds" in record else ""
    text += f" with {record['model']}." if record.get("model") else "."
    if record.get("trained_on"):
        text += f" The model: {record['trained_on']}."
    if record.get("failed"):
        text += f" {len(record['failed'])} failed: {', '.join(sorted(record['failed']))}."
    return text


def _verdict_blocks(material: _Material) -> tuple[Block, ...]:
    """Say what the comparison with the labeled-only network showed, and where scans were in two groups."""
    blocks: list[Block] = []
    said = material.run.get("verdict")
    if said:
        blocks.append(Text(str(said["sentence"])))
        rows = [
            (scan, _text(dice["labeled-only"], 3), _text(dice["semi-supervised"], 3), _points(dice))
            for scan, dice in said["dice"].items()
        ]
        if rows:
            same = {None: "budget", 0: "steps"}.get(
                said.get("patience"), "patience"
            )  # None: an earlier version
            note = f"Mean Dice over the labels. Both networks had the same {same}, crops and augmentation."
            columns = ("held-out scan", "labeled-only", "with unlabeled scans", "difference, points")
            blocks.append(Table(columns, tuple(rows), note=note))
        if other := other_baseline(material.run):
            blocks.append(Text(other))
    blocks += _factor_blocks(material.run.get("anatomy_at_inference"))
    if material.run.get("transductive"):
        n = len(material.run["transductive"])
        blocks.append(
            Text(
                f"Transductive: training saw {_count(n, 'scan')} without labels that other lists hold too. "
                f"Scores on them do not tell what to expect of new scans."
            )
        )
    return tuple(blocks)


def _factor_blocks(factor: Mapping[str, Any] | None) -> tuple[Block, ...]:
    """Say what registered labels are worth at inference."""
    if not factor:
        return ()
    rows = tuple(
        (scan, _text(dice["without"], 3), _text(dice["with"], 3)) for scan, dice in factor["dice"].items()
    )
    columns = ("held-out scan", "network alone", "with registered labels")
    note = f"Mean Dice over the labels, by the network '{factor['network']}' and its labeled scans."
    return Text(str(factor["sentence"])), *([Table(columns, rows, note=note)] if rows else [])


def _target_blocks(material: _Material) -> tuple[Block, ...]:
    """Show what registered labels weigh, and teacher, atlas, target and truth of one unlabeled scan."""
    return (*_weight_blocks(material.run.get("anatomy_weight")), *_example_blocks(material))


def _weight_blocks(weighed: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not weighed:
        return ()
    rows = tuple(
        (_weight(one["weight"]), _text(one["log_likelihood"], 4), _text(one["dice"], 3))
        for one in weighed["candidates"]
    )
    held_out = ", ".join(weighed["held_out"])
    note = (
        f"Targets that the labeled-only network and the registered labels of the others would give to {held_out}, "
        f"which it did not see, by the target rule '{weighed['target_rule']}'. w = 0 is no prior."
    )
    columns = ("weight w of registered labels", "log likelihood of the truth", "mean Dice")
    if not rows:
        return (Text(str(weighed["sentence"])),)
    return Text(str(weighed["sentence"])), Table(columns, rows, note=note)


def _weight(weight: float | Sequence[float]) -> str:
    return f"{weight:g}" if isinstance(weight, float | int) else ", ".join(f"{one:g}" for one in weight)


def _example_blocks(material: _Material) -> tuple[Block, ...]:
    example = material.example
    subject = None if example is None else material.subjects.get(example.subject)
    if example is None or subject is None:
        return ()
    maps: dict[str, Any] = dict(example.maps)
    try:
        image, truth = read_volume(subject.images[0], subject.key), _reference(material, subject)
    except InputError as error:
        logger.warning("No picture of the targets of %s: %s", subject.key, error)
        return ()
    if truth is not None:
        maps["truth"] = on_grid(truth, example.grid)
    contrast = material.cohort.contrasts[0]
    shown = on_grid(image, example.grid)
    figure = plot_label_maps(shown, maps, example.grid, material.table, contrast=contrast)
    caption = (
        "At the end of training, in the network's space. Teacher: the averaged network; with rounds, the network at "
        "the start of the last one. Registered labels: those of the labeled scans, laid over this one. Target: both "
        "together, which the network is pulled to; a hard target that is unsure is left empty."
    )
    known = " The truth was kept from training." if truth is not None else ""
    alt = f"Three views of {example.subject}: {contrast}, {', '.join(maps)}"
    return (Picture(figure_to_png(figure), alt, example.subject, caption + known),)


def _points(dice: Mapping[str, float | None]) -> str:
    before, after = dice["labeled-only"], dice["semi-supervised"]
    return "n/a" if before is None or after is None else f"{100 * (after - before):+.1f}"


def _dice_blocks(material: _Material) -> tuple[Block, ...]:
    """One table a group of scans, and the scans of the first group as dots."""
    blocks: list[Block] = []
    for number, (name, rows) in enumerate(material.scores_by_split().items()):
        summary = summarize(rows)
        blocks.append(_dice_table(summary, _SPLITS[name], _remark(name, material), material.table))
        if number == 0 and summary.n_subjects > 1:
            png = figure_to_png(plot_dice(rows, material.table))
            caption = (
                f"Each dot is one scan, the bar is the median; {_SPLITS[name].counted(summary.n_subjects)}."
            )
            blocks.append(Picture(png, "Dice of every scan, one strip per label", caption=caption, plot=True))
    if blocks:
        text = (
            "Distances between surfaces: hd95 is the larger of the two directed 95th percentiles, assd the "
            "mean of both directions. Labels in neither image are left out; a label in one image only has "
            "Dice 0 and no distance."
        )
        blocks.append(Text(text, quiet=True))
    return tuple(blocks)


def _dice_table(summary: Summary, split: _Split, remark: str, table: LabelTable) -> Table:
    rows, colors, counts = [], [], []
    for label in summary.labels:
        name, color = _name_and_color(label.label, table)
        numbers = (label.mean["dice"], label.sd["dice"])
        distances = (label.mean["hd95_mm"], label.mean["assd_mm"])
        rows.append((name, *(_text(x, 3) for x in numbers), str(label.n), *(_text(x, 2) for x in distances)))
        colors.append(color)
        counts += _irregular(label)
    means = f"Mean over labels: Dice {_text(summary.mean_dice, 3)}. {remark}"
    return Table(
        columns=("label", "Dice, mean", "sd", "n", "hd95, mm", "assd, mm"),
        rows=tuple(rows),
        title=f"{split.title} (n = {summary.n_subjects})",
        note=" ".join([means, *counts]),
        colors=tuple(colors),
    )


def _irregular(label: LabelSummary) -> list[str]:
    """Name the scans without an ordinary score."""
    counts = (
        (label.n_excluded, "in neither image"),
        (label.n_missed, "only in the reference"),
        (label.n_invented, "only in the result"),
    )
    return [f"{label.label} is {what} in {_count(n, 'scan')}." for n, what in counts if n]


def _pictures(material: _Material) -> tuple[Block, ...]:
    """Draw the best, the median and the worst scored scan, then others."""
    ages = _ages(material.cohort)
    blocks: list[Block] = []
    for key, why in _choose(material):
        age = ages.get(key.split("_")[0])
        title = key + (f", {age:g} months" if age is not None else "") + (f": {why}" if why else "")
        try:
            png = _draw(material, material.subjects[key])
        except InputError as error:
            logger.warning("No picture of %s: %s", key, error)
            continue
        alt = f"Three views of {key}: {', '.join(material.cohort.contrasts)}, result and reference"
        blocks.append(Picture(png, alt, title))
    if blocks:
        text = (
            "Of each view, the slice with the most labeled voxels; letters name the directions, the text at the "
            f"left its place. {CONVENTION.capitalize()}. In the last column, thin lines are the "
            "result and broad ones the reference, where there is one."
        )
        blocks.insert(0, Text(text, quiet=True))
    hidden = sum(key in material.subjects for key in material.maps) - sum(
        isinstance(block, Picture) for block in blocks
    )
    if blocks and hidden > 0:
        text = f"{_count(hidden, 'more scan')} segmented; their pictures are in figures/ beside the maps."
        blocks.append(Text(text, quiet=True))
    return tuple(blocks)


def _choose(material: _Material) -> list[tuple[str, str]]:
    """Return the scans to draw, each with the reason."""
    drawable = [key for key in sorted(material.maps) if key in material.subjects]
    reasons: dict[str, str] = {}
    for name, rows in material.scores_by_split().items():
        split = _SPLITS[name]
        dice = {key: mean for key, mean in _mean_dice(rows).items() if key in drawable and not isnan(mean)}
        ranked = sorted(dice, key=lambda key, dice=dice: (-dice[key], key))  # type: ignore[misc]
        ranks = {} if reasons else _ranks(ranked)
        for key in (*ranks, *ranked):
            what = f"{ranks[key]} of {split.counted(len(ranked))}" if key in ranks else split.scan
            reasons.setdefault(key, f"{what}, mean Dice {dice[key]:.2f}")
    for key in drawable:
        reasons.setdefault(key, _SPLITS[material.split_of(key)].scan if material.run else "")
    return list(reasons.items())[:MAX_PICTURES]


def _ranks(ranked: Sequence[str]) -> dict[str, str]:
    """Name the ends and the middle of a ranking of three or more."""
    if len(ranked) < 3:
        return {}
    return {ranked[0]: "best", ranked[(len(ranked) - 1) // 2]: "median", ranked[-1]: "worst"}


def _mean_dice(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean Dice over labels of each subject."""
    keys = dict.fromkeys(str(row["subject"]) for row in rows)
    return {key: summarize([row for row in rows if row["subject"] == key]).mean_dice for key in keys}


def _draw(material: _Material, subject: Subject) -> bytes:
    """Draw one subject.

    Raises:
        InputError: A file is unusable, or the result is not on the scan's grid.
    """
    volumes = [read_volume(path, subject.key) for path in subject.images]
    grid = volumes[0].grid
    result = read_labels(min(material.maps[subject.key]), subject.key, material.table)
    reference = _reference(material, subject)
    images = {
        name: volume.data
        for name, volume in zip(material.cohort.contrasts, volumes, strict=True)
        if _on_grid(volume, grid)
    }
    truth = reference.data if reference is not None and _on_grid(reference, grid) else None
    return figure_to_png(plot_subject(images, result.data, truth, grid, material.table, title=""))


def _reference(material: _Material, subject: Subject) -> Volume | None:
    """Read the reference of a subject: its label, or the one image it was scored against."""
    if subject.label is not None:
        return read_labels(subject.label, subject.key, material.table, subject.encoding)
    found = material.references.get(subject.key, [])
    return read_labels(found[0], subject.key, material.table) if len(found) == 1 else None


def _on_grid(volume: Volume, grid: Grid) -> bool:
    return grid.difference(volume.grid) is None


def _ages(cohort: Cohort) -> dict[str, float]:
    """Read ages in months from ``participants.tsv``, where it has them."""
    rows = _rows(cohort.root / "participants.tsv")
    known = [row for row in rows if "participant_id" in row and _is_number(row.get("age_months"))]
    return {str(row["participant_id"]): float(str(row["age_months"])) for row in known}


def _is_number(value: object) -> bool:
    return str(value).replace(".", "", 1).isdigit()


def _volume_blocks(material: _Material) -> tuple[Block, ...]:
    """Draw and list the volumes."""
    if not material.volumes:
        return ()
    labels = [f"{label.abbreviation}_ml" for label in material.table.foreground]
    known = [name for name in labels if name in material.volumes[0]]
    shown = material.volumes[:MAX_VOLUME_ROWS]
    rows = tuple((str(row["subject"]), *(_milliliters(row[name]) for name in known)) for row in shown)
    hidden = len(material.volumes) - len(shown)
    note = f"{hidden} more in volumes.tsv, beside the label maps." if hidden else ""
    heads = tuple(f"{name.removesuffix('_ml')}, ml" for name in known)
    png = figure_to_png(plot_volumes(material.volumes, material.table))
    scans = _count(len(material.volumes), "segmented scan")
    caption = f"Each dot is one scan, the bar is the median; {scans}."
    return (
        Picture(png, "Volume of every label in every scan", caption=caption, plot=True),
        Table(("scan", *heads), rows, note=note),
    )


def _curve_blocks(material: _Material) -> tuple[Block, ...]:
    """Draw loss and validation Dice over the steps."""
    if len(material.metrics) < 2:
        return ()
    png = figure_to_png(plot_learning_curve(material.metrics, material.table))
    seed = material.run.get("seed")
    caption = "One run" + (f", seed {seed}" if seed is not None else "")
    caption += "."
    if len(material.metrics) >= SMOOTHED_FROM:
        caption += " Thin line: as measured; thick line: running mean over a twentieth of the run."
    n = len(material.run.get("subjects", {}).get("validation", ()))
    if n:
        caption += f" Dice on {_count(n, 'validation scan')}."
    return (Picture(png, "Training loss and validation Dice over the steps", caption=caption, plot=True),)


def _provenance(material: _Material) -> tuple[Block, ...]:
    """List versions, weights, labels and who was in which group."""
    recorded = material.run.get("versions") or material.segmented.get("versions") or versions()
    facts = [(name, str(value)) for name, value in recorded.items()]
    if material.segmented.get("weights_sha256"):
        facts.append(("weights, SHA-256", str(material.segmented["weights_sha256"])))
    if material.run.get("data_sha256"):
        facts.append(
            ("data", f"{len(material.run['data_sha256'])} files, SHA-256 of each in the run's run.json")
        )
    facts.append(("labels", f"{material.table.name}: {material.table.describe()}"))
    groups = [(name, material.cohort.section(name)) for name in SECTIONS if material.cohort.section(name)]
    used = material.run.get("subjects", {})
    members = [
        (name, ", ".join(used.get(name) or [subject.key for subject in subjects]))
        for name, subjects in groups
    ]
    return Facts(tuple(facts), "Versions and data"), Facts(tuple(members), "Who was in which group")


# ------------------------------------------------------------------------------------------------ words


def _remark(split: str, material: _Material) -> str:
    """Say what the scores of a group are worth."""
    if split != "unlabeled":
        return _SPLITS[split].remark
    return f"{_SPLITS[split].remark} {_UNLABELED_REMARKS[material.run.get('method') == 'supervised']}"


def _per_label(table: LabelTable) -> str:
    return "Dice per tissue" if table.name == "braintissues" else "Dice per label"


def _name_and_color(abbreviation: str, table: LabelTable) -> tuple[str, str]:
    for label in table.foreground:
        if label.abbreviation == abbreviation:
            return label.name, label.color
    msg = f"The scores have the label '{abbreviation}'; the cohort's table has only {table.describe()}."
    raise InputError(msg, "Give the cohort that was scored.")


def _count(n: int, what: str, verbs: tuple[str, str] = ("", "")) -> str:
    """Return "1 scan was" or "3 scans were"."""
    return f"{n} {what}{'' if n == 1 else 's'} {verbs[n != 1]}".rstrip()


def _text(value: float | None, digits: int) -> str:
    """Return a number; JSON has null where it was none."""
    return "n/a" if value is None or isnan(value) else f"{value:.{digits}f}"


def _milliliters(value: object) -> str:
    return f"{float(str(value)):.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"
