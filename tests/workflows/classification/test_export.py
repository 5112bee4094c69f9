"""Exported files answer as the network does, int8 passes its gate or is not written, and bench says what fits."""

import json
import math
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import write_pictures

from medssl.errors import CheckpointError, ConfigError, DatalistError, InputError, MedsslError, OutputError
from medssl.evaluation.operating_points import NOTHING
from medssl.evaluation.pareto import Candidate
from medssl.inference.latency import Latency
from medssl.inference.onnx_classifier import Parity
from medssl.inference.onnx_model import change_card
from medssl.inference.onnx_runner import FILES, OnnxClassifier
from medssl.inference.openvino_classifier import OpenVinoClassifier
from medssl.inference.standalone import PREFERRED, probabilities_of
from medssl.io.image_cohort import read_image_cohort
from medssl.workflows.classification import bench, export
from medssl.workflows.classification.bench import bench_exports, choose, slow_files
from medssl.workflows.classification.evaluate import evaluate_classifier, images_of_run, write_evaluation
from medssl.workflows.classification.export import export_run
from medssl.workflows.classification.models import BACKENDS, load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_folder
from medssl.workflows.classification.report import write_report
from medssl.workflows.classification.seen_images import ROLES
from medssl.workflows.classification.thresholds import Promise, require_promise, spoken

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def exported(compared):
    """Read only."""
    run = compared[0].training.run
    return export_run(run, run.parent / "files", int8=True)


def test_the_file_answers_as_the_network_does(exported, compared, pictures, tmp_path):
    assert exported.parity.passed
    run = compared[0].training.run
    network = predict_folder(pictures / "test", tmp_path / "a.csv", run)
    file = predict_folder(pictures / "test", tmp_path / "b.csv", exported.folder / "model.onnx")
    assert file.classes == network.classes
    assert abs(file.probabilities - network.probabilities).max() < 1e-4


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_runs_a_file_where_it_is_asked_to(exported, pictures, tmp_path):
    for file, far in (("model.onnx", 1e-4), ("model.int8.onnx", 0.1)):
        found = [
            predict_folder(
                pictures / "test", tmp_path / f"{name}-{file}.csv", exported.folder / file, backend=name
            )
            for name in BACKENDS
        ]
        assert abs(found[0].probabilities - found[1].probabilities).max() < far
    result = evaluate_classifier(pictures, exported.folder / "model.onnx", backend="openvino")
    assert isinstance(result.model.network.runner, OpenVinoClassifier)


def test_a_network_is_run_by_torch_alone(compared, pictures, tmp_path):
    with pytest.raises(ConfigError, match="torch runs it, not openvino"):
        predict_folder(pictures / "test", tmp_path / "a.csv", compared[0].training.run, backend="openvino")
    assert not (tmp_path / "a.csv").exists()


def test_few_unlabeled_images_are_not_all_that_a_file_is_compared_on(
    exported, compared, pictures, tmp_path, caplog
):
    assert exported.parity.images == 20 + 12 + 24
    write_pictures(tmp_path / "images", training=8, validation=2, test=0, unlabeled=3)
    given = compared[0].training.run
    assert export_run(given, tmp_path / "few", tmp_path / "images").parity.images == 3 + 16 + 4
    assert caplog.text.count("compared with its network on 23 images only: at least 32") == 1
    assert json.loads((tmp_path / "few" / "export.json").read_text())["parity"]["images"] == 23
    caplog.clear()
    write_pictures(tmp_path / "images", training=8, validation=2, test=0, unlabeled=70)
    assert export_run(given, tmp_path / "many", tmp_path / "images").parity.images == 64
    assert "images only" not in caplog.text


