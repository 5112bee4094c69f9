import logging
import re
from pathlib import Path

import pytest
from image_trees import hash_of_tree, write_tree
from monai.bundle import ConfigParser

from medssl.errors import ConfigError, DatalistError, InputError
from medssl.io.image_cohort import (
    class_names,
    find_images,
    folders_of_images,
    image_entries,
    read_image_cohort,
)
from medssl.labels import UNKNOWN

BOTH = {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1}


def test_classes_come_in_natural_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"grade {grade}": 1 for grade in (10, 9, 1)})
    assert class_names(tmp_path) == ["grade 1", "grade 9", "grade 10"]


def test_classes_come_in_the_order_that_is_given(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH)
    entries = image_entries(tmp_path, "test", ["dog", "cat"])
    assert [(entry["name"], entry["label"]) for entry in entries] == [
        ("test/cat/1.png", 1),
        ("test/dog/1.png", 0),
    ]


def test_a_folder_counts_whole_and_of_a_manifest_the_folders_of_its_images(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", BOTH)
    assert folders_of_images(tmp_path / "images") == [tmp_path / "images"]
    lines = "../images/train/cat/1.png,cat,train\n..\\images\\train\\cat\\2.png,cat,train\n,cat,train\n"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/manifest.csv").write_text(f"path,label,split\n{lines}")
    assert folders_of_images(tmp_path / "lists/manifest.csv") == [tmp_path / "lists/../images/train/cat"]
    (tmp_path / "lists/manifest.csv").rename(tmp_path / "lists/images.csv")
    found = folders_of_images(tmp_path / "lists")
    assert found == [tmp_path / "lists", tmp_path / "lists/../images/train/cat"]
    assert folders_of_images(tmp_path / "gone.csv") == []


def test_entries_are_what_a_configuration_wants(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH | {"unlabelled": 1})
    (entry,) = image_entries(str(tmp_path), "unlabeled")
    assert entry == {
        "image": str(tmp_path / "unlabelled/1.png"),
        "name": "unlabelled/1.png",
        "label": UNKNOWN,
        "weight": 1.0,
    }


@pytest.mark.parametrize(
    "classes", [["cat"], ["cat", "cat"], "cat", ["cat", ""], [str(n) for n in range(256)]]
)
def test_bad_lists_of_classes_are_refused(tmp_path: Path, classes: list[str]) -> None:
    write_tree(tmp_path, BOTH)
    with pytest.raises(ConfigError, match="expected 2 to 255 different names"):
        read_image_cohort(tmp_path, classes=classes)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"test/cow": 1}, r"'cow' of test is not among the classes \('cat', 'dog'\)"),
        ({"test/Dog": 1}, "'Dog' of test is not among the classes .*did you mean 'dog'"),
        ({"train/cow": 1}, "test has no folder for 'cow'"),
        ({"val/cat": 1}, "validation has no folder for 'dog'"),
        ({"val/cat": 1, "val/dogs": 1}, "'dogs' of validation is not .*did you mean 'dog'"),
        ({"train/cow": 0}, "the class folder 'train/cow' holds no image"),
    ],
)
def test_class_names_must_agree_between_the_splits(tmp_path: Path, more: dict[str, int], words: str) -> None:
    """D14: two of these have as many folders in each split."""
    write_tree(tmp_path, BOTH | more)
    with pytest.raises(DatalistError, match=words):
        read_image_cohort(tmp_path)


@pytest.mark.parametrize("name", ["$print(1)", "@x", "%x", "a@#b", "a#b", "a::b"])
def test_a_class_name_that_a_configuration_would_evaluate_is_refused(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {f"{split}/{one}": 1 for split in ("train", "test") for one in ("cat", name)})
    with pytest.raises(DatalistError, match=re.escape(f"the class '{name}' has a name that a configuration")):
        read_image_cohort(tmp_path)


@pytest.mark.parametrize("name", ["a$b", "a@b", "50 %", "(c)"])
def test_such_letters_inside_a_name_are_kept_by_a_configuration(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {f"train/{one}": 1 for one in ("cat", name)})
    classes = list(read_image_cohort(tmp_path).classes)
    assert sorted(ConfigParser({"classes": classes}).get_parsed_content("classes")) == sorted({"cat", name})


def test_a_renamed_class_is_named_although_the_number_of_folders_agrees(tmp_path: Path) -> None:
    """D14."""
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/dgo": 1})
    with pytest.raises(DatalistError, match=r"'dgo' of test .* did you mean 'dog'"):
        read_image_cohort(tmp_path)


