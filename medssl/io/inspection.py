"""What is wrong with a cohort: every problem found, each with its cure, nothing changed.

Functions named ``_check_*`` raise; ``inspect_*`` collect what they raise. So a command that refuses a
subject and the table that lists all problems say the same words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from medssl.errors import DatalistError, GridError, InputError, MedsslError
from medssl.io.nifti import Volume, has_orientation, read_labels, read_mask, read_volume, resample
from medssl.io.subjects import SECTIONS, Cohort, Subject
from medssl.labels import NO_MASK, UNKNOWN, LabelTable

FILLED_SHARE = 0.6
"""Largest share of the field of view that a brain fills. In a box cut as close as can be, real brains fill
0.45 to 0.50 of it and an ellipsoid 0.52; a whole head with noisy air fills nearly all."""

BRAIN_ML = 2500.0
"""Largest volume that counts as a brain. Adult brains with their fluid stay below 2,000 ml."""

SKULL_DIP = 0.5
"""Median intensity of the darkest shell below the rim, relative to the rim, under which that shell is a
skull. Skull-stripped T1w scans get brighter from the rim inward (0.95 to 1.0); a scalp above bone gives 0.1
to 0.3."""

_SKULL_LEAST_ML = 300.0  # a head, not a phantom or a crop of one
_SHELL_MM = 2.0
_SHELLS = 9

OVERLAP_FATAL = 0.5
"""Share of the smaller of two foregrounds inside the other below which two contrasts do not overlap."""

OVERLAP_DOUBTFUL = 0.8
"""The same share below which the registration deserves a look."""

Severity = Literal["fatal", "warning"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        severity: "fatal" where no command works with it.
        subject: Key such as "sub-01", or "" for the whole cohort.
        file: The file concerned, if it is one.
        message: What is wrong, where, found against expected.
        cure: What to do.
        error: The error that a command raises for it.
    """

    severity: Severity
    subject: str
    file: Path | None
    message: str
    cure: str
    error: type[MedsslError] = field(default=InputError, repr=False)

    def exception(self) -> MedsslError:
        """Return the error that a command raises for this problem."""
        return self.error(self.message, self.cure)


