"""What MONAI and MONAI Label expect of the bundle, and what keeps it healthy."""

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser, create_workflow
from phantoms import ellipsoid_labels, save, write_subject

import medssl
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import sha256
from medssl.labels import BRAIN_TISSUES

BUNDLE = Path(__file__).parents[2] / "bundles" / "infant_brain_segmentation"
CONFIGS = BUNDLE / "configs"
OVERLAYS = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem not in {"train", "inference"})
VOCABULARY = {
    "imports", "bundle_root", "dataset_dir", "device", "initialize", "run", "finalize", "train", "validate",
    "evaluator", "inferer", "dataset", "dataloader", "datalist", "preprocessing", "postprocessing", "handlers",
    "network", "network_def", "num_workers", "image_key", "resume", "init_weights", "leak_check",
}  # fmt: skip


def read(name):
    return yaml.safe_load((CONFIGS / name).read_text())


def merged(*names):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    return {key: value for key, value in parser.config.items() if key != "_meta_"}


@pytest.fixture
def metadata():
    return json.loads((CONFIGS / "metadata.json").read_text())


METHODS = ["train_ssldec.yaml", "train_pseudo_label.yaml", "train_mean_teacher.yaml"]
TRAININGS = [
    ["train.yaml"],
    *[["train.yaml", name] for name in METHODS],
    *[["train.yaml", name, "train_rounds.yaml"] for name in METHODS],
]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        *[(files, "train") for files in TRAININGS],
        (["inference.yaml"], "infer"),
        (["inference.yaml", "inference_ssldec.yaml"], "infer"),
    ],
)
def test_monai_finds_every_property(files, kind, bundle):
    workflow = create_workflow(
        config_file=[str(bundle / "configs" / name) for name in files],
        workflow_type=kind,
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        load_pretrain=False,
        **({"epochs": 4} if kind == "train" else {}),
    )
    assert workflow.check_properties() == []


