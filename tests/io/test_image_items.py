from pathlib import Path

import pytest

from medssl.errors import DatalistError
from medssl.io.image_items import (
    Fault,
    ImageCohort,
    ImageItem,
    class_name,
    natural_order,
    require_faultless,
)
from medssl.labels import UNKNOWN

CAT = ImageItem(Path("a.png"), "a.png", "cat")
FREE = ImageItem(Path("b.png"), "b.png", None)
COHORT = ImageCohort(Path(), ("dog", "cat"), training=(CAT,), unlabeled=(FREE,))


def test_names_sort_as_people_sort_them() -> None:
    names = ["c10", "c9", "B", "a", "A2b", "a2a", "10", "9"]
    assert natural_order(names) == ["9", "10", "a", "a2a", "A2b", "B", "c9", "c10"]


def test_the_order_of_names_does_not_hang_on_their_order() -> None:
    assert natural_order({"a", "A"}) == natural_order(["a", "A"]) == natural_order(["A", "a"])


def test_class_names_are_composed_and_without_outer_blanks() -> None:
    assert class_name(" Cafe\u0301 ") == "Caf\u00e9"


def test_classes_are_counted_in_their_order() -> None:
    assert (COHORT.number(CAT), COHORT.number(FREE)) == (1, UNKNOWN)


def test_images_come_with_their_section() -> None:
    assert list(COHORT.placed()) == [("training", CAT), ("unlabeled", FREE)]
    with pytest.raises(DatalistError, match="no section 'train'"):
        COHORT.section("train")


def test_all_faults_come_in_one_message() -> None:
    faults = [Fault(f"fault {number}", f"cure {number % 2}") for number in range(12)]
    with pytest.raises(DatalistError) as caught:
        require_faultless(faults, Path("data"))
    assert "data has 12 faults: fault 0; fault 1;" in str(caught.value)
    assert "fault 9; and 2 more. cure 0 cure 1" in str(caught.value)
    require_faultless([], Path("data"))
