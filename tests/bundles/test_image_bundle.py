"""The bundle of image classifiers: what MONAI expects of it, and its commands as they are printed."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fire
import jsonschema
import monai.bundle
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from pictures import TINY, options, write_pictures
from runs import same, weights

import medssl
from medssl.io.checkpoint import read_checkpoint
from medssl.io.classifier_card import classifier_card_of
from medssl.io.files import write_csv
from medssl.io.image_cohort import find_images, image_entries
from medssl.io.pseudo_label_table import COLUMNS
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import predict_items
from medssl.workflows.classification.train import train_classifier

BUNDLE = Path(__file__).parents[2] / "bundles" / "compact_image_classification"
CONFIGS = BUNDLE / "configs"
OVERLAYS = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem not in {"train", "inference"})


def below(overlay):
    """Return the configurations that an overlay is laid over."""
    if overlay == "train_targets.yaml":
        return ["train.yaml", "train_ssldec.yaml"]
    return ["inference.yaml" if overlay.startswith("inference") else "train.yaml"]


STACKS = [
    ["train.yaml"],
    ["inference.yaml"],
    *[[*below(path.name), path.name] for path in OVERLAYS],
    ["train.yaml", "train_ssldec.yaml", "evaluate.yaml"],
]
READ_BY_MONAI = {
    "imports", "bundle_root", "dataset_dir", "device", "initialize", "run", "train", "validate", "evaluator",
    "handlers", "preprocessing", "dataset", "dataloader", "datalist", "inferer", "postprocessing", "network",
    "network_def", "image_key", "resume", "init_weights", "average", "num_workers",
    "target_rule",  # of stored targets, which are made before
}  # fmt: skip


def read(name):
    return yaml.safe_load((CONFIGS / name).read_text())


def test_what_teachers_answered_is_read_once(tmp_path, monkeypatch):
    """Also where there is nothing about the labeled images, as in files of earlier versions."""
    parts = {
        name: value
        for name, value in read("train_soft_targets.yaml").items()
        if "torch.load" in str(value) or "answers" in str(value)
    }
    rows, read_files, load = torch.rand(5, 3).log(), [], torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **how: read_files.append(given) or load(*given, **how))
    for number, more in enumerate(({}, {"log_p_labeled": rows[:2]})):
        path = tmp_path / f"{number}.pt"
        torch.save({"log_p": rows, **more}, path)
        parser = ConfigParser(
            {
                "imports": ["$import torch"],
                "targets": str(path),
                "train": {"unlabeled": {"dataset": {}}, "dataset": {}},
            }
        )
        parser.update(parts)
        assert torch.equal(parser.get_parsed_content("train#unlabeled#dataset#targets"), rows.exp())
        labeled = parser.get_parsed_content("train#dataset#targets")
        assert torch.equal(labeled, rows[:2].exp()) if more else labeled is None
        assert len(read_files) == number + 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A copy whose numbers are small, with a folder of tiny images."""
    root = tmp_path_factory.mktemp("bundles") / "compact_image_classification"
    shutil.copytree(BUNDLE, root)
    small = {"network_name": TINY["network"], "image_size": 16, "channels": 1, "preset": "none", "epochs": 2,
             "steps_per_epoch": 2, "batch_size": 8}  # fmt: skip
    for file in ("train.yaml", "inference.yaml"):
        text = (root / "configs" / file).read_text()
        for name, value in small.items():
            text = re.sub(rf"(?m)^{name}: \S+", f"{name}: {value}", text)
        text = re.sub(r"(?m)^classes: \[.*\]", "classes: [dark, light]", text)
        (root / "configs" / file).write_text(text)
    write_pictures(root / "data")
    return root


def run(command, folder):
    words = shlex.split(command)
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


COMMANDS = [
    line
    for line in (BUNDLE / "docs" / "README.md").read_text().splitlines()
    if line.startswith("python -m monai")
]
OF_SSLDEC = [command for command in COMMANDS if "ssldec" in command]