def test_metadata_fit_the_schema(metadata):
    schema = json.loads((Path(__file__).parent / "meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)


def test_metadata_state_the_current_version(metadata):
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["medssl"] == medssl.__version__


def test_channels_are_those_of_the_label_table_and_contrasts(metadata):
    data_format = metadata["network_data_format"]
    pred = data_format["outputs"]["pred"]
    assert pred["channel_def"] == {str(n): label.name for n, label in enumerate(BRAIN_TISSUES)}
    assert pred["num_channels"] == len(BRAIN_TISSUES)
    assert list(data_format["inputs"]["image"]["channel_def"].values()) == read("train.yaml")["contrasts"]


@pytest.mark.parametrize(
    "name",
    ["network_def", "network", "contrasts", "label_table", "spacing", "crop_size", "labels", "inferer"],
)
def test_train_and_inference_agree(name):
    train, inference = read("train.yaml"), read("inference.yaml")
    trained = train["validate"]["inferer"] if name == "inferer" else train[name]
    assert trained == inference[name]


def test_train_and_inference_prepare_scans_by_the_same_factory():
    train, inference = read("train.yaml")["preprocessing"], dict(read("inference.yaml")["preprocessing"])
    assert inference.pop("keys") == ["@image_key", "mask"]
    assert train == inference


def below(overlay):
    """Return the configurations that an overlay is laid over."""
    if overlay == "train_rounds_anatomy.yaml":
        return ["train.yaml", "train_ssldec.yaml", "train_anatomy.yaml", "train_rounds.yaml"]
    return ["inference.yaml" if overlay.startswith("inference") else "train.yaml"]


STACKS = [
    ["train.yaml"],
    ["inference.yaml"],
    *[[*below(path.name), path.name] for path in OVERLAYS],
    *TRAININGS[4:],
]


@pytest.mark.parametrize("files", STACKS)
def test_no_key_is_dead(files):
    config = merged(*files)
    text = json.dumps(config)
    own = {key for key in config if not re.search(rf"[@%]{key}(#|\b)", text)}
    assert own <= VOCABULARY


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_overlays_are_short_and_change_what_is_there(path):
    """New values at the top are numbers for users; `test_no_key_is_dead` sees to it that something reads them."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 25
    base = ConfigParser(merged(*below(path.name)))
    parents = {name.rpartition("#")[0] for name in read(path.name) if "#" in name}
    assert not [name for name in parents if name not in base]


@pytest.mark.parametrize("files", TRAININGS[1:])
def test_training_does_not_end_before_unlabeled_scans_come_in(files):
    """Early stopping waits from the first validation on, unlabeled crops come after .3 or half of the steps."""
    assert merged("train.yaml")["patience"] > 0
    assert merged(*files)["patience"] == 0


@pytest.mark.parametrize(
    ("files", "known"), [(["train.yaml"], "123"), (["train.yaml", "train_ssldec.yaml"], "123456")]
)
def test_the_resume_point_knows_the_files_of_the_scans_that_are_used(bundle_with_unlabeled, files, known):
    root = bundle_with_unlabeled
    parser = ConfigParser()
    parser.read_config([str(root / "configs" / name) for name in files])
    parser["bundle_root"] = str(root)
    data = parser.get_parsed_content("train#resume_point").data
    names = {f"sub-0{number}/anat/sub-0{number}_{kind}.nii.gz" for number in known for kind in ("T1w", "T2w")}
    labels = {name for name in data if name.startswith("derivatives/")}
    assert set(data) - labels == names
    assert len(labels) == 3
    assert all(data[name] == sha256(root / "data" / name) for name in data)


@pytest.mark.parametrize("mask", ["none", None])
def test_ssldec_gives_background_a_cluster_where_scans_have_no_mask(tmp_path, mask):
    for name in ("a", "b"):
        write_subject(tmp_path, name, seed=1)
    cohort = read_cohort(tmp_path, mask=mask)
    write_datalist(tmp_path / "datalist.json", cohort)
    parser = ConfigParser(merged("train.yaml", "train_ssldec.yaml"))
    parser["dataset_dir"] = str(tmp_path)
    assert parser.get_parsed_content("background_cluster") is (mask == "none")
    assert parser.get_parsed_content("network_def").first == (0 if mask == "none" else 1)


@pytest.mark.parametrize("complete", [True, False])
def test_ssldec_tells_of_labels_that_leave_out_a_part_of_the_brain(tmp_path, caplog, complete):
    write_subject(tmp_path, "a", seed=1)
    if not complete:
        (path,) = tmp_path.rglob("*dseg.nii.gz")
        labels = ellipsoid_labels()
        save(path, np.where(labels == 3, 0, labels).astype(np.uint8), np.diag([2.0, 2, 2, 1]))
    parser = ConfigParser(merged("train.yaml", "train_ssldec.yaml"))
    parser["dataset_dir"], parser["spacing"], parser["crop_size"] = str(tmp_path), [2.0] * 3, [16] * 3
    parser.get_parsed_content("train#vanishing")
    assert ("--background_cluster true" in caplog.text) is not complete


@pytest.mark.parametrize("bundle", ["infant_brain_segmentation", "compact_image_classification"])
@pytest.mark.parametrize(
    "overlay", ["train_ssldec.yaml", "train_mean_teacher.yaml", "train_pseudo_label.yaml"]
)
@pytest.mark.parametrize("unlabeled", [[], ["some"]])
def test_the_step_that_is_kept_is_one_that_unlabeled_data_taught(bundle, overlay, unlabeled):
    configs = CONFIGS.parents[1] / bundle / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / name) for name in ("train.yaml", overlay)])
    parser["train#unlabeled#data"], parser["train#sampler#steps"], parser["unlabeled_start"] = (
        unlabeled,
        100,
        0.4,
    )
    begin = parser.get_parsed_content("train#best_model#begin")
    assert begin == (40 if unlabeled else 0)
    assert not unlabeled or begin == parser.get_parsed_content("train#sampler#mixture#start")
    assert parser.get_parsed_content("train#early_stopping#begin") == begin


def test_handlers_are_a_list_that_label_can_insert_into():
    assert all("_target_" in handler for handler in read("train.yaml")["train"]["handlers"])
    assert read("train.yaml")["train"]["unlabeled"]["data"] == []


def test_the_learning_rate_follows_the_epochs_that_label_overrides():
    train = read("train.yaml")
    assert train["lr_scheduler"]["steps"] == "@train#sampler#steps"
    assert "@train#trainer#max_epochs" in train["train"]["sampler"]["steps"]


def test_no_file_names_a_place_on_a_machine():
    texts = [path for path in BUNDLE.rglob("*") if path.suffix in {".yaml", ".json", ".md", ".txt", ".conf"}]
    places = re.compile(r"/home/|/root/|/tmp/|/work/|/workspace|/opt/|[A-Z]:\\\\")
    assert not [path.name for path in texts if places.search(path.read_text())]


def test_files_that_the_model_zoo_expects_are_there():
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.yaml", "configs/logging.conf", "docs/README.md",
                 "docs/data_license.txt", "models/model.pt"):  # fmt: skip
        assert (BUNDLE / name).is_file(), name


def test_the_packaged_weights_fit_the_configuration():
    from medssl.workflows.models import load_model

    model = load_model()
    assert model.table == BRAIN_TISSUES
    assert model.contrasts == ("T1w", "T2w")
    assert "simulated" in model.trained_on


@pytest.mark.parametrize("bundle", ["infant_brain_segmentation", "compact_image_classification"])
def test_memory_that_steps_free_is_kept_and_given_back_to_this_validation(bundle):
    config = yaml.safe_load((BUNDLE.parent / bundle / "configs" / "train.yaml").read_text())
    kept, validation = (
        next(one for one in config["train"]["handlers"] if one["_target_"] == f"medssl.engines.{name}")
        for name in ("KeepFreedMemory", "Validation")
    )
    assert kept["validator"] == validation["validator"] == "@validate#evaluator"