@dataclass(frozen=True)
class SubjectReport:
    """What was found out about one subject.

    Args:
        subject: Key such as "sub-01_ses-6mo".
        section: "training", "validation", "test" or "unlabeled".
        files: Role (a contrast, "label", "mask") -> file.
        shape: Of the first contrast, None where it cannot be read.
        spacing: In mm, of the first contrast.
        orientation: Such as "RAS", of the first contrast.
        label_values: Values found in the label image, as the table has them.
        mask_origin: Such as "T1w != 0", a file name, or "none".
        problems: What is wrong.
    """

    subject: str
    section: str
    files: dict[str, Path]
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    label_values: tuple[int, ...] = ()
    mask_origin: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether no problem is fatal."""
        return all(problem.severity != "fatal" for problem in self.problems)


def inspect_subject(
    subject: Subject, contrasts: Sequence[str], table: LabelTable, section: str, resample: bool = False
) -> SubjectReport:
    """Read all files of a subject once and collect what is wrong with them; bad data raises nothing.

    Args:
        subject: Whose files.
        contrasts: BIDS suffixes in the order of its images.
        table: The label values that may occur.
        section: Where it is listed.
        resample: Whether contrasts on another grid are to be resampled by their headers.
    """
    return _inspect(subject, contrasts, table, section, resample)[0]


def _inspect(
    subject: Subject, contrasts: Sequence[str], table: LabelTable, section: str, resample: bool
) -> tuple[SubjectReport, list[Volume | None]]:
    """Return what is wrong with a subject, and its images as far as they can be read."""
    found = _Findings(subject)
    images = _inspect_images(found, subject, contrasts, resample)
    first = images[0]
    label = _inspect_label(found, subject, table, first, contrasts[0])
    _inspect_mask(found, subject, first, contrasts[0])
    files = dict(zip(contrasts, subject.images, strict=True))
    files |= {"label": subject.label} if subject.label else {}
    files |= {"mask": Path(subject.mask)} if subject.mask and subject.mask != NO_MASK else {}
    report = SubjectReport(
        subject=subject.key,
        section=section,
        files=files,
        shape=first.grid.shape if first else None,
        spacing=first.grid.spacing if first else None,
        orientation=first.grid.axcodes if first else None,
        label_values=tuple(int(value) for value in np.unique(label.data)) if label else (),
        mask_origin=_mask_origin(subject, contrasts[0]),
        problems=tuple(found.problems),
    )
    return report, images


def inspect_cohort(cohort: Cohort, transductive: bool = False) -> list[Problem]:
    """Collect what is wrong with the lists of a cohort: doubles, and subjects on both sides of a split.

    Args:
        cohort: Whose lists.
        transductive: Whether scans may be listed as unlabeled that are also held out.
    """
    if not cohort.all():
        msg = f"The {cohort.layout} at {cohort.root} lists no subject; expected at least one."
        return [Problem("fatal", "", cohort.root, msg, "Add subjects to its lists.", DatalistError)]
    allowed = {("validation", "unlabeled"), ("test", "unlabeled")} if transductive else set()
    return [*_listed_twice(cohort), *_shared_files(cohort), *_split_subjects(cohort, allowed)]


def require_usable(
    subject: Subject, cohort: Cohort, section: str, resample: bool = False
) -> tuple[Volume, ...]:
    """Refuse a subject with a fatal problem.

    Args:
        subject: Whose files are read.
        cohort: Says contrasts and label table.
        section: Where it is listed.
        resample: Whether contrasts on another grid are to be resampled by their headers.

    Returns:
        Its images, each on its own grid.

    Raises:
        MedsslError: The first fatal problem.
    """
    report, images = _inspect(subject, cohort.contrasts, cohort.table, section, resample)
    _raise_first_fatal(report.problems)
    return tuple(image for image in images if image is not None)


def require_usable_cohort(
    cohort: Cohort,
    sections: Sequence[str] = SECTIONS,
    resample: bool = False,
    transductive: bool = False,
) -> None:
    """Refuse a cohort whose lists contradict each other or in which a subject cannot be used.

    Args:
        cohort: What to check.
        sections: Sections whose files are read; the lists of all sections are compared.
        resample: Whether contrasts on another grid are to be resampled by their headers.
        transductive: Whether scans may be listed as unlabeled that are also held out.

    Raises:
        MedsslError: The first fatal problem.
    """
    _raise_first_fatal(inspect_cohort(cohort, transductive))
    for section in sections:
        for subject in cohort.section(section):
            require_usable(subject, cohort, section, resample)


def _raise_first_fatal(problems: Iterable[Problem]) -> None:
    for problem in problems:
        if problem.severity == "fatal":
            raise problem.exception()


# ------------------------------------------------------------------------------------------- a subject


class _Findings:
    """Collects the problems of one subject."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject.key
        self.problems: list[Problem] = []

    def attempt(self, file: Path | None, action: Callable[..., _T], *arguments: Any) -> _T | None:
        """Return what an action returns, or note the error it raises and return None."""
        try:
            return action(*arguments)
        except MedsslError as error:
            self.problems.append(Problem("fatal", self.subject, file, error.finding, error.cure, type(error)))
            return None

    def warn(self, file: Path | None, message: str, cure: str) -> None:
        """Note something that stops nobody."""
        self.problems.append(Problem("warning", self.subject, file, f"{self.subject}: {message}", cure))


def _inspect_images(
    found: _Findings, subject: Subject, contrasts: Sequence[str], resampled: bool
) -> list[Volume | None]:
    """Read all contrasts and compare the others with the first."""
    volumes = [
        found.attempt(path, _read_contrast, path, subject.key, contrast)
        for path, contrast in zip(subject.images, contrasts, strict=True)
    ]
    first = volumes[0]
    if first is not None and not has_orientation(first.path):
        message = f"{first.path.name} has no orientation in its header (qform and sform codes are 0)."
        found.warn(first.path, message, f"Make sure that its voxel axes point to {first.grid.axcodes}.")
    for contrast, volume in zip(contrasts[1:], volumes[1:], strict=True):
        if first is not None and volume is not None:
            _inspect_pair(found, first, volume, contrasts[0], contrast, resampled)
    return volumes


def _inspect_pair(
    found: _Findings, first: Volume, other: Volume, name: str, other_name: str, resampled: bool
) -> None:
    """Compare a contrast with the first one: grid, then where the brain lies."""
    difference = first.grid.difference(other.grid)
    if difference is not None and not resampled:
        found.attempt(other.path, _check_contrast_grid, first, other, name, other_name, found.subject)
        return
    if difference is not None:
        cure = "Look at the result; only the headers say that the two lie on each other."
        found.warn(other.path, f"{other_name} will be resampled to the {name} grid: {difference}.", cure)
        other = resample(other, first.grid, found.subject)
    overlap = _overlap(_foreground(first.data), _foreground(other.data))
    found.attempt(other.path, _check_overlap, overlap, other.path, name, other_name, found.subject)
    if OVERLAP_FATAL <= overlap < OVERLAP_DOUBTFUL:
        message = f"only {overlap:.0%} of the {other_name} brain lies on the {name} brain."
        found.warn(other.path, message, "Look at the two scans on top of each other; register them.")


