import json
import os
import socket
from pathlib import Path

import pytest

from medssl.errors import ConfigError, OutputError
from medssl.io.subjects import Subject
from medssl.workflows.shards import Shard, only_writer, only_writer_of_tables, shard_of_text


def subjects(*names):
    return [Subject(name, (Path(f"{name}_T1w.nii.gz"),)) for name in names]


def names(found):
    return [subject.subject for subject in found]


def held_by_another(out, number, count):
    out.mkdir(exist_ok=True)
    told = {"process": os.getppid(), "host": socket.gethostname(), "since": "2026-11-22T01:02:03"}
    (out / f".medssl-shard-{number}-of-{count}.lock").write_text(json.dumps(told))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_all_subjects_out_once(count):
    cohort = subjects("e", "b", "a", "d", "c")
    parts = [names(Shard(number, count).of(cohort)) for number in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == ["a", "b", "c", "d", "e"]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_of_the_files_does_not_decide_who_does_what():
    one, other = subjects("a", "b", "c", "d"), subjects("c", "a", "d", "b")
    assert names(Shard(1, 2).of(one)) == ["a", "c"]
    assert names(Shard(1, 2).of(other)) == ["c", "a"]


def test_the_whole_keeps_the_order_of_the_cohort():
    assert names(Shard().of(subjects("c", "a", "b"))) == ["c", "a", "b"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "1", "1/", "/3", "1/2/3", "-1/3", "1.5/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ConfigError, match=r"is no shard.*expected I/N with I from 1 to N"):
        shard_of_text(text)


def test_a_shard_is_read_from_text_and_written_as_text():
    assert shard_of_text("2/3") == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"


def test_processes_divide_a_shard_further():
    parts = [Shard(number, 2).divided(rank, 3) for number in (1, 2) for rank in range(3)]
    assert parts == [Shard(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_beyond_the_world_is_refused(rank, ranks):
    with pytest.raises(ConfigError, match=f"RANK {rank} where WORLD_SIZE is {ranks}"):
        Shard().divided(rank, ranks)


def test_one_process_at_a_time_writes_a_shard(tmp_path):
    held_by_another(tmp_path, 2, 3)
    told = r"Shard 2/3 in .* is being written by process \d+ .*delete "
    with pytest.raises(OutputError, match=told), only_writer(tmp_path, Shard(2, 3)):
        pytest.fail("two processes write one shard")


def test_shards_of_one_division_are_written_side_by_side(tmp_path):
    held_by_another(tmp_path, 2, 3)
    with only_writer(tmp_path, Shard(1, 3)):
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mine", [Shard(), Shard(1, 2)])
def test_another_division_is_refused_since_it_has_the_same_subjects(tmp_path, mine):
    held_by_another(tmp_path, 2, 3)
    with pytest.raises(OutputError, match=r"Shard 2/3 in .* is being written"), only_writer(tmp_path, mine):
        pytest.fail("two processes write the same subjects")
    assert [path.name for path in tmp_path.iterdir()] == [".medssl-shard-2-of-3.lock"]


def test_a_shard_is_refused_while_the_whole_is_written(tmp_path):
    held_by_another(tmp_path, 1, 1)
    with (
        pytest.raises(OutputError, match=r"The folder .* is being written"),
        only_writer(tmp_path, Shard(1, 3)),
    ):
        pytest.fail("two processes write the same subjects")


def test_nothing_stays_behind(tmp_path):
    with only_writer(tmp_path / "out", Shard(1, 3)), only_writer_of_tables(tmp_path / "out"):
        assert len(list((tmp_path / "out").iterdir())) == 2
    assert not list((tmp_path / "out").iterdir())
