"""The benchmarks of speed run from end to end in their quick form, and the page's tables come from their JSON."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from medssl.inference.machine import has_bfloat16

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "performance.md"


@pytest.fixture
def tables():
    spec = spec_from_file_location("performance_tables", BENCHMARKS / "performance_tables.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report_of(name, folder, *more):
    path = folder / f"{name}.json"
    command = [sys.executable, "-W", "ignore", BENCHMARKS / f"{name}.py", "--quick", "--json", path, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = spec_from_file_location("scaling_benchmark", BENCHMARKS / "scaling.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scaling_measures_voxels_subjects_and_processes(tmp_path, tables, scaling, monkeypatch, capsys):
    def together(commands, place, environment):
        """Stand in for `medssl segment`: 10 s, and 2 s for each subject of the folder, shared by the processes."""
        subjects = len(list(Path(commands[0][4]).glob("sub-*")))
        return [(10 + 2 * subjects / len(commands), 500 + subjects) for _ in commands]

    monkeypatch.setattr(scaling, "together", together)
    monkeypatch.setattr("sys.argv", ["scaling.py", "--quick", "--json", str(tmp_path / "scaling.json")])
    scaling.main()
    report = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["voxels"] for row in report["voxels"]["rows"]] == [32**3, 48**3, 64**3]
    assert [row["seconds"]["median"] for row in report["small_pairs"]["rows"]] == [12, 14]
    assert [row["seconds"]["median"] for row in report["processes"]] == [14, 12]
    assert report["large_pairs"]["mib_a_subject"]["slope"] == pytest.approx(1)
    assert report["forecast"]["hours_one_process"] == pytest.approx(2010 / 3600)
    assert report["forecast"]["hours_two_processes"] == pytest.approx(2010 * 12 / 14 / 3600)
    assert "A forecast, not a measurement: 1000 pairs" in tables.scaling(report)


def test_processes_run_at_the_same_time_and_tell_their_own_peak(scaling, tmp_path):
    greedy = [sys.executable, "-c", "import time; x = bytearray(200 * 2**20); time.sleep(1)"]
    modest = [sys.executable, "-c", "import time; time.sleep(1)"]
    (seconds, much), (_, little) = scaling.together([greedy, modest], tmp_path, {})
    assert seconds >= 1
    assert much - little > 150


def test_a_process_that_fails_ends_the_measurement_with_its_message(scaling, tmp_path):
    with pytest.raises(SystemExit, match="no such scans"):
        scaling.together([[sys.executable, "-c", "raise SystemExit('no such scans')"]], tmp_path, {})


@pytest.mark.slow
def test_margins_are_held_to_the_whole_volume(tmp_path, tables):
    report = report_of("margin", tmp_path)
    rows = {row["margin"]: row for row in report["rows"]}
    assert set(rows["whole volume"]["labels_changed_percent"].values()) == {0}
    assert rows["0"]["labels_changed_percent"]["mean"] > 0
    voxels = [row["million_voxels"]["mean"] for row in report["rows"]]
    assert voxels[0] <= voxels[1] < voxels[2] <= voxels[3]
    table = tables.margin(report)
    first = [line.split(" | ")[0] for line in table.splitlines()[-5:]]
    assert first == [
        "| 0, scan cut at the brain",
        "| 0",
        "| 16",
        "| whole volume",
        "| windows of 32, overlap 0.25",
    ]


@pytest.mark.slow
def test_what_a_gpu_is_asked_for_runs_on_a_cpu_too(tmp_path):
    report = report_of("inference_gpu", tmp_path, "--device", "cpu")
    rows = {row["method"]: row for row in report["rows"]}
    assert len(rows) == 2 * 2 + 2 * 3  # precisions and layouts, precisions and batches
    assert rows["one pass, float32, channels first"]["labels_changed_percent"] < 0.1
    batches = [
        rows[f"MONAI sliding window 32^3, overlap 0.25, float32, {batch} at once"] for batch in (1, 4, 16)
    ]
    assert [row["mean_dice"] for row in batches] == pytest.approx([batches[0]["mean_dice"]] * 3, abs=1e-3)
    assert rows["one pass, float32, channels last"]["times_ours"] == 1


def test_without_a_gpu_that_benchmark_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, BENCHMARKS / "inference_gpu.py", "--quick"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No GPU: found none that torch can use" in done.stderr


def test_a_table_is_replaced_between_its_markers(tables):
    page = "before\n<!-- scaling -->\nold\n<!-- end of scaling -->\nafter\n"
    once = tables.replaced(page, "scaling", "| new |\n")
    assert once == "before\n<!-- scaling -->\n| new |\n<!-- end of scaling -->\nafter\n"
    assert tables.replaced(once, "scaling", "| new |\n") == once


def test_a_page_without_the_markers_is_refused(tables):
    with pytest.raises(SystemExit, match="no place for the table 'scaling'"):
        tables.replaced("nothing", "scaling", "| new |\n")


def test_the_page_has_a_place_for_every_table(tables):
    text = PAGE.read_text()
    assert {name for names in tables.TAUGHT.values() for name in names} == set(tables.TABLES)
    for name in tables.TABLES:
        assert "<!-- x -->" not in tables.replaced(text, name, "")


def test_a_line_through_points_and_how_well_it_fits(scaling):
    assert scaling.line([1, 2, 3], [5, 7, 9]) == pytest.approx({"slope": 2, "at_zero": 3, "r_squared": 1})
    assert scaling.line([1, 2], [5, 7])["r_squared"] is None
    assert scaling.line([0, 1, 2], [0, 3, 0])["r_squared"] == pytest.approx(0)


def test_table_of_deep_windows_gives_each_scan_and_the_share_of_time(tables):
    rows = [
        {"way": "one pass, no windows", "dice": [0.5, 0.25], "mean_dice": 0.375, "seconds": [2.0, 2.0]},
        {"way": "scale 4 in windows", "dice": [0.75, 0.5], "mean_dice": 0.625, "seconds": [2.0, 3.0]},
    ]
    load = {"load_average": [0.5], "load_average_at_the_end": [1.5]}
    machine = {"processor": "a processor", "threads": 2, "backends": {"torch": "2"}, **load}
    lines = tables.TABLES["deep_windows"]({"rows": rows, "machine": machine}).splitlines()
    assert lines[0].startswith(
        "a processor, 2 threads, torch 2; load average at the start and the end 0.5 to 1.5."
    )
    assert lines[4:] == [
        "| one pass, no windows | 0.5000 / 0.2500 | 0.3750 | 1.00 (1.00 to 1.00) |",
        "| scale 4 in windows | 0.7500 / 0.5000 | 0.6250 | 1.25 (1.00 to 1.50) |",
    ]


@pytest.mark.parametrize("name", ["classification", "performance"])
def test_the_tables_of_a_page_are_those_of_the_json(tmp_path, name):
    """The script changes nothing on the page as it is; a page without its markers is refused."""
    page = tmp_path / "page.md"
    before = (PAGE.parent / f"{name}.md").read_text(encoding="utf-8")
    page.write_text(before, encoding="utf-8")
    command = [sys.executable, BENCHMARKS / f"{name}_tables.py", "--page", page]
    assert subprocess.run(command, check=False).returncode == 0
    assert page.read_text(encoding="utf-8") == before
    page.write_text("", encoding="utf-8")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_the_gate_is_asked_of_bfloat16_where_the_processor_has_it(tmp_path, tables, needs):
    needs("openvino")
    if not has_bfloat16(torch.device("cpu")):
        command = [sys.executable, BENCHMARKS / "bfloat16_gate.py", "--json", tmp_path / "none.json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        assert "no bfloat16" in done.stdout
        assert not (tmp_path / "none.json").exists()
        return
    report = report_of("bfloat16_gate", tmp_path)
    rows = {row["way"]: row for row in report["rows"]}
    used = {"OpenVINO": "first, last and wide transposed ones", "torch": "first and last"}
    for library, kept in used.items():
        exact, throughout, in_use = (
            rows[f"{library}, {way}"]
            for way in ("float32", "bfloat16 throughout, nearest", f"{kept}, sums kept (in use)")
        )
        assert exact["dice_loss"] == dict.fromkeys(exact["dice_loss"], 0)
        changed = [sum(row["labels_changed_percent"].values()) for row in (throughout, in_use)]
        assert changed[0] > 1.3 * changed[1] > 0
    assert "| torch, first and last, sums kept (in use) |" in tables.bfloat16_gate(report)


def test_passes_in_training_are_timed_by_precision_and_layout(tmp_path, tables):
    report = report_of("training_precision", tmp_path)
    rows = {(row["network"], row["way"]): row for row in report["rows"]}
    assert {network for network, _ in rows} == {"dense-fcn", "basic-unet"}
    for network in ("dense-fcn", "basic-unet"):
        assert rows[network, "float32"]["gradient_error"] == {"median": 0, "worst": 0}
        assert 0 < rows[network, "float32, channels last"]["gradient_error"]["median"] < 0.1
    assert "| dense-fcn, 4 x 32 x 32 x 32 | float32, channels last |" in tables.training_precision(report)


def test_steps_that_keep_what_they_free_are_held_to_steps_that_do_not(tmp_path, tables):
    report = report_of("freed_memory", tmp_path)
    assert list(report["rows"]) == ["vgg-small-28, 256 x 28 x 28"]
    text = tables.freed_memory(report)
    assert "| vgg-small-28, 256 x 28 x 28 | " in text
    assert "n = 1" in text


@pytest.mark.slow
def test_the_profile_of_a_call_names_its_steps_and_what_ran(tmp_path, tables):
    report = report_of("segment_profile", tmp_path)
    assert sum(report["percent"].values()) == pytest.approx(100, abs=1e-6)
    assert report["percent"]["the network"] > 0
    assert report["backend"].split()[0] in {"torch", "openvino", "onnxruntime"}
    assert "| the network |" in tables.segment(report)