def _inspect_label(
    found: _Findings, subject: Subject, table: LabelTable, first: Volume | None, name: str
) -> Volume | None:
    """Read the label image and compare its grid."""
    if subject.label is None:
        return None
    path = subject.label
    label = found.attempt(path, read_labels, path, subject.key, table, subject.encoding)
    if label is None:
        return None
    if first is not None:
        what = f"the label image {path.name}"
        found.attempt(path, _check_same_grid, first, label, what, name, subject.key)
    present = set(np.unique(label.data).tolist())
    absent = [row.abbreviation for row in table.foreground if row.value not in present]
    if absent:
        message = f"the label image {path.name} has no voxel of {', '.join(absent)}."
        found.warn(path, message, "Nothing to do if these structures are not in the field of view.")
    if UNKNOWN in present:
        share = float(np.mean(label.data == UNKNOWN))
        found.warn(
            path, f"{share:.1%} of {path.name} is unknown ({UNKNOWN}).", "Nothing: no loss looks there."
        )
    return label


def _inspect_mask(found: _Findings, subject: Subject, first: Volume | None, name: str) -> None:
    """Read the mask file, or look whether the first contrast is skull-stripped."""
    if subject.mask == NO_MASK:
        return
    if subject.mask is None:
        if first is not None:
            found.attempt(first.path, _check_skull_stripped, first, name, subject.key)
        return
    path = Path(subject.mask)
    mask = found.attempt(path, read_mask, path, subject.key)
    if mask is not None and first is not None:
        found.attempt(path, _check_same_grid, first, mask, f"the mask {path.name}", name, subject.key)


def _read_contrast(path: Path, subject: str, contrast: str) -> Volume:
    if not path.is_file():
        msg = f"{subject}: {contrast} is missing: expected {path.name} in {path.parent}."
        raise InputError(msg, "Put it there, correct the datalist, or name the contrasts with --contrasts.")
    return read_volume(path, subject)


def _check_contrast_grid(first: Volume, other: Volume, name: str, other_name: str, subject: str) -> None:
    difference = first.grid.difference(other.grid)
    if difference is not None:
        msg = f"{subject}: {other_name} ({other.path.name}) is not on the {name} grid: {difference}."
        cure = "Register it first, or pass --resample if the two headers place them on each other."
        raise GridError(msg, cure)


def _check_same_grid(first: Volume, other: Volume, what: str, name: str, subject: str) -> None:
    difference = first.grid.difference(other.grid)
    if difference is not None:
        msg = f"{subject}: {what} is not on the {name} grid: {difference}."
        raise GridError(msg, f"Make it on {first.path.name}, or resample it there by nearest neighbor.")


def _check_overlap(overlap: float, path: Path, name: str, other_name: str, subject: str) -> None:
    if overlap < OVERLAP_FATAL:
        msg = f"{subject}: the brains in {name} and {other_name} ({path.name}) do not lie on each other: "
        msg += f"{overlap:.0%} of the smaller overlaps; expected at least {OVERLAP_FATAL:.0%}."
        raise GridError(msg, "Are both of the same subject? Register one to the other first.")


def _check_skull_stripped(first: Volume, name: str, subject: str) -> None:
    """Refuse to take everything that is not 0 for brain where it is more than a brain."""
    sign = _sign_of_whole_head(first, name)
    if sign is not None:
        msg = f"{subject}: {first.path.name} seems not to be skull-stripped: {sign}; "
        msg += f"{name} != 0 would take all of it for brain."
        cure = (
            "Put a brain mask beside it (*_desc-brain_mask.nii.gz) or under 'mask' in the datalist. "
            'For scans whose background is a class of its own: --mask none, or "mask": "none" there.'
        )
        raise InputError(msg, cure)


def _sign_of_whole_head(first: Volume, name: str) -> str | None:
    """Describe why a scan is no skull-stripped brain, or return None."""
    inside = first.data != 0
    share = float(inside.mean())
    if share > FILLED_SHARE:
        return f"{share:.0%} of the field of view is not 0 (a brain: at most {FILLED_SHARE:.0%})"
    volume = float(inside.sum()) * first.grid.voxel_ml
    if volume > BRAIN_ML:
        return f"{volume:.0f} ml are not 0 (a brain: at most {BRAIN_ML:.0f} ml)"
    if name == "T1w" and volume > _SKULL_LEAST_ML:
        dip = _dip_below_rim(first)
        if dip < SKULL_DIP:
            return f"below its bright rim lies a shell with {dip:.0%} of the rim's intensity, as a skull does"
    return None