def test_files_can_answer_with_probabilities(exported, compared, pictures, tmp_path):
    """They say so, and whoever reads that does not take the softmax twice."""
    given = compared[0].training.run
    folder = export_run(given, tmp_path / "files", int8=True, softmax=True).folder
    assert json.loads((folder / "export.json").read_text())["output"] == "probabilities"
    assert json.loads((exported.folder / "export.json").read_text())["output"] == "scores"
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
    for name in [name for name in ("model.onnx", "model.int8.onnx") if (folder / name).is_file()]:
        runner = OnnxClassifier(folder / name)
        answer = runner.scores(images.astype(np.float32) / 255)
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(runner.probabilities(images), answer, atol=1e-6)
    scores = OnnxClassifier(exported.folder / "model.onnx").probabilities(images)
    np.testing.assert_allclose(OnnxClassifier(folder / "model.onnx").probabilities(images), scores, atol=1e-5)
    file = predict_folder(pictures / "test", tmp_path / "a.csv", folder / "model.onnx")
    network = predict_folder(pictures / "test", tmp_path / "b.csv", given)
    np.testing.assert_allclose(file.probabilities, network.probabilities, atol=1e-4)


def test_a_file_is_scored_as_its_network_is(exported, compared, pictures, tmp_path):
    run, file = compared[0].training.run, exported.folder / "model.onnx"
    network, scored = (
        evaluate_classifier(pictures, model, views=("identity", "hflip")) for model in (run, file)
    )
    assert scored.scores.measures == pytest.approx(network.scores.measures, abs=1e-4, nan_ok=True)
    page = write_report(tmp_path, pictures, run, network, exported=exported.folder)
    assert "exported, float32" in page.read_text()
    page = write_report(tmp_path, pictures, file, scored)
    assert "exported, float32" not in page.read_text()
    assert scored.model.weights_sha256[:16] in page.read_text()
    assert scored.model.weights_sha256 != network.model.weights_sha256


@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_exported_into_the_folder_of_the_images(compared, pictures, named):
    with pytest.raises(OutputError, match="lies inside the input folder"):
        export_run(compared[0].training.run, pictures / "files", pictures if named else None)
    assert not (pictures / "files").exists()


@pytest.mark.parametrize("named", [True, False])
def test_times_are_not_written_into_the_folder_of_the_images(
    exported, compared, pictures, named, monkeypatch
):
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: pytest.fail("refused too late"))
    given = {"data": pictures} if named else {"models": [compared[0].training.run]}
    with pytest.raises(OutputError, match="lies inside the input folder"):
        bench_exports([exported.folder], out=pictures / "bench.json", **given)
    assert not (pictures / "bench.json").exists()


def test_times_in_a_file_of_another_kind_are_refused_before_anything_is_timed(
    exported, tmp_path, monkeypatch
):
    """A name that ends in .png would be that of the picture."""
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: pytest.fail("refused too late"))
    with pytest.raises(OutputError, match=r"ends in \.json"):
        bench_exports([exported.folder], out=tmp_path / "bench.png")


@pytest.mark.parametrize("name", ["bench.json", "bench.png"])
def test_bench_overwrites_nothing(exported, tmp_path, monkeypatch, name):
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: pytest.fail("refused too late"))
    (tmp_path / name).write_text("kept")
    with pytest.raises(OutputError, match=f"{name} is there already"):
        bench_exports([exported.folder], out=tmp_path / "bench.json")
    assert (tmp_path / name).read_text() == "kept"


def test_bench_refuses_a_run_that_was_not_exported(exported, compared, monkeypatch):
    """Torch's time and memory would be those of another network."""
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: pytest.fail("refused too late"))
    run = compared[0].training.run
    with pytest.raises(CheckpointError, match="exported from other weights"):
        bench_exports([exported.folder], models=[run / "candidates" / "ssldec"])
    with pytest.raises(ConfigError, match="given 2 times; expected one for each of 1 exports"):
        bench_exports([exported.folder], models=[run, run])


def test_the_8_bit_file_is_timed_beside_the_other(exported):
    assert (exported.speed is not None) == (exported.folder / "model.int8.onnx").is_file()
    if exported.speed is not None:
        assert min(exported.speed.float32_ms, exported.speed.int8_ms) > 0


def test_int8_is_written_only_if_it_was_chosen(exported):
    written = (exported.folder / "model.int8.onnx").is_file()
    assert written == (exported.int8.chosen is not None)
    told = json.loads((exported.folder / "export.json").read_text())
    assert told["int8"]["sentence"] == str(exported.int8)
    assert told["int8"]["most_loss"] == 0.01
    assert told["parity"]["passed"]
    assert told["input"]["fit"] == "crop"
    assert 0 <= told["abstain_below"] <= 1
    assert OnnxClassifier(exported.folder / "model.onnx").card.extra["abstain_below"] == told["abstain_below"]


