import os
from pathlib import Path

import pytest
from image_trees import save_picture, write_tree

from medssl.io.image_tree import SPLITS, Tree, read_plain_folder, read_tree


def _counts(tree: Tree) -> dict[str, int]:
    return {name: len(items) for name, items in tree.sections.items() if items}


def _messages(tree: Tree) -> str:
    return "; ".join(fault.message for fault in tree.faults)


def test_splits_and_classes_come_from_folders_at_any_depth(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 2, "train/cat/deep/er": 1, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    write_tree(tmp_path, {"test/cat": 1, "test/dog": 1, "unlabelled/a/b": 3, "unlabelled": 1})
    tree = read_tree(tmp_path)
    assert _counts(tree) == {"training": 5, "validation": 2, "test": 2, "unlabeled": 4}
    assert tree.classes == {name: ["cat", "dog"] for name in ("training", "validation", "test")}
    first = tree.sections["training"][0]
    assert (first.name, first.label, first.path) == ("train/cat/1.png", "cat", tmp_path / "train/cat/1.png")
    assert {item.label for item in tree.sections["unlabeled"]} == {None}
    assert not tree.faults


@pytest.mark.parametrize("name", [*SPLITS, "Train", "TEST"])
def test_all_spellings_of_a_split_are_known(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {"train/a": 1} if SPLITS[name.lower()] != "training" else {})
    write_tree(tmp_path, {f"{name}/a": 2})
    assert _counts(read_tree(tmp_path))[SPLITS[name.lower()]] == 2


def test_folders_of_classes_alone_are_all_for_training(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cat": 2, "dog": 2, "unlabeled_images": 3})
    assert _counts(read_tree(tmp_path)) == {"training": 4, "unlabeled": 3}


def test_hidden_and_other_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    write_tree(
        tmp_path, {"train/cat": 1, "train/dog": 1, "train/.git": 1, "train/cat/__MACOSX": 1, "notes": 0}
    )
    for name in ("read.me", ".DS_Store", "train/Thumbs.db", "train/cat/labels.txt", "train/cat/._1.png"):
        (tmp_path / name).write_text("x")
    save_picture(tmp_path / "overview.png")
    os.mkfifo(tmp_path / "train/dog/pipe.png")
    tree = read_tree(tmp_path)
    assert _counts(tree) == {"training": 2}
    assert (tree.ignored, tree.faults) == (10, [])


PASSED_OVER = ("train/cat/moving.gif", "train/cat/a.webp", "train/dog/scan", "unlabelled/1.png.bak")


def test_files_that_may_be_images_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 1, "unlabelled": 1})
    notes = (
        "readme",
        "README.md",
        "labels.csv",
        "train/notes.json",
        "train/cat/Thumbs.db",
        "unlabelled/.x.png",
    )
    for name in (*PASSED_OVER, *notes, "train/loose.webp"):
        (tmp_path / name).write_bytes(b"GIF89a")
    save_picture(tmp_path / "overview.png")
    tree = read_tree(tmp_path)
    assert _counts(tree) == {"training": 2, "unlabeled": 1}
    assert sorted(tree.passed_over) == sorted((*PASSED_OVER, "train/loose.webp", "overview.png"))
    assert tree.ignored == len(tree.passed_over) + len(notes)


def test_a_class_of_files_that_are_not_read_says_which(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 0})
    for number in range(5):
        (tmp_path / f"train/dog/{number}.webp").write_bytes(b"RIFF")
    found = "train/dog/0.webp, train/dog/1.webp, train/dog/2.webp and 2 more"
    assert _messages(read_tree(tmp_path)) == (
        f"the class folder 'train/dog' holds no image that is read, but {found}"
    )


def test_dicom_without_a_suffix_is_read(tmp_path: Path) -> None:
    """As disks of scanners hold it."""
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 0})
    for name in ("IM0001", "1.2.840.113619.2", "DICOMDIR", "scan.bak"):
        (tmp_path / "train/dog" / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "train/dog/IM0002").write_bytes(bytes(200))
    (tmp_path / "train/dog/IM0003").symlink_to("IM0001")
    (tmp_path / "train/dog/IM0004").symlink_to("never")
    tree = read_tree(tmp_path)
    assert [item.path.name for item in tree.sections["training"]] == [
        "1.png",
        "1.2.840.113619.2",
        "IM0001",
        "IM0003",
    ]
    assert tree.passed_over == [f"train/dog/{name}" for name in ("IM0002", "IM0004", "scan.bak")]
    (tmp_path / "train/IM0001").write_bytes(bytes(128) + b"DICM")
    assert "1 images lie directly in train" in _messages(read_tree(tmp_path))


def test_names_with_blanks_and_other_letters_are_read(tmp_path: Path) -> None:
    write_tree(tmp_path / "Bilder für Ömer", {"train/gut artig": 1, "train/бэ": 1, "train/細胞": 1})
    tree = read_tree(tmp_path / "Bilder für Ömer")
    assert tree.classes["training"] == ["gut artig", "бэ", "細胞"]