def test_the_printed_commands_run_in_their_order(bundle):
    """D22."""
    assert len(COMMANDS) == 16
    others = [command for command in COMMANDS if command not in OF_SSLDEC]
    trainings = [command for command in others if "train.yaml" in command and "evaluate" not in command]
    for command in trainings[1:]:
        run(command, bundle)
    run(trainings[0], bundle)  # last, so that what follows finds its weights
    for command in others[len(trainings) :]:
        if "verify_net_in_out" not in command:
            run(command.replace("[1,3,64,64]", "[1,1,16,16]"), bundle)
    with (bundle / "eval" / "predictions.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 2 * (6 + 12 + 5) + 20
    assert all(abs(float(row[1]) + float(row[2]) - 1) < 1e-5 for row in rows)
    assert rows[0][0] == "test/dark/0.png"
    assert (bundle / "eval" / "metrics.csv").is_file()
    exported = torch.jit.load(bundle / "models" / "model.ts")
    image = torch.rand(3, 1, 16, 16)
    model = load_classifier(bundle)
    assert torch.allclose(exported(image), model.network(image), atol=1e-5)
    card = replace(model.card, temperature=3.0)
    torch.save(card.attached_to(model.network.state_dict()), bundle / "models" / "model.pt")
    run(next(command for command in COMMANDS if "inference.yaml" in command and " run " in command), bundle)
    with (bundle / "eval" / "predictions.csv").open() as file:
        told = {row[0]: float(row[1]) for row in csv.reader(file)}
    found = predict_items(find_images(bundle / "data"), [load_classifier(bundle)])
    assert told == pytest.approx(dict(zip(found.names, found.probabilities[:, 0], strict=True)), abs=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the checks of an image's shape
def test_weights_of_ssldec_are_scored_and_classify_through_the_printed_commands(
    bundle, tmp_path, monkeypatch
):
    """Its network ends in a clustering head; nothing is trained without one in between. In this process, to be fast."""
    root = tmp_path / "bundle"
    shutil.copytree(bundle, root, ignore=shutil.ignore_patterns("models", "eval"))
    assert len(OF_SSLDEC) == 4
    monkeypatch.chdir(root)
    for command in OF_SSLDEC:
        words = shlex.split(command.replace("[1,3,64,64]", "[1,1,16,16]"))[3:]
        fire.Fire(monai.bundle, [*words, *(["--logging_file", "False"] if words[0] == "run" else [])])
    model = load_classifier(root)
    assert "clusters" in model.card.network
    found = predict_items(find_images(root / "data"), [model])
    expected = dict(zip(found.names, found.probabilities[:, 0].tolist(), strict=True))
    with (root / "eval" / "predictions.csv").open() as file:
        told = {row[0]: float(row[1]) for row in csv.reader(file)}
    assert told == pytest.approx(expected, abs=1e-5)
    right = [
        (share > 0.5) == (name.split("/")[1] == "dark")
        for name, share in expected.items()
        if name.startswith("val/")
    ]
    with (root / "eval" / "metrics.csv").open() as file:
        scores = dict(csv.reader(file))
    assert float(scores["val_accuracy"]) == pytest.approx(sum(right) / 24, abs=1e-4)
    exported, image = torch.jit.load(root / "models" / "model.ts"), torch.rand(3, 1, 16, 16)
    assert torch.allclose(exported(image), model.network(image), atol=1e-5)


def test_the_packaged_network_verifies():
    command = next(command for command in COMMANDS if "verify_net_in_out" in command)
    run(command, BUNDLE)


def write_labels(bundle):
    """Write labels of a teacher that is sure of every other image."""
    names = [entry["name"] for entry in image_entries(bundle / "data", "unlabeled")]
    rows = [
        {"path": name, "label": "dark", "kept": "yes" if place % 2 else "no"}
        for place, name in enumerate(names)
    ]
    write_csv(bundle / "data" / "pseudo_labels" / "round-1.csv", rows, list(COLUMNS))


def test_a_student_learns_the_labels_of_which_its_teachers_were_sure(bundle, tmp_path):
    write_labels(bundle)
    stack = "\"['configs/train.yaml','configs/train_distillation.yaml']\""
    for name in ("train", "with"):
        files = "configs/train.yaml" if name == "train" else stack
        out = f"--output_dir {tmp_path / name} --ckpt_dir {tmp_path / name}"
        run(f"python -m monai.bundle run --config_file {files} {out}", bundle)
    alone, taught = (
        torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("train", "with")
    )
    assert not same(alone, taught)


@pytest.mark.parametrize("files", [stack for stack in STACKS if "evaluate.yaml" not in stack])
def test_monai_finds_every_property(files, bundle):
    torch.save({"log_p": torch.zeros(20, 2)}, bundle / "targets.pt")
    write_labels(bundle)
    workflow = create_workflow(
        config_file=[str(bundle / "configs" / name) for name in files],
        workflow_type="infer" if "inference.yaml" in files else "train",
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        **({"load_pretrain": False} if "inference.yaml" in files else {}),
    )
    assert not workflow.check_properties()


def test_the_command_line_and_the_bundle_give_the_same_weights(bundle, tmp_path):
    data = write_pictures(tmp_path / "images")
    told = options(steps=None, settings={"epochs": 2, "steps_per_epoch": 2, "batch_size": 8}, method="ssldec")
    own = train_classifier(data, tmp_path / "run", told).run
    out = tmp_path / "out"
    stack = "\"['configs/train.yaml','configs/train_ssldec.yaml']\""
    places = f"--dataset_dir {data} --output_dir {out} --ckpt_dir {out}"
    run(f"python -m monai.bundle run --config_file {stack} {places}", bundle)
    assert same(weights(own), torch.load(out / "model.pt", weights_only=True))


def test_metadata_fit_the_schema_and_the_version():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    schema = json.loads((Path(__file__).parent / "meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["medssl"] == medssl.__version__
    named = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(named.values()) == read("inference.yaml")["classes"]


def test_the_packaged_weights_are_of_the_packaged_configuration():
    card = classifier_card_of(read_checkpoint(BUNDLE / "models" / "model.pt"))
    inference = read("inference.yaml")
    assert card.classes == inference["classes"]
    assert (card.size, card.channels) == (inference["image_size"], inference["channels"])
    assert card.network["name"] == inference["network_name"]
    assert json.loads((CONFIGS / "metadata.json").read_text())["eval_metrics"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    "name", ["network_name", "image_size", "channels", "interpolation", "fit", "white", "preprocessing"]
)
def test_train_and_inference_agree(name):
    inference = read("inference.yaml")
    if name == "preprocessing":
        inference = inference["preprocessing"]["transforms"][0]
    assert read("train.yaml")[name] == inference[name]


@pytest.mark.parametrize("files", STACKS)
def test_no_key_is_dead(files):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in files])
    config = {key: value for key, value in parser.config.items() if key != "_meta_"}
    text = json.dumps(config)
    own = {key for key in config if not re.search(rf"[@%]{key}(#|\b)", text)}
    assert own <= READ_BY_MONAI


def test_a_run_does_not_go_on_with_other_images(bundle, tmp_path):
    data = write_pictures(tmp_path / "data")
    command = "python -m monai.bundle run --config_file configs/train.yaml"
    command += f" --dataset_dir {data} --output_dir {tmp_path / 'out'} --ckpt_dir {tmp_path / 'out'}"
    run(command, bundle)
    first = min((data / "val").rglob("*.png"))
    shutil.copyfile(max((data / "test").rglob("*.png")), first)
    words = shlex.split(f"{command} --resume true --epochs 3")
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=bundle, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "resume.pt was written: validation images." in done.stderr


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_overlays_are_short(path):
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 25


def test_files_that_the_model_zoo_expects_are_there():
    for name in ("LICENSE", "configs/logging.conf", "docs/data_license.txt", "large_files.yml"):
        assert (BUNDLE / name).is_file(), name


@pytest.mark.parametrize(
    ("name", "units", "amp"),
    [("vgg-small-64", True, True), ("vgg-small-64", False, False), ("shufflenet_v2_x1_0", True, False)],
)
def test_the_small_networks_train_in_bfloat16_where_the_processor_has_it(name, units, amp, monkeypatch):
    monkeypatch.setattr("medssl.inference.machine.has_bfloat16", lambda device: units)
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.yaml"))
    parser.update({"network_name": name, "device": "cpu"})
    assert parser.get_parsed_content("amp") is amp
    assert parser["validate"]["evaluator"]["amp"] == "$@amp and torch.device(@device).type == 'cuda'"


@pytest.mark.parametrize(
    ("pretrained", "epochs", "steps"), [(None, 40, 0), ("cached", 40, 50), ("cached", 4, 10)]
)
def test_only_the_head_of_a_pretrained_network_learns_at_first(pretrained, epochs, steps):
    parser = ConfigParser(read("train.yaml") | {"pretrained": pretrained, "epochs": epochs})
    assert parser.get_parsed_content("frozen_steps") == steps


@pytest.mark.parametrize(
    ("name", "last"), [("vgg-small-64", True), ("shufflenet_v2_x1_0", True), ("resnet18", False)]
)
def test_networks_that_gain_by_it_train_with_the_channels_last(name, last):
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.yaml"))
    parser.update({"network_name": name})
    assert parser.get_parsed_content("channels_last") is last
