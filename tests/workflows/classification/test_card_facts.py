"""The file of weights alone says how it was made, and names no folder of the machine that made it."""

import json
import shutil

import pytest
import torch
import yaml
from pictures import options

from medssl.io.checkpoint import read_checkpoint
from medssl.io.classifier_card import classifier_card_of
from medssl.networks.compact import build_classifier
from medssl.workflows.classification.card_facts import command_without_folders, without_folders
from medssl.workflows.classification.evaluate import evaluate_classifier
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.report import write_report
from medssl.workflows.classification.train import train_classifier


@pytest.fixture(scope="module")
def run(pictures):
    """Read only: data and weights lie in a folder whose name is nobody's business."""
    private = pictures.parent / "ward 7, Miller"
    shutil.copytree(pictures, private / "images")
    torch.save(build_classifier("test_resnet", 2).backbone.state_dict(), private / "imagenet.pt")
    chosen = options(
        method="ssldec",
        network="test_resnet",
        size=32,
        channels=3,
        seed=5,
        pretrained=str(private / "imagenet.pt"),
        settings={"init_weights": None, "alpha": 4.0},
    )
    return train_classifier(private / "images", pictures.parent / "told" / "run", chosen).run


def test_the_file_says_what_made_the_weights(run):
    card = classifier_card_of(read_checkpoint(run / "models" / "model.pt"))
    told = card.extra
    assert (told["seed"], told["averaged"], told["config"]["alpha"]) == (5, 0.99, 4.0)
    assert told["versions"]["medssl"]
    assert told["validation"]["images"] == 24
    assert told["architecture"] == {
        "source": "timm",
        "id": "test_resnet.r160_in1k",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "head": "clustering",
    }


def test_the_configuration_is_whole_and_only_paths_are_cut(run):
    config = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    told = load_classifier(run).card.extra["config"]
    assert config["pretrained"] == "$@bundle_root + '/models/pretrained.pt'"
    assert told == config | {"pretrained": "imagenet.pt"}


def test_no_byte_of_the_file_names_a_folder(run):
    content = (run / "models" / "model.pt").read_bytes()
    assert b"Miller" in (run / "run.json").read_bytes()
    assert b"imagenet.pt" in content
    for place in ("Miller", "told", str(run.parent.parent)):
        assert place.encode() not in content
        assert json.dumps(place)[1:-1].encode() not in content


def test_neither_card_nor_report_names_a_folder(run, pictures, tmp_path):
    images = pictures.parent / "ward 7, Miller" / "images"
    page = write_report(tmp_path, images, run, evaluate_classifier(images, run)).read_text()
    for text in (page, (run / "MODEL_CARD.md").read_text()):
        assert "imagenet.pt" in text
        assert "Miller" not in text


def test_a_file_of_before_still_loads(run, tmp_path):
    content = torch.load(run / "models" / "model.pt", weights_only=True)
    facts = json.loads(content._metadata["medssl.classifier"]["json"])
    extra = {name: facts["extra"][name] for name in ("command", "seed", "budget", "versions")}
    content._metadata["medssl.classifier"]["json"] = json.dumps(facts | {"extra": extra})
    torch.save(content, tmp_path / "old.pt")
    assert load_classifier(tmp_path / "old.pt").card.classes == ["dark", "light"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/anna/w.pt", "w.pt"),
        ("C:\\Users\\anna\\w.pt", "w.pt"),
        ("../anna/images/", "images"),
        ("$torch.load('/home/anna/t.pt')['log_p']", "$torch.load('t.pt')['log_p']"),
        ("$join(@output_dir, '/home/anna/t.pt')", "$join(@output_dir, 't.pt')"),
        ("$@output_dir + '/checkpoints/resume.pt'", "$@output_dir + '/checkpoints/resume.pt'"),
        ("$int(@steps / 2)", "$int(@steps / 2)"),
        ("bilinear", "bilinear"),
        ({"file": ["a/b", 0.5, None]}, {"file": ["b", 0.5, None]}),
    ],
)
def test_paths_become_names(value, kept):
    assert without_folders(value) == kept


def test_a_command_keeps_all_but_its_folders():
    told = "medssl classify train '../home/A M/images' --out run --set init_weights=/home/anna/w.pt --set x={a: b/c}"
    told = told.replace("x={a: b/c}", "'x={a: b/c}'")
    kept = "medssl classify train images --out run --set init_weights=w.pt --set 'x={a: c}'"
    assert command_without_folders(told) == kept