def test_one_class_spelled_with_composed_and_with_single_letters_is_one(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/Caf\u00e9": 1, "train/b": 1, "val/Cafe\u0301": 1, "val/b": 1})
    tree = read_tree(tmp_path)
    assert sorted(tree.classes["training"]) == sorted(tree.classes["validation"])


def test_an_empty_class_folder_is_a_fault(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 0, "test/cat/sub": 0})
    assert _messages(read_tree(tmp_path)) == (
        "the class folder 'test/cat' holds no image; the class folder 'train/dog' holds no image"
    )


def test_images_in_no_folder_of_a_class_are_a_fault(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train": 3})
    assert _messages(read_tree(tmp_path)) == "3 images lie directly in train, in no folder of a class"


def test_a_stray_folder_of_images_beside_the_splits_is_a_fault(tmp_path: Path) -> None:
    """D14."""
    write_tree(tmp_path, {"train/cat": 1, "tset/cat": 2, "masks": 1})
    assert _messages(read_tree(tmp_path)) == (
        "the folder 'masks' with 1 images is no split (train, val, test, unlabelled); "
        "the folder 'tset' with 2 images is no split; did you mean 'test'?"
    )


def test_two_folders_for_one_split_are_a_fault(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 1, "val/a": 1, "valid/a": 1})
    assert "'val' and 'valid' both hold validation images" in _messages(read_tree(tmp_path))


def test_splits_inside_of_classes_are_a_fault(tmp_path: Path) -> None:
    """All images of CLASS/test would be trained on."""
    write_tree(tmp_path, {"cat/train": 1, "cat/test": 1, "dog/train": 1})
    assert "the class folder 'cat' holds a folder 'test'; expected test/cat" in _messages(read_tree(tmp_path))


def test_links_to_files_below_the_folder_are_followed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 1})
    (tmp_path / "train/cat/link.png").symlink_to(tmp_path / "train/dog/1.png")
    assert _counts(read_tree(tmp_path)) == {"training": 3}


def test_links_that_leave_the_folder_are_faults(tmp_path: Path) -> None:
    elsewhere = save_picture(tmp_path / "elsewhere/cat/1.png")
    root = write_tree(tmp_path / "data", {"train/dog": 1, "train/cow": 1})
    (root / "train/dog/2.png").symlink_to(elsewhere)
    (root / "train/cat").symlink_to(elsewhere.parent)
    tree = read_tree(root)
    assert "the link 'train/cat' leaves the folder" in _messages(tree)
    assert "the link 'train/dog/2.png' leaves the folder" in _messages(tree)
    allowed = read_tree(root, allow_outside=True)
    assert (_counts(allowed), allowed.faults) == ({"training": 4}, [])


def test_links_that_lead_nowhere_are_faults(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1})
    (tmp_path / "train/cat/gone.png").symlink_to("never.png")
    (tmp_path / "train/cat/self.png").symlink_to("self.png")
    assert _messages(read_tree(tmp_path)).count("leads nowhere") == 2


def test_folders_linked_in_a_circle_end(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 2, "train/dog": 2})
    (tmp_path / "train/cat/up").symlink_to(tmp_path / "train")
    (tmp_path / "train/dog/here").symlink_to(".")
    (tmp_path / "train/dog/self").symlink_to("self")
    tree = read_tree(tmp_path)
    assert _counts(tree) == {"training": 4}
    assert (tree.faults, tree.ignored) == ([], 3)


def test_a_folder_linked_twice_is_taken_once(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 2, "train/dog": 2})
    (tmp_path / "val").symlink_to("train")
    tree = read_tree(tmp_path)
    assert _counts(tree) == {"training": 4}


def test_a_linked_root_is_a_root(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"cat": 1, "dog": 1})
    (tmp_path / "link").symlink_to("data")
    assert read_tree(tmp_path / "link").sections["training"][0].path == tmp_path / "link/cat/1.png"


def test_a_closed_folder_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"train/cat": 1, "train/dog": 1})
    scandir = os.scandir

    def closed(folder: Path) -> object:
        if folder.name == "cat":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    assert "'train/cat' cannot be looked into (Permission denied)" in _messages(read_tree(tmp_path))


def test_a_folder_without_classes_gives_all_its_images(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/cat": 1, "any": 1, ".": 1})
    tree = read_plain_folder(tmp_path, prefix="pool/")
    assert [item.name for item in tree.sections["unlabeled"]] == [
        "pool/1.png",
        "pool/any/1.png",
        "pool/train/cat/1.png",
    ]


def test_names_that_are_no_utf_8_are_a_fault(tmp_path: Path) -> None:
    """A table of predictions could not hold them."""
    root = write_tree(tmp_path, {"train/a": 1, "train/b": 1})
    strange = os.fsencode(root / "train" / "a") + b"/\xe4pfel.png"
    try:
        Path(os.fsdecode(strange)).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such names")
    (fault,) = read_tree(root).faults
    assert "1 names in 'train/a' are no UTF-8, first '\\udce4pfel.png'" in fault.message
