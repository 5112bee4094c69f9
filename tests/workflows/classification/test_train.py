"""Training of classifiers: run folders, resume, data that must not change or leak."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pictures import CLASSES, options, picture, write_pictures
from PIL import Image
from runs import StopAfter, same, table, texts, weights

from medssl.engines import TrainingInterrupted
from medssl.errors import ConfigError, DatalistError, InputError, OutputError
from medssl.io.classifier_card import classifier_card_of
from medssl.io.files import read_json, write_csv
from medssl.io.image_cohort import read_image_cohort
from medssl.io.images import read_image
from medssl.io.subjects import SECTIONS
from medssl.networks.compact import build_classifier, network_facts
from medssl.transforms.classification import image_preprocessing
from medssl.workflows.classification.baseline import planned, train_with_baseline
from medssl.workflows.classification.check import check_folder
from medssl.workflows.classification.distill import distill
from medssl.workflows.classification.distill_options import DistillOptions
from medssl.workflows.classification.export import export_run
from medssl.workflows.classification.methods import ONLINE
from medssl.workflows.classification.model_card import license_warning
from medssl.workflows.classification.models import load_classifier, open_classifier
from medssl.workflows.classification.predict import prepared, preprocessings
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.train import (
    ClassifyOptions,
    class_weights,
    log_prior,
    prepare_classifier,
    train_classifier,
    usable_cohort,
)
from medssl.workflows.watching import Watcher

_ALL = {"rule_options": {"threshold": 0.0}}
UNSURE = {
    "fixmatch": _ALL,
    "flexmatch": _ALL,
    "defixmatch": _ALL,
    "pseudo-label": {"threshold": 0.0, "unlabeled_start": 0.0},
    "ssldec": {"unlabeled_start": 0.0},
}
"""Settings with which unlabeled images teach a network that knows nothing yet, from the first step on."""


def tree_hash(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.mark.parametrize("method", ONLINE)
def test_every_method_trains_and_leaves_the_data_as_they_are(method, pictures, tmp_path):
    before = tree_hash(pictures)
    done = train_classifier(pictures, tmp_path / "run", options(method=method))
    assert done.steps == 4
    assert 0 <= done.best <= 1
    card = classifier_card_of(weights(done.run))
    assert card.classes == list(CLASSES)
    assert tree_hash(pictures) == before, "D7"


@pytest.mark.parametrize("method", [name for name in ONLINE if name != "supervised"])
def test_unlabeled_images_count_in_every_epoch(method, pictures, tmp_path):
    """D1: the unlabeled term is there in every epoch, after resuming too."""
    settings = {"steps_per_epoch": 1, "epochs": 4, **UNSURE.get(method, {})}
    chosen = options(method=method, steps=4, settings=settings)
    with pytest.raises(TrainingInterrupted):
        train_classifier(pictures, tmp_path / "run", chosen, StopAfter(2))
    run = train_classifier(pictures, tmp_path / "run", resume=True).run
    rows = table(run / "metrics.tsv")
    assert len(rows) == 4
    assert all(float(row["loss_unlabeled"]) != 0 for row in rows)


@pytest.mark.parametrize("before", [False, True])
def test_the_layout_in_memory_changes_nothing_and_may_change_when_resumed(before, pictures, tmp_path):
    """The small networks train with channels last; moments that were saved with another layout go on right."""
    runs = {}
    for name, layout in (("own", before), ("changed", not before)):
        chosen = options(
            method="mean-teacher",
            network="vgg-small-28",
            steps=6,
            settings={"steps_per_epoch": 3, "epochs": 2, "channels_last": before, "amp": False},
        )
        run = tmp_path / name
        with pytest.raises(TrainingInterrupted):
            train_classifier(pictures, run, chosen, StopAfter(3))
        config = run / "configs" / "train.yaml"
        text = config.read_text()
        config.write_text(
            text.replace(f"channels_last: {str(before).lower()}", f"channels_last: {str(layout).lower()}")
        )
        assert (config.read_text() == text) == (layout == before)
        train_classifier(pictures, run, resume=True)
        runs[name] = torch.load(run / "checkpoints" / "resume.pt", weights_only=True)
    for part in ("model", "teacher"):
        own, changed = (run[part] for run in runs.values())
        for key, value in own.items():
            torch.testing.assert_close(changed[key], value, rtol=0.02, atol=0.002)
            if value.ndim == 4 and value.shape[1] > 1:
                assert value.is_contiguous(memory_format=torch.channels_last) == before
                assert changed[key].is_contiguous(memory_format=torch.channels_last) != before


def test_memory_that_training_kept_is_given_back_after_an_interrupt(pictures, tmp_path, monkeypatch):
    """Its handler sees the end of a whole run only."""
    given_back = []
    monkeypatch.setattr("medssl.workflows.running.give_back_memory", lambda: given_back.append(True))
    with pytest.raises(TrainingInterrupted):
        train_classifier(pictures, tmp_path / "run", options(), StopAfter(1))
    assert given_back == [True]


@pytest.mark.parametrize("method", [name for name in ONLINE if name != "supervised"])
def test_other_unlabeled_images_give_other_weights(method, pictures, tmp_path):
    """D1: as many images in the same order, other pixels."""
    brighter = shutil.copytree(pictures, tmp_path / "brighter")
    for path in sorted((brighter / "unlabelled").iterdir()):
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(20)).save(path)
    chosen = options(method=method, steps=4, settings=UNSURE.get(method, {}))
    one = train_classifier(pictures, tmp_path / "one", chosen).run
    other = train_classifier(brighter, tmp_path / "other", chosen).run
    again = train_classifier(pictures, tmp_path / "again", chosen).run
    assert same(weights(one), weights(again))
    assert not same(weights(one), weights(other))


@pytest.mark.parametrize("method", ["supervised", "ssldec", "mixmatch", "flexmatch"])
def test_a_stopped_run_goes_on_bit_for_bit(method, pictures, tmp_path):
    chosen = options(method=method, steps=6, settings={"steps_per_epoch": 3, "epochs": 2})
    whole = train_classifier(pictures, tmp_path / "whole", chosen).run
    with pytest.raises(TrainingInterrupted):
        train_classifier(pictures, tmp_path / "stopped", chosen, StopAfter(2))
    resumed = train_classifier(pictures, tmp_path / "stopped", resume=True).run
    assert same(weights(whole), weights(resumed))
    assert table(whole / "metrics.tsv") == table(resumed / "metrics.tsv")


def test_images_that_changed_since_the_run_began_are_refused(tmp_path):
    images = write_pictures(tmp_path / "images")
    with pytest.raises(TrainingInterrupted):
        train_classifier(images, tmp_path / "run", options(), StopAfter(1))
    Image.fromarray(picture(1, 999)).save(images / "train" / "dark" / "0.png")
    with pytest.raises(InputError, match=r"train/dark/0\.png"):
        train_classifier(images, tmp_path / "run", resume=True)


def test_a_finished_run_is_not_gone_on_with(pictures, tmp_path):
    train_classifier(pictures, tmp_path / "run", options())
    with pytest.raises(OutputError, match="is finished"):
        train_classifier(pictures, tmp_path / "run", resume=True)
    with pytest.raises(OutputError, match="not empty"):
        train_classifier(pictures, tmp_path / "run", options())


BAD_OPTIONS = [
    ({"network": "vgg-smal-28"}, ConfigError, "vgg-smal-28"),
    ({"preset": "sepia"}, ConfigError, "microscopy"),
    ({"settings": {"learning_rat": 1}}, ConfigError, "learning_rate"),
    ({"pretrained": "nowhere.pt"}, ConfigError, "nowhere"),
    ({"labels_per_class": 50}, DatalistError, "dark"),
    ({"size": 8}, ConfigError, "at least 16 pixels"),
    ({"settings": {"learning_rate": "fast"}}, ConfigError, "--set"),
    ({"settings": {"init_weights": "nowhere.pt"}}, ConfigError, "nowhere"),
    ({"settings": {"classes": ["light", "dark"]}}, ConfigError, "order of their names"),
]
"""Options, and what is raised."""


@pytest.mark.parametrize("folder", ["run", "other"])
@pytest.mark.parametrize("train", [train_classifier, train_with_baseline])
@pytest.mark.parametrize(
    ("changes", "error", "words"), [*BAD_OPTIONS, ({"method": "fixmach"}, ConfigError, "fixmatch")]
)
def test_bad_options_leave_nothing_behind(changes, error, words, train, folder, pictures, tmp_path):
    """D8, also in an empty folder that was there."""
    (tmp_path / folder).mkdir()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error, match=words):
        train(pictures, tmp_path / "run", options(**{"method": "mean-teacher", **changes}))
    assert set(tmp_path.rglob("*")) <= before


@pytest.mark.parametrize(("changes", "error", "words"), BAD_OPTIONS)
def test_bad_options_of_a_student_leave_nothing_behind(changes, error, words, pictures, tmp_path):
    with pytest.raises(error, match=words):
        distill(pictures, tmp_path / "run", DistillOptions(student=options(**changes)))
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_test_image_among_the_unlabeled_is_refused(tmp_path):
    images = write_pictures(tmp_path / "images")
    shutil.copyfile(images / "test" / "dark" / "0.png", images / "unlabelled" / "copy.png")
    with pytest.raises(DatalistError, match=r"copy\.png"):
        train_classifier(images, tmp_path / "run", options(method="ssldec"))
    train_classifier(images, tmp_path / "run", options(method="ssldec", transductive=True))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["transductive"]
    assert {row["transductive"] for row in table(tmp_path / "run" / "metrics.tsv")} == {"yes"}


def test_files_that_may_be_images_are_told_when_training_begins(tmp_path, caplog):
    images = write_pictures(tmp_path / "images")
    (images / "unlabelled" / "scan.webp").write_bytes(b"RIFF")
    (images / "notes.txt").write_text("x")
    train_classifier(images, tmp_path / "run", options())
    (told,) = [one for one in caplog.records if "may be images" in one.getMessage()]
    assert told.levelname == "WARNING"
    assert "1 file was passed over that may be images: unlabelled/scan.webp." in told.getMessage()


def _with_counts(folder, **counts):
    for label, count in counts.items():
        for number in range(count):
            path = folder / "train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(
                np.random.default_rng([*label.encode(), number]).integers(0, 255, (8, 8), np.uint8)
            ).save(path)
    return folder


def test_a_rare_class_takes_nobodys_validation_away(tmp_path, caplog):
    images = _with_counts(tmp_path / "images", often=20, rare=4)
    cohort = usable_cohort(images, options(hold_out=0.2))
    assert [item.label for item in cohort.validation] == ["often"] * 4
    assert sum(item.label == "rare" for item in cohort.training) == 4
    assert len(cohort.training) == 20
    assert "Fewer than 5 labeled images of rare" in caplog.text
    assert any("held out, none of rare: fewer than 5" in said for said in check_folder(images).remarks)


def test_a_rare_image_stays_with_its_group(tmp_path):
    """A patient with images of both classes validates with all of them."""
    images = _with_counts(tmp_path / "images", often=20, rare=4)
    rows = [
        {
            "path": f"images/train/{label}/{number}.png",
            "label": label,
            "split": "train",
            "group": str(number % 4),
        }
        for label, count in (("often", 20), ("rare", 4))
        for number in range(count)
    ]
    write_csv(tmp_path / "images.csv", rows, list(rows[0]))
    cohort = usable_cohort(tmp_path / "images.csv", options(hold_out=0.2))
    groups = [{item.group for item in items} for items in (cohort.training, cohort.validation)]
    assert groups[1]
    assert not groups[0] & groups[1]
    assert images.is_dir()


@pytest.mark.parametrize("copies", [False, True], ids=["one group", "copies of one image"])
def test_a_class_that_stays_together_as_a_whole_is_not_held_out(copies, tmp_path, caplog):
    images = _with_counts(tmp_path / "images", often=6, rare=3)
    rows = [
        {"path": f"images/train/{label}/{number}.png", "label": label, "split": "train", "group": group}
        for label, count, group in (("often", 6, "" if copies else "one"), ("rare", 3, ""))
        for number in range(count)
    ]
    if copies:
        for number in range(1, 6):
            shutil.copyfile(
                images / "train" / "often" / "0.png", images / "train" / "often" / f"{number}.png"
            )
    write_csv(tmp_path / "images.csv", rows, list(rows[0]))
    cohort = usable_cohort(tmp_path / "images.csv", options(hold_out=0.3))
    assert (len(cohort.training), cohort.validation) == (9, ())
    assert "hold all labeled images of a class together, so none is held out" in caplog.text


def test_where_nothing_can_be_held_out_that_is_said(tmp_path, caplog):
    images = _with_counts(tmp_path / "images", one=4, two=4)
    assert usable_cohort(images, options(hold_out=0.3)).validation == ()
    assert "none is held out" in caplog.text
    assert any("nothing will be held out" in said for said in check_folder(images).remarks)


def test_few_labels_are_drawn_and_some_held_out(tmp_path):
    images = write_pictures(tmp_path / "images", training=12, validation=0)
    run = train_classifier(images, tmp_path / "run", options(labels_per_class=10)).run
    counts = json.loads((run / "run.json").read_text())["images"]
    assert counts["training"] == 16
    assert counts["validation"] == 4


def test_the_run_folder_names_no_place_and_lists_every_image(pictures, tmp_path):
    run = train_classifier(pictures, tmp_path / "run", options(method="ssldec")).run
    assert not [path for path in texts(run) if str(tmp_path) in path.read_text()]
    cohort = read_image_cohort(run / "images.csv", allow_outside=True)
    assert len(cohort.unlabeled) == 20
    assert len(cohort.training) == 12


def test_the_averaged_network_is_the_one_that_is_kept(pictures, tmp_path):
    run = train_classifier(pictures, tmp_path / "run", options(settings={"average": 0.0})).run
    resume = torch.load(run / "checkpoints" / "resume.pt", weights_only=True)
    head = next(name for name in resume["model"] if name.endswith("weight"))
    assert torch.equal(resume["teacher"][head], resume["model"][head])


def test_prepared_images_are_kept_in_a_file_until_the_training_ends(pictures, tmp_path):
    chosen = options(method="ssldec", settings={"train#dataset#memory_limit": 1})
    seen = []

    class Looks(Watcher):
        def step(self, step, loss):
            seen.append([path.suffix for path in (tmp_path / "run" / "cache").iterdir()])

    train_classifier(pictures, tmp_path / "run", chosen, Looks())
    assert seen == [[".npy"]] * 4
    assert not (tmp_path / "run" / "cache").exists()


@pytest.mark.parametrize(("method", "aligned"), [("softmatch", True), ("fixmatch", False)])
def test_softmatch_aligns_the_classes_before_it_weighs(method, aligned, pictures, tmp_path):
    run = train_classifier(pictures, tmp_path / "run", options(method=method)).run
    state = torch.load(run / "checkpoints" / "resume.pt", weights_only=True)["objective"]
    assert ("average" in state) == aligned
    assert not aligned or float(state["average"].sum()) == pytest.approx(1)


def test_unreadable_images_are_refused_or_left_out(tmp_path):
    images = write_pictures(tmp_path / "images")
    (images / "unlabelled" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"unlabelled/0\.png"):
        train_classifier(images, tmp_path / "run", options())
    run = train_classifier(images, tmp_path / "run", options(method="ssldec", skip_unreadable=True)).run
    assert json.loads((run / "run.json").read_text())["images"]["unlabeled"] == 19


@pytest.mark.parametrize(
    ("steps", "epochs", "looks"), [(2000, 80, 80), (666, 37, 37), (4, 1, 1), (2003, 2003, 80)]
)
def test_any_number_of_steps_is_looked_at_about_every_25(steps, epochs, looks, pictures, tmp_path):
    cohort = usable_cohort(pictures, options())
    prepare_classifier(tmp_path / "run", cohort, options(steps=steps), pictures)
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert config["epochs"] == epochs
    assert config["epochs"] * config["steps_per_epoch"] == steps
    assert config["epochs"] // config["val_interval"] == looks


def write_arrays(root, channels):
    """A folder whose images have as many channels as the numbers, in turn."""
    images = write_pictures(root / "images")
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        values = np.asarray(Image.open(path))[..., None].repeat(channels[number % len(channels)], 2)
        np.save(path.with_suffix(".npy"), values)
        path.unlink()
    return images


@pytest.mark.parametrize("preset", ["natural", "none"])
def test_as_many_channels_as_all_images_have_are_taken(preset, tmp_path):
    images = write_arrays(tmp_path, [5])
    run = train_classifier(images, tmp_path / "run", options(channels=None, preset=preset)).run
    metadata = json.loads((run / "configs" / "metadata.json").read_text())
    described = metadata["network_data_format"]["inputs"]["image"]
    assert described["num_channels"] == len(described["channel_def"]) == 5
    assert load_classifier(run).card.channels == 5


def test_channels_that_no_network_could_take_together_are_refused(tmp_path):
    images = write_arrays(tmp_path, [5, 3])
    with pytest.raises(InputError, match=r"3 channels \(.*\), 5 channels \(.*convert the others"):
        train_classifier(images, tmp_path / "run", options(channels=None))
    assert not (tmp_path / "run").exists()


def test_a_single_image_of_other_channels_is_refused_before_anything_is_trained(tmp_path):
    images = write_pictures(tmp_path / "images", unlabeled=150)
    np.save(images / "unlabelled" / "zz.npy", np.zeros((16, 16, 5), np.uint8))
    with pytest.raises(InputError, match=r"5 channels \(unlabelled/zz\.npy\)"):
        train_with_baseline(images, tmp_path / "run", options(channels=None, method="ssldec"))
    assert not (tmp_path / "run").exists()


def test_how_images_are_prepared_reaches_prediction_and_the_exported_file(tmp_path):
    """Wide images of 16 bits: squashed instead of cut, and with one white, everywhere alike."""
    images = write_pictures(tmp_path / "images")
    for path in images.rglob("*.png"):
        wide = np.asarray(Image.open(path)).repeat(2, axis=1).astype(np.uint16)
        Image.fromarray(wide * (1 if path.stem == "0" else 10)).save(path)
    run = train_classifier(images, tmp_path / "run", options(fit="squash")).run
    assert "--fit squash" in json.loads((run / "run.json").read_text())["command"]
    inference = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    assert (inference["fit"], inference["white"]) == ("squash", 4095)
    network = load_classifier(run)
    assert (network.card.fit, network.card.white) == ("squash", 4095)
    items = read_image_cohort(images).test
    found = torch.cat(list(prepared(items, preprocessings(network.card))))
    prepare = image_preprocessing(16, 1, fit="squash", white=4095)
    assert torch.equal(found, torch.stack([prepare(read_image(item.path)) for item in items]))
    pytest.importorskip("onnxruntime")
    file = open_classifier(export_run(run, tmp_path / "files", images).folder / "model.onnx")
    assert (file.card.fit, file.card.white) == ("squash", 4095)


def test_smoothing_class_weights_and_balanced_draws_reach_the_training(pictures, tmp_path):
    plain = train_classifier(pictures, tmp_path / "plain", options()).run
    for number, chosen in enumerate(
        (
            {"label_smoothing": 0.3},
            {"class_weights": "balanced"},
            {"balanced": True},
            {"logit_adjustment": 1.0},
        )
    ):
        run = train_classifier(pictures, tmp_path / str(number), options(**chosen)).run
        config = yaml.safe_load((run / "configs" / "train.yaml").read_text())
        name, value = next(iter(chosen.items()))
        key = {"logit_adjustment": "log_prior"}.get(name, name)
        assert config[key] != yaml.safe_load((plain / "configs" / "train.yaml").read_text())[key]
        assert f"--{name.replace('_', '-')}" in json.loads((run / "run.json").read_text())["command"], value


def test_balanced_class_weights_let_classes_count_alike(pictures):
    cohort = usable_cohort(pictures, options())
    fewer = replace(cohort, training=[item for item in cohort.training if item.label != CLASSES[0]])
    some = replace(cohort, training=(*fewer.training, *cohort.training[:1]))
    counts = [sum(item.label == name for item in some.training) for name in some.classes]
    weights_of = class_weights(some, "balanced")
    assert len({round(weight * count, 9) for weight, count in zip(weights_of, counts, strict=True)}) == 1
    assert sum(w * c for w, c in zip(weights_of, counts, strict=True)) == pytest.approx(len(some.training))
    assert class_weights(some, "none") is None
    with pytest.raises(ConfigError, match="rule of class weights 'half'"):
        class_weights(some, "half")


def test_another_schedule_reaches_the_training(pictures, tmp_path):
    given = options(settings={"lr_scheduler#_target_": "medssl.engines.one_cycle"})
    run = train_classifier(pictures, tmp_path / "run", given).run
    events = table(run / "metrics.tsv")
    assert float(events[-1]["learning_rate"]) == 0
    plain = train_classifier(pictures, tmp_path / "plain", options()).run
    assert not same(weights(run), weights(plain))


def test_the_log_prior_is_that_of_the_labels(pictures):
    cohort = usable_cohort(pictures, options())
    one = next(item for item in cohort.training if item.label == CLASSES[1])
    some = replace(cohort, training=(*[item for item in cohort.training if item.label == CLASSES[0]], one))
    n = len(some.training)
    expected = {CLASSES[0]: 0.5 * math.log((n - 1) / n), CLASSES[1]: 0.5 * math.log(1 / n)}
    assert log_prior(some, 0.5) == pytest.approx([expected[name] for name in some.classes])
    assert log_prior(some, 0) is None


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"logit_adjustment": 1.0}, "pulls answers back"),
        ({"class_weights": "balanced"}, "pulls answers back"),
        ({"balanced": True}, "equally frequent"),
        ({"logit_adjustment": 1.0, "target_rule": "sharpen"}, ""),
        ({"target_rule": "dec"}, "'dec' takes images from larger classes"),
        ({}, ""),
    ],
)
def test_what_the_rule_prior_makes_of_rare_classes_is_told(given, warned, pictures, tmp_path, caplog):
    chosen = options(method="ssldec", **given)
    prepare_classifier(tmp_path / "run", usable_cohort(pictures, chosen), chosen, pictures)
    assert warned in caplog.text
    assert ("'prior'" in caplog.text) == bool(warned)


@pytest.mark.parametrize("other", [{"balanced": True}, {"class_weights": "balanced"}, {"method": "mixmatch"}])
def test_logit_adjustment_stands_alone(other, pictures, tmp_path):
    with pytest.raises(ConfigError, match="--logit-adjustment"):
        train_classifier(pictures, tmp_path / "run", options(logit_adjustment=1.0, **other))
    assert not (tmp_path / "run").exists()


def test_mixmatch_refuses_what_mixing_takes_the_meaning_from(pictures, tmp_path):
    with pytest.raises(ConfigError, match="MixMatch mixes labels"):
        train_classifier(pictures, tmp_path / "run", options(method="mixmatch", label_smoothing=0.1))
    assert not (tmp_path / "run").exists()


def test_the_weights_say_what_made_them(pictures, tmp_path):
    run = train_classifier(pictures, tmp_path / "run", options(seed=5)).run
    extra = load_classifier(run).card.extra
    assert (extra["seed"], extra["budget"]["steps"]) == (5, 4)
    assert extra["command"].startswith("medssl classify train ")
    assert {"torch", "timm", "pillow"} <= set(extra["versions"])
    assert extra["validation"]["images"] == 24
    assert 0 <= extra["validation"]["accuracy"] <= 1
    assert str(tmp_path) not in json.dumps(extra)


def test_a_run_copies_its_weights_and_names_no_folder_in_full(pictures, tmp_path):
    weights = tmp_path / "ours" / "weights.pt"
    weights.parent.mkdir()
    torch.save(build_classifier("test_resnet", 2).backbone.state_dict(), weights)
    chosen = options(
        network="test_resnet", channels=3, size=32, pretrained=str(weights), method="mean-teacher"
    )
    out = tmp_path / "run"
    content = weights.read_bytes()
    with pytest.raises(TrainingInterrupted):
        train_with_baseline(pictures, out, replace(chosen, steps=2), StopAfter(1))
    weights.unlink()
    train_with_baseline(pictures, out, ClassifyOptions(), resume=True)
    for folder in (out, *(out / "candidates").iterdir()):
        assert (folder / "models" / "pretrained.pt").read_bytes() == content
    kept = read_json(out / "plan.json")["options"]
    assert kept["pretrained"] == "given/pretrained/weights.pt"
    assert Path(planned(kept, out).pretrained).read_bytes() == content
    assert "| the file weights.pt;" in (out / "MODEL_CARD.md").read_text()
    for path in out.rglob("*"):
        if path.suffix in (".json", ".yaml", ".csv", ".tsv", ".md", ".log"):
            assert str(tmp_path) not in path.read_text(), path


@pytest.mark.parametrize("method", ["supervised", "mean-teacher"])
def test_a_network_to_go_on_from_is_copied_too(method, pictures, tmp_path):
    first = train_classifier(pictures, tmp_path / "first", options()).run
    (tmp_path / "home").mkdir()
    given = tmp_path / "home" / "network.pt"
    shutil.copyfile(first / "models" / "model.pt", given)
    chosen = options(method=method, seed=7, settings={"init_weights": str(given), "learning_rate": 1e-9})
    out = tmp_path / "run"
    train = train_classifier if method == "supervised" else train_with_baseline
    train(pictures, out, chosen)
    copied = (out / "models" / "init_weights.pt").read_bytes()
    assert copied == given.read_bytes()
    for path in out.rglob("*"):
        if path.suffix in (".json", ".yaml", ".csv", ".tsv", ".md", ".log"):
            assert str(tmp_path) not in path.read_text(), path
    card = (out / "MODEL_CARD.md").read_text()
    assert "the given weights; their license is not known here" in card
    assert "home/" not in card
    one, other = weights(first), weights(out)
    kernels = [name for name, value in one.items() if value.ndim == 4]
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in kernels), "began there"


def test_weights_are_given_with_their_own_option(pictures, tmp_path):
    with pytest.raises(ConfigError, match="--pretrained"):
        train_classifier(pictures, tmp_path / "run", options(settings={"pretrained": "weights.pt"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_a_license_that_is_not_free_stands_on_the_card(bound, both, pictures, tmp_path, monkeypatch):
    facts = replace(network_facts("test_resnet"), license="vendor-license" if bound else "mit")
    monkeypatch.setattr("medssl.workflows.classification.model_card.network_facts", lambda _: facts)
    torch.save(build_classifier("test_resnet", 2).backbone.state_dict(), tmp_path / "weights.pt")
    chosen = options(network="test_resnet", channels=3, size=32, pretrained=str(tmp_path / "weights.pt"))
    if both:
        train_with_baseline(pictures, tmp_path / "run", replace(chosen, method="mean-teacher", steps=2))
    else:
        train_classifier(pictures, tmp_path / "run", chosen)
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "| started from | the file weights.pt; its license is not known here |" in card
    told = (
        "**License.** The published weights of test_resnet, if it began with those, are under vendor-license"
    )
    assert (told in card) == bound


@pytest.mark.parametrize(
    ("network", "values", "words"),
    [
        ("fastvit_t8", {"pretrained": "cached"}, "weights of fastvit_t8 are under fastvit-license"),
        ("mobileone_s1", {"pretrained": "a.pt"}, "if it began with those, are under mobileone-license"),
        ("mobileone_s1", {"init_weights": "a.pt", "pretrained": "cached"}, "if it began with those"),
        ("fastvit_t8", {"pretrained": None}, ""),
        ("fastvit_t8", {"init_weights": "$@bundle_root + '/models/init.pt'", "pretrained": None}, ""),
        (
            "fastvit_t8",
            {"init_weights": "$@bundle_root + '/models/init.pt'", "pretrained": "cached"},
            "weights of fastvit_t8 are under",
        ),
        ("resnet18", {"pretrained": "cached"}, ""),
    ],
)
def test_only_weights_that_are_not_free_are_warned_of(network, values, words):
    found = license_warning(network, values)
    assert words in found
    assert bool(found) == bool(words)


QUICK = {"steps_per_epoch": 1, "learning_rate": 0.01, "average": 0.5}
"""Settings with which a network is soon right about most images, and its best step is not its last one."""


def trained_alone(images, out):
    return train_classifier(images, out, options(settings=QUICK | {"epochs": 4})).run


def trained_with_baseline(images, out):
    settings = QUICK | {"epochs": 4, "unlabeled_start": 0.0}
    return train_with_baseline(images, out, options(method="ssldec", settings=settings)).training.run


def trained_by_teachers(images, out):
    student = options(steps=12, settings=QUICK | {"epochs": 6})
    rule = KeepRule(threshold=0.5, energy_percentile=60)
    return distill(images, out, DistillOptions(student=student, rule=rule, calibrated=True)).training.run


def write_validated_pictures(root):
    """Two classes in which some validation images have the wrong label, so that a temperature can be fitted."""
    images = write_pictures(root, test=12)
    for number in range(3):
        dark, light = (images / "val" / name / f"{number}.png" for name in CLASSES)
        one, other = dark.read_bytes(), light.read_bytes()
        dark.write_bytes(other)
        light.write_bytes(one)
    return images


def replace_test_images(images):
    """Give each class deeper pictures of the other one, and one class most of them."""
    shutil.rmtree(images / "test")
    for label, count in enumerate((16, 4)):
        folder = images / "test" / CLASSES[label]
        folder.mkdir(parents=True)
        for number in range(count):
            values = picture(1 - label, 1000 + number).astype(np.uint16) * 200
            Image.fromarray(values).save(folder / f"{number}.png")


def learned(run):
    """What a run learned, chose and said, without the clock and the number of its images."""
    told = [*run.glob("verdict.json"), *run.glob("pseudo_labels/*")]
    found = {path.relative_to(run): path.read_text() for path in told}
    found |= {path.relative_to(run): table(path) for path in run.rglob("metrics.tsv")}
    for path in run.rglob("model.pt"):
        state = torch.load(path, weights_only=True)
        values = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
        card = classifier_card_of(state)
        found[path.relative_to(run)] = values, replace(card, extra={**card.extra, "images": None})
    return found


def temperatures(run):
    found = [classifier_card_of(weights(run)).temperature]
    for path in run.glob("pseudo_labels/round-1.json"):
        found += read_json(path)["temperatures"]
    return found


@pytest.mark.parametrize("train", [trained_alone, trained_with_baseline, trained_by_teachers])
def test_training_does_not_look_at_test_images(train, tmp_path):
    """D13: weights, temperatures, verdict and pseudo-labels are the same where there are none, or others."""
    places = [write_validated_pictures(tmp_path / name / "images") for name in ("own", "none", "others")]
    shutil.rmtree(places[1] / "test")
    replace_test_images(places[2])
    own, none, others = (train(images, images.parent / "run") for images in places)
    assert 1.0 not in temperatures(own)
    assert learned(none) == learned(own)
    assert learned(others) == learned(own)


def test_a_run_killed_before_its_temperature_was_fitted_is_resumed(pictures, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medssl.workflows.classification.train.calibrate", killed)
        with pytest.raises(TrainingInterrupted):
            train_classifier(pictures, tmp_path / "run", options())
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    seen = []
    monkeypatch.setattr(
        "medssl.workflows.classification.train.calibrate",
        lambda run, images, record, device: seen.append(len(images)),
    )
    train_classifier(pictures, tmp_path / "run", resume=True)
    assert seen
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]


@pytest.mark.parametrize("transductive", [False, True])
def test_copies_do_not_stand_on_both_sides_of_a_carved_validation(tmp_path, transductive, caplog):
    """Folders often hold the labeled images among the unlabeled ones once more."""
    images = write_pictures(tmp_path / "images", training=10, validation=0, unlabeled=3)
    for label in ("dark", "light"):
        for path in (images / "train" / label).iterdir():
            shutil.copyfile(path, images / "unlabelled" / f"{label}-{path.name}")
        shutil.copyfile(images / "train" / label / "0.png", images / "train" / label / "again.png")
    cohort = usable_cohort(images, options(transductive=transductive))
    content = {name: {one.path.read_bytes() for one in cohort.section(name)} for name in SECTIONS}
    assert content["validation"]
    assert not content["validation"] & content["training"]
    assert bool(content["validation"] & content["unlabeled"]) is transductive
    assert len(cohort.training) + len(cohort.validation) == 22
    assert len(cohort.unlabeled) == 23 - (0 if transductive else len(content["validation"]))
    assert ("unlabeled images left out" in caplog.text) is not transductive


def test_few_labels_are_not_given_to_copies_of_one_image(tmp_path):
    images = write_pictures(tmp_path / "images", training=4, validation=0, test=0)
    for path in sorted(images.glob("train/*/*.png")):
        for number in range(3):
            shutil.copyfile(path, path.with_name(f"{path.stem}-{number}.png"))
    for seed in range(5):
        cohort = usable_cohort(images, options(labels_per_class=4, hold_out=0.0, seed=seed))
        assert len({item.path.read_bytes() for item in cohort.training}) == len(cohort.training) == 8


def test_rounds_without_a_baseline_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match="--rounds belongs"):
        train_classifier(pictures, tmp_path / "run", options(rounds=2))
    assert not (tmp_path / "run").exists()
