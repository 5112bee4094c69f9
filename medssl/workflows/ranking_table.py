"""What `medssl rank` leaves: a table, what its columns mean, and a page of pictures to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medssl.io.cohort import read_cohort
from medssl.io.files import atomic_path, require_new_table, write_json, write_tsv
from medssl.io.nifti import read_volume
from medssl.io.subjects import Cohort
from medssl.reporting.contact_sheet import Entry, plot_contact_sheet
from medssl.reporting.figures import figure_to_png
from medssl.workflows.models import model_facts
from medssl.workflows.provenance import command_line, relative, versions
from medssl.workflows.ranking import Ranked, RankingWatcher, RankOptions, rank

COLUMNS: Mapping[str, str] = {
    "rank": "Place, 1 for the scan to label first.",
    "subject": "Subject, and session if there is one.",
    "score": "Expected gain: share of the pool's uncertainty that a label of this scan covers beyond the labeled "
    "scans and those above it.",
    "uncertainty": "Mean of entropy and disagreement as ranks in the pool, in (0, 1).",
    "entropy_nats": "Mean predictive entropy in the mask near borders between predicted labels.",
    "disagreement_nats": "Mean Jensen-Shannon divergence of two predictions in the mask.",
    "distance_sd": "Distance to the nearest labeled scan, in standard deviations of label shares, volume, intensities.",
    "nearest_labeled": "That labeled scan.",
    "sagittal_slice": "Sagittal slice to look at first: index from 0 in the stored array.",
    "coronal_slice": "Coronal slice, likewise.",
    "axial_slice": "Axial slice, likewise.",
    "stored_axes": "Which axis of the stored array each view is cut from, in the order of the array.",
    "reason": "Why, in words.",
}
"""Columns of the table -> what they hold."""

PICTURED = 12
"""Scans on the page of pictures, the first ones."""


def rank_to_table(
    data: Path,
    model: Path | str | None,
    out: Path,
    *,
    options: RankOptions | None = None,
    watcher: RankingWatcher | None = None,
    overwrite: bool = False,
    pictures: bool = True,
) -> list[Ranked]:
    """Rank the unlabeled scans of a cohort and write the table, its JSON, and the page of pictures.

    What is measured of each scan is kept in ``<name>_measures`` beside the table, so that an interrupted call goes
    on where it stopped and a call after more labels takes little time.

    Args:
        data: See `rank`.
        model: See `rank`.
        out: Table to write, ``*.tsv``.
        options: See `RankOptions`.
        watcher: Told about each scan.
        overwrite: Replace a table that is there.
        pictures: Write ``<name>.png`` as well.

    Raises:
        OutputError: A file is there, or cannot be written.
        MedsslError: As in `rank`.
    """
    options = options or RankOptions()
    require_new_table(out, overwrite, (".json", *[".png"] * pictures))
    folder = out.with_name(f"{out.stem}_measures")
    ranked = rank(data, model, folder, watcher=watcher, options=options)
    if pictures:
        facts = model_facts(model)
        cohort = read_cohort(data, facts.contrasts, facts.table, options.mask)
        with atomic_path(out.with_suffix(".png")) as path:
            path.write_bytes(contact_sheet(ranked[:PICTURED], cohort, len(ranked)))
    write_json(out.with_suffix(".json"), _sidecar(data, model, out, options))
    write_tsv(out, [_row(place, one) for place, one in enumerate(ranked, start=1)], list(COLUMNS))
    return ranked


def contact_sheet(ranked: Sequence[Ranked], cohort: Cohort, of: int) -> bytes:
    """Return a PNG of the first contrast of some scans, at the slices to look at first.

    Args:
        ranked: The scans, the best first.
        cohort: Says where their files are.
        of: How many were ranked.
    """
    subjects = {subject.key: subject for subject in cohort.unlabeled}
    entries = []
    for place, one in enumerate(ranked, start=1):
        volume = read_volume(subjects[one.subject].images[0], one.subject)
        title = f"{place}. {one.subject}  ({one.score:.3f})"
        entries.append(Entry(title, one.reason, volume.data, volume.grid, one.voxel))
    shown = f"{len(ranked)} of {of}" if len(ranked) < of else f"All {of}"
    note = f"{shown} unlabeled scans, by expected gain; {cohort.contrasts[0]}; rings: where the network is most unsure"
    return figure_to_png(plot_contact_sheet(entries, note))


def _row(place: int, one: Ranked) -> dict[str, object]:
    slices = {f"{cut.view}_slice": cut.index for cut in one.slices}
    return {
        "rank": place,
        "subject": one.subject,
        "score": one.score,
        "uncertainty": one.uncertainty,
        "entropy_nats": one.entropy,
        "disagreement_nats": one.disagreement,
        "distance_sd": one.distance,
        "nearest_labeled": one.nearest,
        **slices,
        "stored_axes": ",".join(cut.view for cut in sorted(one.slices, key=lambda cut: cut.axis)),
        "reason": one.reason,
    }


def _sidecar(data: Path, model: Path | str | None, out: Path, options: RankOptions) -> dict[str, object]:
    """Explain the columns, and say what was run."""
    columns: dict[str, object] = {
        name: {
            "Description": text,
            **({"Units": "nats"} if name.endswith("_nats") else {}),
        }
        for name, text in COLUMNS.items()
    }
    chosen = [
        ("model", None if model is None else relative(model, out.parent)),
        ("previous", None if options.previous is None else relative(options.previous, out.parent)),
        ("mask", options.mask),
        ("resample", options.resample),
        ("device", None if options.device == "auto" else options.device),
    ]
    return {**columns, "command": command_line("rank", [data], out, chosen), "versions": versions()}