def _dip_below_rim(volume: Volume) -> float:
    """Return the median of the darkest shell below the rim relative to the rim's brightest shell.

    Shells are 2 mm thick, or one voxel where voxels are larger. The outer three are the rim, the next five
    are looked at; a dark one counts only if it gets brighter again below.
    """
    steps = tuple(max(1, round(_SHELL_MM / size)) for size in volume.grid.spacing)
    data = volume.data[:: steps[0], :: steps[1], :: steps[2]]
    sampling = [step * size for step, size in zip(steps, volume.grid.spacing, strict=True)]
    filled = np.pad(binary_fill_holes(data != 0), 1)
    depth = distance_transform_edt(filled, sampling=sampling)[1:-1, 1:-1, 1:-1]
    shells = np.ceil(depth / max(_SHELL_MM, min(sampling)) - 1e-3).astype(int)
    if shells.max() < _SHELLS:
        return 1.0
    profile = [float(np.median(data[shells == number])) for number in range(1, _SHELLS + 1)]
    rim = int(np.argmax(profile[:3]))
    below = profile[rim + 1 : rim + 6]
    darkest = rim + 1 + int(np.argmin(below))
    brightens = darkest + 1 < len(profile) and max(profile[darkest + 1 :]) > 1.2 * profile[darkest]
    return profile[darkest] / profile[rim] if brightens and profile[rim] > 0 else 1.0


def _foreground(data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where a scan shows something: not 0, or above the noise where nothing is 0."""
    inside = data != 0
    if inside.mean() > FILLED_SHARE:
        return np.asarray(data > 0.1 * np.percentile(data[::3, ::3, ::3], 98))
    return np.asarray(inside)


def _overlap(first: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the share of the smaller foreground that lies inside the other."""
    smaller = min(int(first.sum()), int(other.sum()))
    return float((first & other).sum()) / smaller if smaller else 0.0


def _mask_origin(subject: Subject, contrast: str) -> str:
    if subject.mask is None:
        return f"{contrast} != 0"
    return NO_MASK if subject.mask == NO_MASK else Path(subject.mask).name


# -------------------------------------------------------------------------------------------- a cohort


def _listed_twice(cohort: Cohort) -> list[Problem]:
    """Find subjects that stand twice in one list, or in 'training' and 'validation' and so on."""
    places: dict[str, list[str]] = defaultdict(list)
    for section, subject in cohort.placed():
        places[subject.key].append(section)
    problems = []
    for key, sections in places.items():
        if len(sections) > len(set(sections)):
            msg = f"{key} is listed {len(sections)} times ({', '.join(sections)}); expected once."
            cure = "Remove one entry, or give two sessions their 'session'."
            problems.append(Problem("fatal", key, None, msg, cure, DatalistError))
    return problems


def _shared_files(cohort: Cohort) -> list[Problem]:
    """Find files that stand in two places."""
    places: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for _, subject in cohort.placed():
        images = zip(cohort.contrasts, subject.images, strict=True)
        for role, path in (*images, ("label", subject.label), ("mask", subject.mask)):
            if isinstance(path, Path):
                places[path.resolve()].append((subject.key, role))
    problems = []
    for path, uses in places.items():
        if len(set(uses)) > 1:
            where = ", ".join(f"{key} ({role})" for key, role in uses)
            msg = f"The file {path.name} stands in {len(uses)} places: {where}; expected one."
            problems.append(Problem("fatal", uses[0][0], path, msg, "Correct the paths.", DatalistError))
    return problems


def _split_subjects(cohort: Cohort, allowed: Collection[tuple[str, str]]) -> list[Problem]:
    """Find subjects, any session of them, that stand in two lists which must not share any."""
    members = {section: {subject.subject for subject in cohort.section(section)} for section in SECTIONS}
    problems = []
    for one, other in combinations(SECTIONS, 2):
        if (one, other) in allowed:
            continue
        for name in sorted(members[one] & members[other]):
            if {one, other} == {"training", "unlabeled"} and not _same_scan(cohort, name):
                continue  # a labeled and an unlabeled session of one child: both may be learned from
            msg = f"sub-{name} is in '{one}' and in '{other}'; expected one list for all its sessions."
            cure = "Remove it from one of them, or the result says nothing about new subjects."
            if other == "unlabeled" and one != "training":
                cure += " --transductive allows it, and says so in every table."
            problems.append(Problem("fatal", f"sub-{name}", None, msg, cure, DatalistError))
    return problems


def _same_scan(cohort: Cohort, name: str) -> bool:
    labeled = {subject.key for subject in cohort.training if subject.subject == name}
    return any(subject.key in labeled for subject in cohort.unlabeled)