def test_what_8_bits_may_lose_is_yours_to_say(compared, tmp_path, monkeypatch):
    """With everything allowed the first way will do; with 8 bits out of question the option has no meaning."""
    run = compared[0].training.run
    folder = export_run(run, tmp_path / "files", int8=True, most_loss=1.0).folder
    told = json.loads((folder / "export.json").read_text())["int8"]
    assert (told["most_loss"], len(told["attempts"])) == (1.0, 1)
    with pytest.raises(ConfigError, match=r"--most-loss .* none is to be made\. Add --int8"):
        export_run(run, tmp_path / "none", most_loss=1.0)
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr(export, "network_facts", lambda name: SimpleNamespace(int8=True))
    assert export_run(run, tmp_path / "by name", most_loss=0.5).int8.most_loss == 0.5


def test_each_file_keeps_its_promise_on_the_validation_images(compared, pictures, tmp_path):
    run, out = compared[0].training.run, tmp_path / "files"
    classes = load_classifier(run).card.classes
    export_run(run, out, int8=True, promise=Promise(classes[1], sensitivity=0.8))
    told = json.loads((out / "export.json").read_text())
    validation = images_of_run(run, classes).validation
    labels = numbers_of(validation, classes)
    for name, record in (("model.onnx", told), ("model.int8.onnx", told["int8"])):
        card = OnnxClassifier(out / name).card
        for key in ("abstain_below", "accuracy_above", "finding"):
            assert card.extra[key] == record[key]
        q = probabilities_of(validation, OnnxClassifier(out / name))  # one by one, without torch
        found = q[:, 1].astype(float) >= card.extra["finding"]["threshold"]
        assert found[labels == 1].mean() == pytest.approx(card.extra["finding"]["sensitivity"])
        assert found[labels == 1].mean() >= 0.8
        assert 1 - found[labels != 1].mean() == pytest.approx(card.extra["finding"]["specificity"])
        sure = q.max(1).astype(float) >= card.extra["abstain_below"]
        assert (q.argmax(1) == labels)[sure].mean() >= 0.95
    assert told["finding"] != told["int8"]["finding"]


def test_a_finding_is_measured_on_the_test_images_and_stands_in_the_report(compared, pictures, tmp_path):
    run, out = compared[0].training.run, tmp_path / "files"
    classes = load_classifier(run).card.classes
    export_run(run, out, promise=Promise(classes[1], specificity=0.8))
    threshold = OnnxClassifier(out / "model.onnx").card.extra["finding"]["threshold"]
    result = evaluate_classifier(pictures, out / "model.onnx")
    called = result.predictions.probabilities[:, 1] >= threshold
    assert result.finding.sensitivity == pytest.approx(called[result.labels == 1].mean())
    assert result.finding.specificity == pytest.approx(1 - called[result.labels != 1].mean())
    write_evaluation(tmp_path / "report", result, pictures)
    assert json.loads((tmp_path / "report" / "scores.json").read_text())["finding"]["positive"] == 1
    assert (
        "(sensitivity)" in write_report(tmp_path / "report", pictures, out / "model.onnx", result).read_text()
    )
    assert f"found_{classes[1]}" in (tmp_path / "report" / "predictions.csv").read_text().splitlines()[0]


def test_the_abstain_threshold_of_a_file_is_measured_and_no_other(exported, pictures, tmp_path):
    """With validation images and without: the file was given away with its own threshold."""
    file = shutil.copyfile(exported.folder / "model.onnx", tmp_path / "model.onnx")
    change_card(file, {"abstain_below": 0.5001})
    shutil.copytree(pictures / "test", tmp_path / "bare" / "test")
    for data in (pictures, tmp_path / "bare"):
        result = evaluate_classifier(data, file)
        answered = result.predictions.probabilities.max(1) >= 0.5001
        assert result.abstaining.threshold == 0.5001
        assert result.abstaining.coverage == pytest.approx(answered.mean())