def test_a_given_class_without_training_images_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 1})
    with pytest.raises(DatalistError, match="no labeled training image of 'cow'"):
        read_image_cohort(tmp_path, classes=["cat", "dog", "cow"])
    with pytest.raises(DatalistError, match="'dog' of training is not among the classes"):
        read_image_cohort(tmp_path, classes=["cat", "cow"])


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train/cat": 2}, "only 'cat'; expected two"),
        ({"unlabeled": 2}, "no labeled image; expected two"),
    ],
)
def test_one_class_is_not_enough(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    write_tree(tmp_path, counts)
    with pytest.raises(DatalistError, match=words):
        read_image_cohort(tmp_path)


def test_a_folder_with_test_images_alone_can_be_read(tmp_path: Path) -> None:
    write_tree(tmp_path, {"test/dog": 2, "test/cat": 1})
    cohort = read_image_cohort(tmp_path)
    assert cohort.classes == ("cat", "dog")
    assert (len(cohort.test), len(cohort.training)) == (3, 0)


def test_all_faults_come_in_one_error(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH | {"train/empty": 0, "test/cow": 1, "tests": 1})
    with pytest.raises(DatalistError) as caught:
        read_image_cohort(tmp_path)
    for words in ("'train/empty' holds no image", "'cow' of test", "the folder 'tests'", "has 4 faults"):
        assert words in str(caught.value)


def test_rare_classes_may_be_missing_from_a_manifest_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path, {".": 3})
    lines = ("path,label,split", "1.png,a,train", "2.png,b,train", "3.png,a,test")
    (tmp_path / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        cohort = read_image_cohort(tmp_path)
    assert (cohort.classes, len(cohort.test)) == (("a", "b"), 1)
    assert "test has no image of 'b'" in caplog.text


def test_unlabeled_images_may_lie_elsewhere(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", BOTH)
    write_tree(tmp_path / "pool", {"train/cat": 2})
    cohort = read_image_cohort(tmp_path / "data", unlabeled=tmp_path / "pool")
    assert [item.name for item in cohort.unlabeled] == [
        "unlabeled:pool/train/cat/1.png",
        "unlabeled:pool/train/cat/2.png",
    ]
    assert {item.label for item in cohort.unlabeled} == {None}


@pytest.mark.parametrize(
    ("counts", "words"), [({".": 0}, "holds no image"), ({".": 2}, "expected one place")]
)
def test_a_second_or_empty_place_of_unlabeled_images_is_refused(
    tmp_path: Path, counts: dict[str, int], words: str
) -> None:
    write_tree(tmp_path / "data", BOTH | ({"unlabeled": 1} if counts["."] else {}))
    write_tree(tmp_path / "pool", counts)
    with pytest.raises(DatalistError, match=words):
        read_image_cohort(tmp_path / "data", unlabeled=tmp_path / "pool")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("never", "never is not there; expected a folder"),
        ("empty", "holds no folder of images"),
        ("a.txt", "a file"),
    ],
)
def test_places_without_images_are_refused(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=words):
        read_image_cohort(tmp_path / place)


@pytest.mark.parametrize(
    "spelling", ["nested/Bilder für Ömer", "nested/Bilder für Ömer/", "./nested/../nested/Bilder für Ömer"]
)
@pytest.mark.parametrize("absolute", [True, False])
def test_every_spelling_of_a_path_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, absolute: bool
) -> None:
    """D6: relative, absolute, nested, with a slash at the end, blanks and other letters."""
    write_tree(tmp_path / "nested/Bilder für Ömer", BOTH)
    monkeypatch.chdir(tmp_path)
    place = f"{tmp_path}/{spelling}" if absolute else spelling
    cohort = read_image_cohort(place)
    assert [item.name for item in cohort.test] == ["test/cat/1.png", "test/dog/1.png"]
    assert all(item.path.is_file() for _, item in cohort.placed())


def test_nothing_in_the_data_changes(tmp_path: Path) -> None:
    """D7."""
    write_tree(tmp_path, BOTH | {"unlabelled": 2})
    before = hash_of_tree(tmp_path)
    cohort = read_image_cohort(tmp_path)
    image_entries(tmp_path, "training", cohort.classes)
    assert hash_of_tree(tmp_path) == before


def test_what_a_prediction_passes_over_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tree(tmp_path, {"a": 2})
    (tmp_path / "a" / "thumbs.db").write_bytes(b"x")
    find_images(tmp_path)
    assert not caplog.records
    (tmp_path / "a" / "scan.gif").write_bytes(b"GIF89a")
    find_images(tmp_path)
    (told,) = caplog.records
    assert (told.levelname, "may be images: a/scan.gif." in told.getMessage()) == ("WARNING", True)


def test_what_lies_in_the_folder_of_the_unlabeled_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", BOTH)
    write_tree(tmp_path / "pool", {".": 1})
    (tmp_path / "pool" / "scan.gif").write_bytes(b"GIF89a")
    assert read_image_cohort(tmp_path / "data").passed_over == ()
    both = read_image_cohort(tmp_path / "data", unlabeled=tmp_path / "pool")
    assert both.passed_over == ("unlabeled:pool/scan.gif",)


def test_images_for_a_prediction_need_no_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, ".": 1})
    assert [item.name for item in find_images(tmp_path)] == ["1.png", "train/cat/1.png"]
    with pytest.raises(InputError, match="holds no image; 0 other files"):
        find_images(write_tree(tmp_path / "none", {".": 0}))
