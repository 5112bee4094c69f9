from pathlib import Path

import pytest

from medssl.inference.memory import available_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a root whose machine has 8 GiB available and whose process is in no limited group."""
    write(tmp_path, "proc/meminfo", f"MemTotal: 99 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit_v2(root: Path, group: str, limit: str, used: int, cache: int = 0) -> None:
    folder = f"sys/fs/cgroup/{group}"
    write(root, f"{folder}/memory.max", f"{limit}\n")
    write(root, f"{folder}/memory.current", f"{used}\n")
    write(root, f"{folder}/memory.stat", f"anon 5\ninactive_file {cache}\n")


def test_without_limits_it_is_what_the_machine_has(machine):
    assert available_memory(machine) == 8 * GIB


def test_version_2_limit_counts_less_what_is_used(machine):
    write(machine, "proc/self/cgroup", "0::/job\n")
    limit_v2(machine, "job", str(4 * GIB), used=GIB)
    assert available_memory(machine) == 3 * GIB


def test_droppable_cache_is_free(machine):
    write(machine, "proc/self/cgroup", "0::/job\n")
    limit_v2(machine, "job", str(4 * GIB), used=3 * GIB, cache=2 * GIB)
    assert available_memory(machine) == 3 * GIB


def test_the_tightest_group_on_the_way_up_decides(machine):
    write(machine, "proc/self/cgroup", "0::/user/job\n")
    limit_v2(machine, "user/job", "max", used=GIB)
    limit_v2(machine, "user", str(2 * GIB), used=GIB)
    assert available_memory(machine) == GIB


def test_limit_at_the_mount_counts_where_a_container_hides_the_path(machine):
    write(machine, "proc/self/cgroup", "0::/docker/123\n")
    limit_v2(machine, "", str(2 * GIB), used=GIB)
    assert available_memory(machine) == GIB


def test_version_1_limit(machine):
    write(machine, "proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{3 * GIB}\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{2 * GIB}\n")
    write(machine, "sys/fs/cgroup/memory/job/memory.stat", f"total_inactive_file {GIB // 2}\n")
    assert available_memory(machine) == GIB + GIB // 2


def test_more_used_than_allowed_leaves_nothing(machine):
    limit_v2(machine, "", str(GIB), used=2 * GIB)
    assert available_memory(machine) == 0


def test_without_proc_half_of_the_machine_is_assumed(tmp_path):
    assert available_memory(tmp_path) > 0


def test_this_machine_has_memory():
    assert available_memory() > 2**26
