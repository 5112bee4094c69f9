import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import InputError, OutputError
from medssl.io import files


def test_atomic_path_keeps_the_extension_and_leaves_only_the_final_file(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "new/sub-01_dseg.nii.gz") as path:
        path.write_bytes(b"1")
        assert path.name.endswith("sub-01_dseg.nii.gz")
        assert not (tmp_path / "new/sub-01_dseg.nii.gz").exists()
        written = path.stat().st_ino
    assert (tmp_path / "new/sub-01_dseg.nii.gz").stat().st_ino == written, "renamed, not copied"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sub-01_dseg.nii.gz"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, OSError])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    final = tmp_path / "table.tsv"
    final.write_text("old")

    def write_half() -> None:
        with files.atomic_path(final) as path:
            path.write_text("half")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_full_disk_is_named_with_its_folder(tmp_path: Path) -> None:
    def fill_disk() -> None:
        with files.atomic_path(tmp_path / "a.json"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=rf"{tmp_path}.*No space left.*free some space"):
        fill_disk()
    assert list(tmp_path.iterdir()) == []


def test_writing_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Cannot write to .*file.*Choose another folder"):
        files.write_text(tmp_path / "file/a.txt", "x")


def test_json_keeps_numbers_and_turns_nan_into_null(tmp_path: Path) -> None:
    value = {
        "a": np.float32(0.5),
        "b": (1, np.int64(2)),
        "c": float("nan"),
        "d": Path("x/y"),
        "e": np.arange(2),
    }
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == {"a": 0.5, "b": [1, 2], "c": None, "d": "x/y", "e": [0, 1]}


def test_broken_json_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n "a": }')
    with pytest.raises(InputError, match=r"a\.json .*line 2, column 7"):
        files.read_json(tmp_path / "a.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*none\.json: No such file.*Check the path"):
        files.read_json(tmp_path / "none.json")


def test_tsv_round_trip_with_empty_and_undefined_cells(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.123456789, "name": "a\tb"}, {"step": np.int64(2), "loss": float("nan")}]
    files.write_tsv(tmp_path / "a.tsv", rows, ["step", "loss", "name"])
    assert (tmp_path / "a.tsv").read_bytes() == b"step\tloss\tname\n1\t0.1234568\ta b\n2\tn/a\t\n"
    assert files.read_tsv(tmp_path / "a.tsv")[1] == {"step": "2", "loss": "n/a", "name": ""}


def test_tsv_refuses_a_column_that_the_header_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'dice'.*'step'"):
        files.write_tsv(tmp_path / "a.tsv", [{"step": 1, "dice": 1}], ["step"])
    assert not (tmp_path / "a.tsv").exists()


def test_tsv_row_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("index\tname\n1 GM\n")
    with pytest.raises(InputError, match=r"a\.tsv.*1 cells.*has 2"):
        files.read_tsv(tmp_path / "a.tsv")


def test_empty_tsv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("")
    with pytest.raises(InputError, match=r"a\.tsv is empty"):
        files.read_tsv(tmp_path / "a.tsv")


def test_binary_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"index\xff\xfe")
    with pytest.raises(InputError, match=r"a\.tsv is no UTF-8"):
        files.read_tsv(tmp_path / "a.tsv")


def test_sha256_equals_hashlib_over_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read"):
        files.sha256(tmp_path / "a")


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "a", []
    monkeypatch.setattr(files, "sha256", lambda one: read.append(one) or Path(one).read_text())
    for number, content in enumerate(("1", "2", "33"), start=1):
        path.write_text(content)
        os.utime(path, (10, 10))  # as copies do that keep the time
        assert files.sha256_once(path) == files.sha256_once(path) == content
        assert len(read) == number
    with pytest.raises(InputError, match="Cannot read"):
        files.sha256_once(tmp_path / "b")


@pytest.mark.parametrize("now", [{"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "b": "2", "c": "4"}])
def test_changed_gone_and_new_files_are_named(now: dict[str, str]) -> None:
    before = {"a": "1", "b": "2"}
    files.require_same_hashes(before, dict(before), "noon")
    (name,) = (name for name in "abc" if before.get(name) != now.get(name))
    with pytest.raises(InputError, match=rf"^The data changed since noon: {name}\. Put the files back"):
        files.require_same_hashes(before, now, "noon")


def test_of_many_changed_files_five_are_named() -> None:
    with pytest.raises(InputError, match=r"noon: 0, 1, 2, 3, 4 and 2 more\."):
        files.require_same_hashes({str(n): "1" for n in range(7)}, {}, "noon")


@pytest.mark.parametrize("out", ["data", "data/results", "data/sub-01/anat"])
def test_output_inside_the_input_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(OutputError, match=r"inside the input folder .*data.*Choose one outside"):
        files.require_writable_folder(tmp_path / out, [tmp_path / "data"])
    assert list((tmp_path / "data").iterdir()) == []


def test_output_beside_a_datalist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "datalist.json").write_text(json.dumps({}))
    with pytest.raises(OutputError, match="inside the input folder"):
        files.require_writable_folder(tmp_path / "out", [tmp_path / "datalist.json"])


def test_output_beside_single_images_is_accepted_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "T1w.nii.gz").write_text("")
    files.require_writable_folder(tmp_path / "out/deep", [tmp_path / "T1w.nii.gz"])
    assert not (tmp_path / "out").exists()


def test_read_only_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match=rf"{tmp_path}/out cannot be written to: {tmp_path} is read-only"):
        files.require_writable_folder(tmp_path / "out")


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out is a file"):
        files.require_writable_folder(tmp_path / "out")


@pytest.mark.parametrize("name", ["images.csv", "one.png"])
def test_a_file_may_lie_beside_a_list_or_a_single_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    files.require_writable_file(tmp_path / "table.csv", [tmp_path / name])


@pytest.mark.parametrize("out", ["table.csv", "train/table.csv"])
def test_a_file_inside_a_folder_of_images_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(OutputError, match="lies inside the input folder"):
        files.require_writable_file(tmp_path / "images" / out, [tmp_path / "images"])


def test_comma_separated_tables_come_back_whatever_the_names_hold(tmp_path: Path) -> None:
    rows = [{"path": 'a, "b"  c.png', "p": 0.25}, {"path": "zwei\nZeilen ä.png", "p": None}]
    files.write_csv(tmp_path / "t.csv", rows, ["path", "p"])
    assert files.read_csv(tmp_path / "t.csv") == [
        {"path": 'a, "b"  c.png', "p": "0.25"},
        {"path": "zwei\nZeilen ä.png", "p": ""},
    ]


@pytest.mark.parametrize("text", ["", "a,b\n1\n", "a,b\n1,2,3\n"])
def test_ragged_comma_separated_tables_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"t\.csv is no comma-separated table"):
        files.read_csv(tmp_path / "t.csv")
