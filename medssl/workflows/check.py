"""Checking a cohort: everything that would stop a later command, found before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.errors import InputError, MedsslError
from medssl.io.cohort import Data, read_cohort
from medssl.io.inspection import Problem, SubjectReport, inspect_cohort, inspect_subject
from medssl.io.subjects import Cohort
from medssl.labels import LabelTable

Progress = Callable[[str, int, int], None]
"""Told the subject, how many are done, and how many there are; at the end with an empty subject."""


@dataclass(frozen=True)
class CheckResult:
    """What `check` found.

    Args:
        root: Paths are shown as seen from here.
        cohort: None where no subject could be found at all.
        reports: One a subject, in the order of the cohort.
        problems: All of them: of the cohort first, then subject by subject.
    """

    root: Path
    cohort: Cohort | None
    reports: tuple[SubjectReport, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Tell whether no problem is fatal."""
        return all(problem.severity != "fatal" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it, paths relative to the root."""
        cohort = self.cohort
        return {
            "ok": self.ok,
            "layout": cohort.layout if cohort else None,
            "contrasts": list(cohort.contrasts) if cohort else [],
            "labels": cohort.table.rows() if cohort else [],
            "subjects": [self._subject(report) for report in self.reports],
            "problems": [self._problem(problem) for problem in self.problems],
        }

    def shown(self, path: Path) -> str:
        """Return a path as seen from the root, or in full where it lies elsewhere."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _subject(self, report: SubjectReport) -> dict[str, Any]:
        return {
            "subject": report.subject,
            "section": report.section,
            "ok": report.ok,
            "files": {role: self.shown(path) for role, path in report.files.items()},
            "shape": list(report.shape) if report.shape else None,
            "spacing_mm": [round(size, 4) for size in report.spacing] if report.spacing else None,
            "orientation": report.orientation,
            "label_values": list(report.label_values),
            "mask": report.mask_origin,
        }

    def _problem(self, problem: Problem) -> dict[str, Any]:
        return {
            "severity": problem.severity,
            "subject": problem.subject,
            "file": self.shown(problem.file) if problem.file else None,
            "message": problem.message,
            "cure": problem.cure,
        }


def check(
    data: Data,
    contrasts: Sequence[str] | None = None,
    table: LabelTable | None = None,
    resample: bool = False,
    mask: str | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Read every file of a cohort and list what is wrong with it. Nothing is written.

    Args:
        data: Folder, datalist, image, or one image a contrast.
        contrasts: BIDS suffixes; None for those of the data.
        table: Label table; None for that of the data.
        resample: Whether contrasts on another grid are to be resampled by their headers.
        mask: "none" where scans have no brain mask.
        progress: Told about each subject.

    Returns:
        The result; bad data raises nothing.
    """
    try:
        cohort = read_cohort(data, contrasts, table, mask)
    except MedsslError as error:
        root = Path(data) if isinstance(data, (str, Path)) else Path()
        kind = type(error) if isinstance(error, InputError) else InputError
        problem = Problem("fatal", "", root, error.finding, error.cure, kind)
        return CheckResult(root, None, (), (problem,))
    reports = []
    placed = list(cohort.placed())
    for number, (section, subject) in enumerate(placed):
        if progress is not None:
            progress(subject.key, number, len(placed))
        reports.append(inspect_subject(subject, cohort.contrasts, cohort.table, section, resample))
    if progress is not None:
        progress("", len(placed), len(placed))
    problems = [*inspect_cohort(cohort), *(problem for report in reports for problem in report.problems)]
    return CheckResult(cohort.root, cohort, tuple(reports), tuple(problems))