def test_what_cannot_be_promised_is_refused(compared, tmp_path):
    run = compared[0].training.run
    with pytest.raises(ConfigError, match="no class 'tumor'"):
        export_run(run, tmp_path / "files", promise=Promise("tumor", sensitivity=0.9))
    for shares in ({}, {"sensitivity": 0.9, "specificity": 0.9}, {"sensitivity": 1.5}):
        with pytest.raises(ConfigError, match="Give one of them"):
            Promise("a", **shares)
    with pytest.raises(DatalistError, match="0 of 0 validation images"):
        require_promise(Promise("a", specificity=0.9), (), ["a", "b"])
    assert not (tmp_path / "files").exists()


def test_a_failed_export_leaves_the_earlier_one(compared, tmp_path, monkeypatch):
    run, out = compared[0].training.run, tmp_path / "files"
    export_run(run, out, int8=True)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == set(export.FILES)
    monkeypatch.setattr(export, "parity", lambda *_: Parity(1, 9.0, 1e-3, 1))
    with pytest.raises(MedsslError, match="does not answer"):
        export_run(run, out, overwrite=True)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"files"}
    export_run(run, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == set(export.FILES) - {"model.int8.onnx"}


def test_files_of_another_origin_are_not_replaced(compared, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "predict.pyz").write_text("mine")
    with pytest.raises(OutputError, match=r"predict\.pyz already"):
        export_run(compared[0].training.run, tmp_path / "files")
    assert (tmp_path / "files" / "predict.pyz").read_text() == "mine"


def test_the_export_runs_without_the_package(exported, pictures, tmp_path):
    command = [
        sys.executable,
        "-I",
        exported.folder / "predict.pyz",
        pictures / "test",
        "--out",
        tmp_path / "a.csv",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    chosen = next(name for name in PREFERRED if (exported.folder / name).is_file())
    predict_folder(pictures / "test", tmp_path / "b.csv", exported.folder / chosen)
    alone, package = ((tmp_path / name).read_text().splitlines() for name in ("a.csv", "b.csv"))
    assert [line.split(",")[:2] for line in alone] == [line.split(",")[:2] for line in package]


def test_bench_tells_the_throughput_and_answers_for_one_image(exported, pictures, tmp_path):
    done = bench_exports([exported.folder], pictures, batches=(4,), out=tmp_path / "bench.json")
    (rows,) = json.loads((tmp_path / "bench.json").read_text())["times"].values()
    assert {row["batch"] for row in rows} == {1, 4}
    for row in rows:
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
    alone = {row["name"].split()[1]: row["p50_ms"] for row in rows if row["batch"] == 1}
    assert {one.name.split(", ")[1]: one.p50_ms for one in done.candidates} == alone


def test_an_export_is_not_overwritten_unasked(exported, compared):
    with pytest.raises(OutputError, match="--overwrite"):
        export_run(compared[0].training.run, exported.folder)


def test_bench_times_every_form_and_answers_the_question(exported, pictures, tmp_path):
    done = bench_exports([exported.folder], pictures, max_mb=100, max_ms=1000, out=tmp_path / "bench.json")
    told = json.loads((tmp_path / "bench.json").read_text())
    assert {row.threads for rows in done.rows.values() for row in rows} == {1}
    assert all(0 <= one.macro_f1 <= 1 for one in done.candidates)
    for name, rows in done.rows.items():
        assert set(done.peak_mb[name]) == {row.name for row in rows}
        assert all(20 < peak < 2000 for peak in done.peak_mb[name].values())
    assert told["peak_memory_mb"] == done.peak_mb
    (cost,) = done.costs.values()
    file = onnx.load(exported.folder / "model.onnx")
    stored = sum(math.prod(tensor.dims) for tensor in file.graph.initializer)
    assert cost.parameters == pytest.approx(stored, rel=0.1)  # batch norms are merged in the file
    assert told["networks"] == {exported.folder.name: vars(cost)}
    assert not cost.merged
    assert done.choice.best is not None
    assert told["choice"] == done.choice.sentence
    assert str(tmp_path) not in (tmp_path / "bench.json").read_text()
    assert told["picture"] == "bench.png"
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert bench_exports([exported.folder], pictures, max_mb=0.0001).choice.best is None


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_the_answer_names_what_runs_the_file_in_that_time(exported, pictures, monkeypatch):
    scored = []
    monkeypatch.setattr(
        bench, "_macro_f1", lambda file, _, backend: scored.append((file.name, backend)) or 0.5
    )
    done = bench_exports([exported.folder], pictures, openvino=True)
    (rows,) = done.rows.values()
    for one in done.candidates:
        precision = one.name.split(", ")[1]
        times = {row.name: row.p50_ms for row in rows if row.name.endswith(precision)}
        assert one.p50_ms == min(times.values()) == times[f"{one.backend} {precision}"]
    assert scored == [(FILES[one.name.split(", ")[1]], one.backend) for one in done.candidates]
    assert f"ms ({done.choice.best.backend})" in done.choice.sentence


def test_a_slow_8_bit_file_is_the_answer_only_where_nothing_else_fits():
    """Times are those of the fastest form of each file, which is what a user gets."""
    some = [
        Candidate("a, float32", 0.8, 2.0, 40.0),
        Candidate("a, int8", 0.9, 2.5, 10.0),
        Candidate("b, float32", 0.7, 3.0, 20.0),
        Candidate("b, int8", 0.6, 1.0, 5.0),
    ]
    slow = slow_files(some)
    assert list(slow) == ["a, int8"]
    assert "not recommended here" in slow["a, int8"]
    assert choose(some, slow).best.name == "a, float32"
    assert choose(some, slow, max_mb=12).best.name == "b, int8"
    assert choose(some[:2], slow, max_mb=12).best.name == "a, int8"


@pytest.mark.parametrize("validation", [True, False])
def test_a_network_that_is_quantized_by_name_is_wherever_that_can_be_checked(
    compared, pictures, tmp_path, monkeypatch, validation, caplog
):
    facts = SimpleNamespace(int8=True)
    monkeypatch.setattr(export, "network_facts", lambda name: facts)
    data = shutil.copytree(pictures, tmp_path / "data")
    if not validation:
        shutil.rmtree(data / "val")
    done = export_run(compared[0].training.run / "models" / "model.pt", tmp_path / "files", data)
    assert (done.int8 is not None) == validation
    assert ("No 8-bit file is written" in caplog.text) != validation
    assert (tmp_path / "files" / "export.json").is_file()


def test_int8_without_validation_images_is_refused_before_anything_is_written(compared, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    shutil.rmtree(data / "val")
    file = compared[0].training.run / "models" / "model.pt"
    with pytest.raises(DatalistError, match="no validation images"):
        export_run(file, tmp_path / "files", data, int8=True)
    assert not (tmp_path / "files" / "model.onnx").exists()


@pytest.mark.parametrize("learned", [False, True])
def test_only_images_that_the_run_did_not_learn_decide(
    learned, compared, exported, pictures, tmp_path, caplog
):
    """Of other data: none to validate on, or those that the network learned from. The run's own decide then."""
    data = shutil.copytree(pictures, tmp_path / "data")
    shutil.rmtree(data / "val")
    if learned:
        shutil.copytree(data / "train", data / "val")
    done = export_run(compared[0].training.run, tmp_path / "files", data, int8=True)
    assert ("12 of 12 validation images were labeled training images" in caplog.text) == learned
    assert str(done.int8) == str(exported.int8)
    own, other = (json.loads((one.folder / "export.json").read_text()) for one in (exported, done))
    assert own["abstain_below"] == other["abstain_below"]


def test_no_held_out_image_calibrates_a_file_whatever_it_is_called(pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    copied = [shutil.copyfile(path, data / "unlabelled" / f"copy{n}.png")
              for n, path in enumerate(sorted((data / "test").rglob("*.png")))]  # fmt: skip
    cohort = read_image_cohort(data)
    drawn = {item.path for item in export._calibrating(cohort.unlabeled, cohort.test)}
    assert drawn == {item.path for item in cohort.unlabeled} - set(copied)
    assert len(copied) == 10


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no model\.onnx"):
        bench_exports([tmp_path])


def test_an_overwritten_export_leaves_no_older_int8_file(exported, compared, tmp_path):
    run = compared[0].training.run
    (tmp_path / "files").mkdir()
    for name in ("model.onnx", "model.int8.onnx"):
        (tmp_path / "files" / name).write_bytes(b"older")
    export_run(run, tmp_path / "files", overwrite=True)
    assert not (tmp_path / "files" / "model.int8.onnx").exists()


def test_images_that_a_run_held_out_score_its_files(exported, compared, pictures, tmp_path):
    """A folder without val/: what was carved out of the labeled images stands in the run alone."""
    bare = tmp_path / "bare"
    shutil.copytree(pictures / "train", bare / "train")
    run = compared[0].training.run
    unscored = bench_exports([exported.folder], bare, max_mb=100, out=tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())["picture"] is None
    assert not (tmp_path / "bench.png").exists()
    assert unscored.choice.best is None
    assert "none was scored" in unscored.choice.sentence
    scored = bench_exports([exported.folder], bare, models=[run], max_mb=100)
    assert scored.choice.best is not None
    assert next(iter(scored.peak_mb.values()))["torch float32"] > 100


@pytest.mark.parametrize("known", [True, False])
def test_bench_says_which_images_the_run_has_seen(exported, compared, pictures, tmp_path, monkeypatch, known):
    """By their content; of its own validation images, and where no run is named, nothing is said."""
    data = tmp_path / "data"
    for section in ("train", "val"):
        shutil.copytree(pictures / section, data / section)
    shutil.copyfile(pictures / "train/dark/0.png", data / "val/dark/learned.png")
    times = [Latency(f"onnxruntime {name}", 1, 1, 50, 1.0, 1.0) for name in FILES]
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: times)
    monkeypatch.setattr(bench, "slow_files", lambda _: {})
    monkeypatch.setattr(bench, "_peak_mb", lambda *_: 1.0)
    models = [compared[0].training.run] if known else []
    done = bench_exports([exported.folder], data, models=models, out=tmp_path / "bench.json")
    said = f"files: 1 of 25 validation images were {ROLES['training']}: val/dark/learned.png."
    assert list(done.warnings) == ([said] if known else [])
    assert json.loads((tmp_path / "bench.json").read_text())["warnings"] == list(done.warnings)


def test_images_of_a_run_that_are_gone_stop_nothing(compared, pictures, tmp_path):
    """A run that was copied to another machine."""
    run = shutil.copytree(compared[0].training.run, tmp_path / "elsewhere" / "run")
    shutil.copytree(pictures / "test", tmp_path / "data" / "test")
    shutil.copytree(pictures / "train", tmp_path / "data" / "train")
    assert not images_of_run(run, ["dark", "light"]).validation
    result = evaluate_classifier(tmp_path / "data", run)
    assert result.abstaining is None
    write_report(tmp_path, tmp_path / "data", run, result)
    assert (tmp_path / "report.html").is_file()


def test_an_export_that_fails_while_files_are_replaced_loses_none(compared, tmp_path, monkeypatch):
    """The new files lie inside the folder, so that it may be a disk of its own."""
    run, out = compared[0].training.run, tmp_path / "files"
    export_run(run, out, int8=True)
    original, calls = Path.replace, []

    def replace(self, target):
        calls.append(target)
        if self.parent.name.startswith(".partial-") and self.name == "predict.pyz":
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, out, int8=True, overwrite=True)
    assert {path.name for path in out.iterdir()} == set(export.FILES)
    assert all(
        path.parent == out or path.parent.parent == out for path in map(Path, calls) if "files" in str(path)
    )


def test_a_folder_in_the_place_of_a_file_is_refused(compared, tmp_path):
    (tmp_path / "files" / "predict.pyz").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"predict\.pyz already as a folder"):
        export_run(compared[0].training.run, tmp_path / "files", overwrite=True)


def test_a_threshold_that_nothing_reaches_is_called_so():
    assert spoken(NOTHING) == "never"
    assert spoken(0.25) == "from a probability of 0.250 on"
