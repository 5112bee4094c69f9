"""A student's images: the labeled ones, and those whose label a teacher was sure of."""

import pytest
from pictures import CLASSES, write_pictures

from medssl.errors import DatalistError
from medssl.io.files import write_csv
from medssl.io.image_cohort import image_entries
from medssl.io.pseudo_label_table import COLUMNS, KeptLabel, kept_labels, taught_entries


@pytest.fixture
def images(tmp_path):
    return write_pictures(tmp_path / "images")


def write(path, rows, columns=COLUMNS):
    write_csv(path, [dict(zip(columns, row, strict=True)) for row in rows], list(columns))
    return path


def test_kept_labels_are_added_to_the_given_ones(images, tmp_path):
    first, second, third = [entry["name"] for entry in image_entries(images, "unlabeled")][:3]
    rows = [(first, CLASSES[1], "yes"), (second, CLASSES[0], "no"), (third, CLASSES[0], "yes")]
    table = write(tmp_path / "labels.csv", rows)
    assert kept_labels(table) == {first: KeptLabel(CLASSES[1]), third: KeptLabel(CLASSES[0])}
    found = taught_entries(images, table)
    given = image_entries(images, "training")
    assert found[: len(given)] == given
    assert [(entry["name"], entry["label"]) for entry in found[len(given) :]] == [(first, 1), (third, 0)]
    assert taught_entries(images, table, classes=list(CLASSES)) == found


def test_a_kept_label_counts_as_much_as_its_table_says(images, tmp_path):
    name = image_entries(images, "unlabeled")[0]["name"]
    table = write(tmp_path / "labels.csv", [(name, "dark", "yes", "0.75")], (*COLUMNS, "weight"))
    assert kept_labels(table) == {name: KeptLabel("dark", 0.75)}
    *given, taught = taught_entries(images, table)
    assert {entry["weight"] for entry in given} == {1.0}
    assert taught["weight"] == 0.75


def test_a_later_round_replaces_what_an_earlier_one_said(tmp_path):
    write(tmp_path / "round-1.csv", [("a", "dark", "yes"), ("b", "dark", "yes"), ("c", "dark", "yes")])
    write(tmp_path / "round-10.csv", [("a", "light", "yes")])
    write(tmp_path / "round-2.csv", [("a", "dark", "yes"), ("b", "light", "no"), ("d", "light", "yes")])
    expected = {"a": KeptLabel("light"), "c": KeptLabel("dark"), "d": KeptLabel("light")}
    assert kept_labels(tmp_path) == expected
    assert kept_labels(*[tmp_path / f"round-{number}.csv" for number in (1, 2, 10)]) == expected


@pytest.mark.parametrize(("name", "label"), [("elsewhere.png", "dark"), (None, "grey")])
def test_labels_that_do_not_fit_are_named(images, tmp_path, name, label):
    name = name or image_entries(images, "unlabeled")[0]["name"]
    table = write(tmp_path / "labels.csv", [(name, label, "yes")])
    with pytest.raises(DatalistError, match=rf"labels\.csv holds labels that do not fit: {name} \({label}\)"):
        taught_entries(images, table)


def test_a_table_of_something_else_is_refused(images, tmp_path):
    table = write(tmp_path / "labels.csv", [("a.png", "dark")], ("path", "label"))
    with pytest.raises(DatalistError, match="lacks the columns kept; found path, label"):
        kept_labels(table)
