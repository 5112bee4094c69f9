"""D6: wherever the images lie and however that is spelled, every command finds them; bad paths are refused at once."""

import pytest
from click.testing import CliRunner
from image_trees import hash_of_tree
from pictures import TINY, write_pictures

from medssl.cli import main
from medssl.engines import SemiSupervisedTrainer
from medssl.io.files import read_csv, read_json
from medssl.io.image_cohort import read_image_cohort, write_manifest

NAME = "ward 7/Bilder für Ömer/画像"
TRAINING = ["--network", TINY["network"], "--size", 16, "--steps", 4, "--preset", "none", "--device", "cpu"]


def call(*words):
    done = CliRunner().invoke(main, ["classify", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of images, a file, and a folder that is in use: read only."""
    root = tmp_path_factory.mktemp("paths")
    (root / "file").write_text("")
    (root / "scored").mkdir()
    (root / "scored" / "scores.json").write_text("{}")
    (root / "full").mkdir()
    (root / "full" / "notes.txt").write_text("")
    write_pictures(root / NAME, training=4, validation=4, test=3, unlabeled=8)
    return root


@pytest.mark.parametrize(
    ("images", "out"),
    [
        ("{root}/" + NAME, "{root}/Läufe mit Raum"),
        (NAME + "/", "./neue Läufe/../neue Läufe/tief/"),
    ],
)
def test_from_training_to_files_under_any_spelling(place, images, out, monkeypatch):
    """Absolute; relative, with a slash at the end; nested, with blanks and other letters."""
    monkeypatch.chdir(place)
    images, out = images.format(root=place), out.format(root=place).rstrip("/")
    before = hash_of_tree(place / NAME)
    run, student, files = f"{out}/der Lauf/", f"{out}/Schüler", f"{out}/Dateien/"
    call("train", images, "--out", run, "--method", "ssldec", *TRAINING)
    call("distill", images, "--out", student, "--kind", "plain", *TRAINING)
    call("predict", f"{images}/test/", "--out", f"{out}/Tabelle ä.csv", "--model", student)
    assert len(read_csv(f"{out}/Tabelle ä.csv")) == 6
    call("evaluate", images, "--out", f"{out}/Bericht/", "--model", run)
    assert (place / out / "Bericht" / "report.html").is_file()
    pytest.importorskip("onnxruntime")
    call("export", run, "--out", files, "--data", images)
    call("predict", f"{images}/test", "--out", f"{out}/b.csv", "--model", f"{files}model.onnx")
    assert read_json(f"{files}export.json")["classes"] == ["dark", "light"]
    assert hash_of_tree(place / NAME) == before


@pytest.mark.parametrize("verb", ["train", "distill"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "none"}, "none is not there"),
        ({"--out": f"{NAME}/run"}, "lies inside the input folder"),
        ({"--out": "file/run"}, "is a file"),
        ({"--out": "full"}, "is not empty"),
        ({"--unlabeled": "none"}, "none is not there"),
        ({"--pretrained": "none.pt"}, "no file of weights at none.pt"),
    ],
)
def test_all_paths_are_looked_at_before_anything_is_trained(place, monkeypatch, verb, changes, words):
    monkeypatch.chdir(place)
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda *_: pytest.fail("refused too late"))
    given = {"data": NAME, "--out": "run"} | changes
    method = ["--method", "mean-teacher"] if verb == "train" else []
    told = [given.pop("data"), *(word for pair in given.items() for word in pair)]
    done = CliRunner().invoke(main, ["classify", verb, *told, *method, *map(str, TRAINING)])
    assert (done.exit_code, words in done.output.replace("\n", " ")) == (1, True), done.output
    assert not (place / "run").exists()


def test_a_run_and_a_report_may_lie_beside_a_manifest(monkeypatch, tmp_path):
    write_pictures(tmp_path / "images", training=10, validation=0, test=0)
    monkeypatch.chdir(tmp_path)
    call("split", "images", "--out", "manifest.csv")
    call("train", "manifest.csv", "--out", "run", *TRAINING)
    call("evaluate", "manifest.csv", "--out", "report", "--model", "run")


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("train", ["--method", "supervised", *TRAINING]),
        ("train", ["--method", "mean-teacher", *TRAINING]),
        ("distill", TRAINING),
        ("evaluate", ["--model", "run"]),
    ],
)
def test_nothing_is_written_among_the_images_of_a_manifest_that_lies_elsewhere(place, tmp_path, verb, more):
    write_manifest(tmp_path / "manifest.csv", read_image_cohort(place / NAME))
    before = hash_of_tree(place / NAME)
    where = [tmp_path / "manifest.csv", "--out", place / NAME / "train/dark/run", "--allow-outside"]
    done = CliRunner().invoke(main, ["classify", verb, *map(str, [*where, *more])])
    assert (done.exit_code, "inside the input folder" in done.output.replace("\n", " ")) == (1, True), (
        done.output
    )
    assert hash_of_tree(place / NAME) == before


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (f"{NAME}/report", "lies inside the input folder"),
        ("file/report", "is a file"),
        ("scored", "--overwrite"),
    ],
)
def test_a_place_for_scores_is_looked_at_before_anything_is_scored(place, monkeypatch, out, words):
    monkeypatch.chdir(place)
    late = "medssl.workflows.classification.evaluate.evaluate_classifier"
    monkeypatch.setattr(late, lambda *_, **__: pytest.fail("refused too late"))
    done = CliRunner().invoke(main, ["classify", "evaluate", NAME, "--out", out, "--model", "run"])
    assert (done.exit_code, words in done.output.replace("\n", " ")) == (1, True), done.output
