"""The report on a classifier: plain numbers in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.reporting.classification_figures import (
    MAX_RANKED,
    plot_class_scores,
    plot_confidences,
    plot_confusion,
    plot_critical_difference,
    plot_pareto,
    plot_reliability,
    plot_threshold,
    plot_training,
    thumbnail,
)
from medssl.reporting.figures import figure_to_png, image_to_png
from medssl.reporting.names_of_scores import SCORES
from medssl.reporting.report import (
    Block,
    Commands,
    Facts,
    Gallery,
    Picture,
    Report,
    Section,
    Steps,
    Table,
    Text,
    Tile,
    render_report,
)

MAX_THUMBNAILS = 24

CONVENTIONS = (
    "In brackets: 95 % interval over resampled images. Macro means run over the classes that have images here. A "
    "class that is never predicted has F1 0 and no precision (n/a). AUROC: one class against the rest. ECE: "
    "expected calibration error, 15 bins."
)

Record = Mapping[str, Any]
Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Arm:
    """A network that was scored.

    Args:
        name: Such as "labeled-only" or "fixmatch".
        scores: What `medssl.evaluation.classification.ClassificationScores.record` returns, also when read back
            from JSON, where null is a number that does not exist.
        training: Rows of ``metrics.tsv`` of each seed; empty to leave the arm out of the curves.
    """

    name: str
    scores: Record
    training: Sequence[Rows] = ()


@dataclass(frozen=True)
class ShownImage:
    """An image to look at.

    Args:
        image: Pixels; shrunk for the page.
        caption: Name and what the network thinks; no path.

    Shapes:
        image: ``(H, W)`` or ``(H, W, C)``
    """

    image: NDArray[np.generic]
    caption: str


@dataclass(frozen=True)
class Networks:
    """Networks to choose from.

    Args:
        names: Each with its precision.
        macro_f1: 0 to 1.
        p50_ms: Median latency of one image.
        size_mb: Of the file.
        front: Names that no other one beats in everything.
        sentence: The answer to the query, or "".
        machine: What the latency was measured on.
    """

    names: Sequence[str]
    macro_f1: Sequence[float]
    p50_ms: Sequence[float]
    size_mb: Sequence[float]
    front: Sequence[str]
    sentence: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Ranking:
    """A comparison over data sets.

    Args:
        names: By rising mean rank.
        mean_ranks: Of them.
        critical_difference: Nemenyi's.
        groups: First and last place of each run it does not tell apart.
        control: Its name, or None.
        sentence: The result.
    """

    names: Sequence[str]
    mean_ranks: Sequence[float]
    critical_difference: float
    groups: Sequence[tuple[int, int]]
    control: str | None
    sentence: str


@dataclass(frozen=True)
class ClassificationReport:
    """Everything the page says. What is missing is left out of it.

    Args:
        headline: The result in one sentence.
        arms: Labeled-only first; the last one is shown in detail unless `shown` names another.
        scored_on: Which images, such as "120 held-out test images".
        selection: What was chosen on which images, and that test images chose nothing. Always printed.
        verdict: Whether the unlabeled images helped, or "".
        shown: Name of the arm in detail; "" for the last.
        title: Of the page.
        explanation: How to read the headline.
        done: What was done, a sentence or two a step.
        warnings: What a reader must know, in sentences.
        counts: (name, number) of images in each role, for the tiles.
        operating: (name, text) of the abstain threshold and the operating point, chosen on validation.
        audit: What `medssl.evaluation.audit.PseudoLabelAudit.record` returns, or None; with ``"targets": "soft"``
            where answers were learned and no label was chosen.
        threshold: On the confidence, above which pseudo-labels were kept; None where another rule chose them.
        least_certain: Unlabeled images to look at.
        looked_at: Among how many unlabeled images they were looked for, and how many there are.
        networks: To choose from, or None.
        ranking: Over data sets, or None.
        commands: What was typed.
        facts: (name, text): versions, seeds, weights, licenses.
        footer: Last line.
    """

    headline: str
    arms: Sequence[Arm]
    scored_on: str
    selection: str
    verdict: str = ""
    shown: str = ""
    title: str = "medssl classification report"
    explanation: str = ""
    done: Sequence[str] = ()
    warnings: Sequence[str] = ()
    counts: Sequence[tuple[str, int]] = ()
    operating: Sequence[tuple[str, str]] = ()
    audit: Record | None = None
    threshold: float | None = None
    least_certain: Sequence[ShownImage] = ()
    looked_at: tuple[int, int] = (0, 0)
    networks: Networks | None = None
    ranking: Ranking | None = None
    commands: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    footer: str = ""


def render_classification_report(data: ClassificationReport) -> str:
    """Return one HTML page: styles and images inside, no script, no request, no path.

    Raises:
        ValueError: There is no arm, or none of the name `shown`.
    """
    return render_report(compose(data))


def compose(data: ClassificationReport) -> Report:
    """Put the page together; sections without content drop out.

    Raises:
        ValueError: There is no arm, or none of the name `shown`.
    """
    shown = _shown(data)
    return Report(
        title=data.title,
        headline=data.headline,
        explanation=data.explanation,
        tiles=_tiles(data, shown),
        sections=(
            Section("What was done", _done(data)),
            Section("Did the unlabeled images help?", _verdict(data)),
            Section("Classes", _classes(data, shown)),
            Section("What is confused", _confusion(data, shown)),
            Section("Is it as sure as right?", _calibration(data)),
            Section("Pseudo-labels", _pseudo_labels(data)),
            Section("Least certain images", _gallery(data)),
            Section("Training", _training(data)),
            Section("Which network?", _networks(data.networks)),
            Section("Over data sets", _ranking(data.ranking)),
            Section("Commands", (Commands(tuple(data.commands)),) if data.commands else ()),
            Section("Provenance", (Facts(tuple(data.facts)),) if data.facts else ()),
        ),
        footer=data.footer,
    )


def _shown(data: ClassificationReport) -> Arm:
    found = [arm for arm in data.arms if arm.name == data.shown] if data.shown else list(data.arms[-1:])
    if not found:
        msg = f"Found no arm '{data.shown}' among {[arm.name for arm in data.arms]}; expected one of them."
        raise ValueError(msg)
    return found[0]


def _tiles(data: ClassificationReport, shown: Arm) -> list[Tile]:
    keys = ("macro_f1", "accuracy", "auroc")
    tiles = [Tile(_text(shown.scores.get(key), 2), SCORES[key]) for key in keys]
    return tiles + [Tile(str(number), name) for name, number in data.counts]


def _done(data: ClassificationReport) -> tuple[Block, ...]:
    """Tell the steps; on which images what was chosen stands in every report."""
    blocks: list[Block] = [Steps(tuple(data.done))] if data.done else []
    blocks.append(Text(data.selection))
    return (*blocks, *(Text(f"Note: {warning}") for warning in data.warnings))


def _verdict(data: ClassificationReport) -> tuple[Block, ...]:
    """Say whether the unlabeled images helped, above all scores of all arms."""
    rows = tuple(
        (name, *(_with_interval(arm.scores, key) for arm in data.arms)) for key, name in SCORES.items()
    )
    heads = ("score", *(arm.name for arm in data.arms))
    table = Table(heads, rows, title=f"Scores on {data.scored_on}", note=CONVENTIONS)
    return (Text(data.verdict), table) if data.verdict else (table,)


def _classes(data: ClassificationReport, shown: Arm) -> tuple[Block, ...]:
    """Draw F1 of every class in all arms, and list the arm shown in detail."""
    classes = shown.scores["classes"]
    arms = {arm.name: [_number(one["f1"]) for one in arm.scores["per_class"]] for arm in data.arms}
    figure = figure_to_png(plot_class_scores(classes, arms))
    alt = f"F1 of each of {len(classes)} classes, one bar a network: {', '.join(arms)}"
    rows = tuple(
        (
            str(one["name"]),
            *(_text(one[key], 3) for key in ("precision", "recall", "f1")),
            str(one["n"]),
            str(one["n_pred"]),
        )
        for one in shown.scores["per_class"]
    )
    heads = ("class", "precision", "recall", "F1", "images", "predicted")
    return (
        Picture(figure, alt, caption=f"On {data.scored_on}.", plot=True),
        Table(heads, rows, title=f"Classes, {shown.name}"),
    )


def _confusion(data: ClassificationReport, shown: Arm) -> tuple[Block, ...]:
    """Draw the confusion of the arm shown, and of labeled-only where that is another one."""
    arms = [shown, *(arm for arm in data.arms[:1] if arm.name != shown.name)]
    blocks = []
    for arm in arms:
        png = figure_to_png(plot_confusion(arm.scores["confusion"], arm.scores["classes"]))
        alt = f"Confusion matrix of {arm.name}: true classes in rows, predicted classes in columns"
        blocks.append(Picture(png, alt, arm.name, plot=True))
    text = "Images of each true class (row) by predicted class (column); the color is the share of the row."
    return (Text(text, quiet=True), *blocks)


def _calibration(data: ClassificationReport) -> tuple[Block, ...]:
    """Draw confidence against accuracy, and say where the network stays silent."""
    arms = {
        arm.name: tuple(
            [_number(value) for value in arm.scores["reliability"][key]]
            for key in ("count", "accuracy", "confidence")
        )
        for arm in data.arms
    }
    png = figure_to_png(plot_reliability(arms))  # type: ignore[arg-type]
    caption = (
        "On the dotted line a network is as often right as it says; below it, it is too sure. The area of a dot "
        "grows with its images."
    )
    picture = Picture(png, "Share of right answers against confidence", caption=caption, plot=True)
    if not data.operating:
        return (picture,)
    return picture, Facts(tuple(data.operating), "Chosen on validation images, measured here")


def _pseudo_labels(data: ClassificationReport) -> tuple[Block, ...]:
    """Show the audit: coverage, classes, confidences, and what a threshold would keep."""
    audit = data.audit
    if audit is None:
        return ()
    coverage = _number(audit["coverage"])
    share = "" if isnan(coverage) else f" ({coverage:.0%})"
    said = f"{audit['n_kept']} of {audit['n']} unlabeled images{share} keep a pseudo-label."
    if audit.get("targets") == "soft":
        said = f"The student learned the teachers' answers for all {audit['n']} unlabeled images, not labels."
    blocks: list[Block] = [Text(said)]
    blocks += [Text(f"Note: {warning}") for warning in audit["warnings"]]
    columns = ("class", "labeled", "share", "predicted", "kept", "share")
    totals = [max(sum(audit[key]), 1) for key in ("labeled", "kept")]
    rows = tuple(
        (
            name,
            str(labeled),
            f"{labeled / totals[0]:.0%}",
            str(predicted),
            str(kept),
            f"{kept / totals[1]:.0%}",
        )
        for name, labeled, predicted, kept in zip(
            audit["classes"], audit["labeled"], audit["predicted"], audit["kept"], strict=True
        )
    )
    blocks.append(Table(columns, rows, title="Images per class"))
    png = figure_to_png(plot_confidences(audit["edges"], audit["confidence"], audit["confidence_kept"]))
    blocks.append(Picture(png, "Unlabeled images by confidence, and those kept", "Confidence", plot=True))
    return (*blocks, *_threshold(audit["curve"], data.threshold))


def _threshold(curve: Sequence[Record], threshold: float | None) -> tuple[Block, ...]:
    if not curve:
        return ()
    columns = ([_number(point[key]) for point in curve] for key in ("threshold", "precision", "coverage"))
    png = figure_to_png(plot_threshold(*columns, threshold))
    caption = "What each threshold would keep of the labeled validation images, and how much of it is right."
    if threshold is not None:
        caption += f" The dashed line is the threshold that was used, {threshold:g}."
    alt = "Precision and coverage of pseudo-labels against the threshold"
    return (Picture(png, alt, "Precision against the threshold", caption, plot=True),)


def _gallery(data: ClassificationReport) -> tuple[Block, ...]:
    images = data.least_certain[:MAX_THUMBNAILS]
    if not images:
        return ()
    pictures = tuple(
        Picture(image_to_png(thumbnail(one.image)), one.caption, caption=one.caption) for one in images
    )
    some, all_of_them = data.looked_at
    among = f", among {some:,} of {all_of_them:,}, evenly spread" if some < all_of_them else ""
    note = f"The unlabeled images the network is least sure of{among}: the ones worth a look, or a label."
    return (Gallery(pictures, note=note),)


def _training(data: ClassificationReport) -> tuple[Block, ...]:
    runs = {arm.name: arm.training for arm in data.arms if any(len(rows) > 1 for rows in arm.training)}
    if not runs:
        return ()
    seeds = {len(one) for one in runs.values()}
    n = (
        f"{min(seeds)} to {max(seeds)} seeds"
        if len(seeds) > 1
        else f"{max(seeds)} seed{'s' * (max(seeds) > 1)}"
    )
    band = "; line: median, band: least to greatest" if max(seeds) > 1 else ""
    png = figure_to_png(plot_training(runs))
    caption = f"One color a network, {n} each{band}. Long curves of the loss are running means. Where unlabeled images "
    caption += "take part, it has their term, too: losses of two methods are not to be compared."
    return (Picture(png, "Training loss and validation macro F1 over the steps", caption=caption, plot=True),)


def _networks(networks: Networks | None) -> tuple[Block, ...]:
    """Draw and list what there is to choose from, the best first."""
    if networks is None:
        return ()
    columns = (networks.names, networks.macro_f1, networks.p50_ms, networks.size_mb)
    order = sorted(
        zip(*columns, strict=True), key=lambda row: -inf if isnan(row[1]) else row[1], reverse=True
    )
    png = figure_to_png(plot_pareto(*zip(*order, strict=True), networks.front))
    rows = tuple(
        (
            f"{number}  {name}",
            _text(f1, 3),
            _text(ms, 2),
            _text(mb, 1),
            "yes" if name in networks.front else "",
        )
        for number, (name, f1, ms, mb) in enumerate(order, start=1)
    )
    caption = (
        'Orange and joined, and "yes" below: no other network is better, faster and smaller. The numbers are those of '
        "the table, the area of a dot is the size of the file."
    )
    alt = "Macro F1 against latency, one dot a network"
    heads = ("network", "macro F1", "latency, ms", "size, MB", "on the front")
    table = Table(heads, rows, note=networks.machine)
    blocks: tuple[Block, ...] = (Picture(png, alt, caption=caption, plot=True), table)
    return (Text(networks.sentence), *blocks) if networks.sentence else blocks


def _ranking(ranking: Ranking | None) -> tuple[Block, ...]:
    if ranking is None:
        return ()
    figure = plot_critical_difference(
        ranking.names, ranking.mean_ranks, ranking.critical_difference, ranking.groups, ranking.control
    )
    caption = (
        "A gray bar joins those whose mean ranks are no further apart than the critical difference (Nemenyi)."
    )
    if len(ranking.names) > MAX_RANKED:
        caption += f" The {MAX_RANKED} best of {len(ranking.names)} are shown."
    alt = "Mean ranks over data sets, the best on top"
    return Text(ranking.sentence), Picture(figure_to_png(figure), alt, caption=caption, plot=True)


def _with_interval(scores: Record, key: str) -> str:
    ends = scores.get("interval", {}).get(key)
    value = _text(scores.get(key), 3)
    return value if ends is None else f"{value} ({_text(ends[0], 2)}-{_text(ends[1], 2)})"


def _text(value: object, digits: int) -> str:
    number = _number(value)
    return "n/a" if isnan(number) else f"{number:.{digits}f}"


def _number(value: object) -> float:
    return nan if value is None else float(str(value))
