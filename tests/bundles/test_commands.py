"""Every command line that the bundle's page prints, run as printed."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

RUN = ["python", "-m", "monai.bundle", "run", "--config_file"]
NETWORK = [
    "--net_id",
    "network_def",
    "--meta_file",
    "configs/metadata.json",
    "--config_file",
    "configs/inference.yaml",
]


def test_train_writes_weights_curve_and_resume_point(trained):
    assert (trained / "models" / "model.pt").is_file()
    assert (trained / "eval" / "checkpoints" / "resume.pt").is_file()
    with (trained / "eval" / "metrics.tsv").open() as file:
        steps = [(row["step"], bool(row["val_dice"])) for row in csv.DictReader(file, delimiter="\t")]
    assert steps == [("2", True), ("4", True)]


def test_numbers_can_be_changed_on_the_command_line(trained, shell):
    before = trained / "models" / "model.pt"
    kept = before.read_bytes()
    shell([*RUN, "configs/train.yaml", "--epochs", "5", "--train#dataloader#batch_size", "1"], trained)
    with (trained / "eval" / "metrics.tsv").open() as file:
        assert [row["step"] for row in csv.DictReader(file, delimiter="\t")][-1] == "10"
    before.write_bytes(kept)


def test_evaluate_writes_the_scores(trained, shell):
    shell([*RUN, "['configs/train.yaml','configs/evaluate.yaml']"], trained)
    for name in ("metrics.csv", "val_mean_dice_raw.csv", "val_mean_dice_summary.csv"):
        assert (trained / "eval" / name).is_file()
    assert "sub-03_T1w" in (trained / "eval" / "val_mean_dice_raw.csv").read_text()


def _require_maps_on_the_scans_grid(out: Path, data: Path):
    maps = sorted(out.rglob("*_T1w_seg.nii.gz"))
    assert len(maps) == 3
    for path in maps:
        scan = nib.load(next(data.rglob(path.name.replace("_seg", ""))))
        made = nib.load(path)
        assert made.shape == scan.shape
        assert np.allclose(made.affine, scan.affine)
        assert set(np.unique(made.dataobj)) <= {0, 1, 2, 3}


def test_inference_writes_maps_on_the_scans_grid(trained, shell):
    shell([*RUN, "configs/inference.yaml"], trained)
    _require_maps_on_the_scans_grid(trained / "eval", trained / "data")


def test_inference_runs_from_any_folder(trained, shell, tmp_path):
    config = str(trained / "configs" / "inference.yaml")
    shell([*RUN, config, "--bundle_root", str(trained), "--output_dir", str(tmp_path / "maps")], tmp_path)
    _require_maps_on_the_scans_grid(tmp_path / "maps", trained / "data")


def test_two_processes_train_one_model(trained, shell, tmp_path):
    copy = tmp_path / trained.name
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("models", "eval"))
    files = "['configs/train.yaml','configs/multi_gpu_train.yaml']"
    launch = ["torchrun", "--standalone", "--nnodes=1", "--nproc_per_node=2", "-m", "monai.bundle", "run"]
    shell([*launch, "--config_file", files, "--epochs", "2"], copy)
    weights = torch.load(copy / "models" / "model.pt", weights_only=True)
    assert not [name for name in weights if name.startswith("module.")]
    with (copy / "eval" / "metrics.tsv").open() as file:
        assert [row["step"] for row in csv.DictReader(file, delimiter="\t")] == ["2", "4"]


def test_metadata_are_verified_offline(trained, shell, tmp_path):
    schema = shutil.copy(Path(__file__).parent / "meta_schema_20240725.json", tmp_path / "schema.json")
    hash_options = ["--hash_val", "76e1add273836515d0bbb3bc71962474", "--hash_type", "md5"]
    command = [
        "verify_metadata",
        "--meta_file",
        "configs/metadata.json",
        "--filepath",
        str(schema),
        *hash_options,
    ]
    assert "metadata is verified with no error" in shell(["python", "-m", "monai.bundle", *command], trained)


def test_network_shapes_are_verified(trained, shell):
    printed = shell(["python", "-m", "monai.bundle", "verify_net_in_out", *NETWORK], trained)
    assert "data shape of network is verified with no error" in printed


def _forward(path: Path, shape: tuple[int, ...]) -> torch.Size:
    return torch.jit.load(path)(torch.zeros(shape)).shape


@pytest.mark.parametrize("extra", [[], ["--use_trace", "True", "--input_shape", "[1,2,32,32,32]"]])
def test_torchscript_export_loads_and_runs(trained, shell, extra):
    files = ["--filepath", "models/model.ts", "--ckpt_file", "models/model.pt"]
    shell(["python", "-m", "monai.bundle", "ckpt_export", *NETWORK, *files, *extra], trained)
    assert _forward(trained / "models" / "model.ts", (1, 2, 32, 32, 32)) == (1, 4, 32, 32, 32)
    (trained / "models" / "model.ts").unlink()


def test_onnx_export_is_dynamic_and_agrees(trained, shell):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    axes = "{0:'b',2:'h',3:'w',4:'d'}"
    options = (
        f"{{'input_names':['image'],'output_names':['pred'],'dynamic_axes':{{'image':{axes},'pred':{axes}}},"
        "'verify':True,'use_ort':True,'atol':1e-3,'rtol':1e-3}"
    )
    files = [
        "--filepath",
        "models/model.onnx",
        "--ckpt_file",
        "models/model.pt",
        "--input_shape",
        "[1,2,32,32,32]",
    ]
    shell(
        ["python", "-m", "monai.bundle", "onnx_export", *NETWORK, *files, "--converter_kwargs", options],
        trained,
    )
    session = onnxruntime.InferenceSession(trained / "models" / "model.onnx")
    image = np.zeros((2, 2, 64, 32, 64), np.float32)
    assert session.run(None, {"image": image})[0].shape == (2, 4, 64, 32, 64)
    for path in (trained / "models").glob("model.onnx*"):
        path.unlink()


def test_large_files_command_has_nothing_to_fetch(trained, shell):
    shell(["python", "-m", "monai.bundle", "download_large_files", "--bundle_path", "."], trained)


def test_the_command_line_and_the_bundle_give_the_same_weights(trained, shell, tmp_path):
    options = ["--seed", "3", "--device", "cpu", "--budget", "quick"]
    small = ["crop_size=[32,32,32]", "batch_size=2", "epochs=2", "steps_per_epoch=2", "val_interval=1"]
    settings = [word for pair in small for word in ("--set", pair)]
    shell(["medssl", "train", "data", "--out", str(tmp_path / "run"), *options, *settings], trained)
    changed = ["--seed", "3", "--ckpt_dir", str(tmp_path / "models"), "--output_dir", str(tmp_path / "eval")]
    shell([*RUN, "configs/train.yaml", *changed], trained)
    first = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    second = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_repeats_itself_as_a_bundle(trained, shell, tmp_path):
    small = ["crop_size=[32,32,32]", "batch_size=2", "epochs=1", "steps_per_epoch=2", "val_interval=1"]
    settings = [word for pair in small for word in ("--set", pair)]
    run = tmp_path / "run"
    shell(
        ["medssl", "train", "data", "--out", str(run), "--device", "cpu", "--budget", "quick", *settings],
        trained,
    )
    before = torch.load(run / "models" / "model.pt", weights_only=True)
    shell([*RUN, "configs/train.yaml", "--ckpt_dir", str(tmp_path / "again")], run)
    after = torch.load(tmp_path / "again" / "model.pt", weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before)
    record = json.loads((run / "run.json").read_text())
    assert record["finished"]
