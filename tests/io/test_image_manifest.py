from collections.abc import Callable
from pathlib import Path

import pytest
from image_trees import save_picture, write_tree

from medssl.errors import DatalistError, InputError
from medssl.io.image_cohort import read_image_cohort
from medssl.io.image_manifest import read_manifest, write_manifest
from medssl.io.image_tree import Tree

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a manifest beside images 1.png, 2.png and sub dir/3.png."""
    write_tree(tmp_path / "data", {".": 2})
    save_picture(tmp_path / "data/sub dir/3.png")

    def text(*lines: str, header: str = "path,label,split", encoding: str = "utf-8") -> Path:
        path = tmp_path / "data/images.csv"
        path.write_text("\n".join((header, *lines)) + "\n", encoding=encoding)
        return path

    return text


def _messages(tree: Tree) -> str:
    return "; ".join(fault.message for fault in tree.faults)


def test_lines_become_images(write: Write) -> None:
    path = write(
        "1.png,cat,train,p1,2.5",
        "sub dir/3.png,dog,val,,",
        "2.png,,,p2,",
        header="path,label,split,group,weight",
    )
    tree = read_manifest(path)
    (first,), (second,), (third,) = (tree.sections[name] for name in ("training", "validation", "unlabeled"))
    assert (first.label, first.group, first.weight, first.name) == ("cat", "p1", 2.5, "1.png")
    assert (second.path, second.group, second.weight) == (path.parent / "sub dir/3.png", None, 1.0)
    assert (third.label, third.group) == (None, "p2")
    assert (tree.faults, tree.by_folder) == ([], False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_may_stand_in_any_order_beside_others(write: Write, encoding: str) -> None:
    path = write('1.png,train,"a, ü",x', header="path , split,label ,note", encoding=encoding)
    assert read_manifest(path).sections["training"][0].label == "a, ü"


def test_backslashes_separate_folders(write: Write) -> None:
    assert read_manifest(write(r"sub dir\3.png,a,train")).sections["training"][0].name == "sub dir/3.png"


@pytest.mark.parametrize("split", ["", "train", "unlabelled"])
def test_an_image_without_label_is_unlabeled(write: Write, split: str) -> None:
    tree = read_manifest(write(f"1.png,,{split}"))
    assert (len(tree.sections["unlabeled"]), tree.faults) == (1, [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1.png,a,tset", "line 2 (1.png) has the split 'tset'; expected train"),
        ("1.png,a,", "has the split ''"),
        ("1.png,,test", "has no label, but is for test"),
        ("1.png,a,unlabeled", "is unlabeled, but has the label 'a'"),
        ("9.png,a,train", "is no file that is there"),
        (",a,train", "has no path"),
        ("1.png,a,train,,-1", "has the weight '-1'; expected a number above 0"),
        ("1.png,a,train,,nan", "has the weight 'nan'"),
        ("1.png,a,train,,inf", "has the weight 'inf'"),
        ("1.png,a,train,,much", "has the weight 'much'"),
        ("../data/1.png,a,train", "lies outside"),
        ("sub dir/../../data/1.png,a,train", "lies outside"),
        ("C:/images/1.png,a,train", "lies outside"),
    ],
)
def test_bad_lines_are_faults(write: Write, line: str, words: str) -> None:
    assert words in _messages(read_manifest(write(line, header="path,label,split,group,weight")))


def test_absolute_paths_and_links_outside_are_refused_until_allowed(write: Write, tmp_path: Path) -> None:
    elsewhere = save_picture(tmp_path / "elsewhere/4.png")
    (tmp_path / "data/link.png").symlink_to(elsewhere)
    (tmp_path / "data/folder").symlink_to(elsewhere.parent)
    path = write(
        f"{elsewhere},a,train", "link.png,a,train", "folder/4.png,a,train", "../elsewhere/4.png,a,train"
    )
    assert _messages(read_manifest(path)).count("lies outside") == 4
    assert not read_manifest(path, allow_outside=True).faults


def test_an_absolute_path_is_refused_wherever_it_leads(write: Write, tmp_path: Path) -> None:
    assert "lies outside" in _messages(read_manifest(write(f"{tmp_path / 'data/1.png'},a,train")))


def test_a_file_named_twice_is_a_fault(write: Write) -> None:
    tree = read_manifest(write("1.png,a,train", "./1.png,b,train"))
    assert "line 3 (./1.png) names the same file as line 2" in _messages(tree)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("path,split", r"no column label among path, split.*must read path,label,split"),
        ("path;label;split", "no column path, label, split among path;label;split"),
        ("path,label,split,weigth", "'weigth' is unknown; did you mean 'weight'"),
    ],
)
def test_a_wrong_header_is_refused(write: Write, header: str, words: str) -> None:
    with pytest.raises(DatalistError, match=words):
        read_manifest(write(header=header))


def test_what_is_no_text_is_refused(write: Write) -> None:
    path = write()
    path.write_bytes(b"path,label,split\n\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a manifest"):
        read_manifest(path)


def test_a_written_manifest_gives_the_same_cohort(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "data, ü", {"train/a": 2, "train/b": 1, "val/a": 1, "val/b": 1, "unlabeled": 1}
    )
    cohort = read_image_cohort(root)
    write_manifest(tmp_path / "run/images.csv", cohort)
    with pytest.raises(DatalistError, match=r"6 faults.*allow-outside"):
        read_image_cohort(tmp_path / "run")
    again = read_image_cohort(tmp_path / "run", allow_outside=True)
    assert again.classes == cohort.classes
    for (section, one), (other_section, other) in zip(cohort.placed(), again.placed(), strict=True):
        assert (section, one.label, one.path) == (other_section, other.label, other.path.resolve())


def test_group_and_weight_survive(write: Write) -> None:
    path = write("1.png,a,train,p,0.1", "2.png,b,train,,3", header="path,label,split,group,weight")
    cohort = read_image_cohort(path)
    write_manifest(path, cohort)
    assert read_image_cohort(path) == cohort
