"""Real scans as they are; skipped where MEDSSL_DATA does not point to them."""

import os
from pathlib import Path

import pytest

from medssl.io.cohort import read_cohort
from medssl.io.inspection import inspect_subject

pytestmark = pytest.mark.data


def _data(name: str) -> Path:
    folder = Path(os.environ.get("MEDSSL_DATA", "")) / name
    if "MEDSSL_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"MEDSSL_DATA holds no {name}")
    return folder


def test_real_infant_pairs_are_usable_as_they_are() -> None:
    cohort = read_cohort(_data("infant_averages"))
    reports = [inspect_subject(one, cohort.contrasts, cohort.table, "unlabeled") for one in cohort.unlabeled]
    assert [report.problems for report in reports] == [(), ()]
    assert {report.orientation for report in reports} == {"RAS"}


def test_hippocampus_comes_with_its_own_contrast_and_table() -> None:
    cohort = read_cohort(_data("hippocampus"), mask="none")
    assert (cohort.contrasts, cohort.table.describe()) == (("T1w",), "0 BG, 1 ANT, 2 POST")
    assert (len(cohort.training), len(cohort.test)) == (160, 40)
    report = inspect_subject(cohort.training[0], cohort.contrasts, cohort.table, "training")
    assert (report.problems, report.label_values) == ((), (0, 1, 2))


def test_hippocampus_crops_are_not_taken_for_stripped_brains() -> None:
    cohort = read_cohort(_data("hippocampus"))
    report = inspect_subject(cohort.training[0], cohort.contrasts, cohort.table, "training")
    assert "100% of the field of view" in report.problems[0].message
