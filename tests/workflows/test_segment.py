import json
import os
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from phantoms import TINY, ellipsoid_labels, phantom_image, save, write_subject

from medssl.errors import CheckpointError, ConfigError, DatalistError, InputError, OutputError
from medssl.inference.predictor import Predictor
from medssl.io.checkpoint import card_of, read_checkpoint, weights_of
from medssl.labels import BRAIN_TISSUES
from medssl.workflows.models import find_weights, load_model
from medssl.workflows.segment import Options, segment
from medssl.workflows.train import TrainOptions, train

FAST = Options(pictures=False, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A network that was trained for some steps on phantoms."""
    root = tmp_path_factory.mktemp("trained")
    for name in ("01", "02"):
        write_subject(root / "cohort", name, int(name))
    settings = {**TINY, "epochs": 20, "learning_rate": 0.01, "augmentation_strength": 0.0}
    train(root / "cohort", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    return root / "run"


@pytest.fixture
def scans(tmp_path) -> Path:
    """Two unlabeled phantoms, the second oblique with unequal transform codes."""
    root = tmp_path / "scans"
    write_subject(root, "a", 5, labeled=False)
    return root


def dseg(out: Path, name: str = "a") -> Path:
    return out / f"sub-{name}" / "anat" / f"sub-{name}_seg-braintissues_dseg.nii.gz"


def beside(path: Path) -> Path:
    return path.with_name(path.name.replace(".nii.gz", ".json"))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("stamped", [True, False])
def test_volumes_of_a_transductive_model_say_so(run, scans, tmp_path, stamped, old):
    """Invariant 10; a run of earlier versions says it in words alone."""
    model = shutil.copytree(run, tmp_path / "model")
    metadata = json.loads((model / "configs" / "metadata.json").read_text())
    assert metadata["transductive"] is False
    if old:
        del metadata["transductive"]
        metadata["data_source"] += ", transductive: held-out scans may be among the unlabeled" * stamped
    else:
        metadata["transductive"] = stamped
        metadata["data_source"] += ", nothing of it transductive"
    (model / "configs" / "metadata.json").write_text(json.dumps(metadata))
    segment(scans, tmp_path / "out", model, FAST)
    header, row = (tmp_path / "out" / "volumes.tsv").read_text().splitlines()
    assert header.endswith("\ttransductive") is row.endswith("\tyes") is stamped
    told = json.loads(beside(dseg(tmp_path / "out")).read_text())
    assert told["Model"]["Transductive"] is stamped


def test_a_map_tells_whether_the_network_learned_from_that_scan(run, tmp_path):
    """Another cohort's scan of the same name is another scan; a copy in another file is the same."""
    both = tmp_path / "both"
    shutil.copytree(run.parent / "cohort", both)
    write_subject(both, "02", 9)
    (both / "sub-copy" / "anat").mkdir(parents=True)
    for path in (both / "sub-01" / "anat").glob("*.nii.gz"):
        nib.save(
            nib.load(path), both / "sub-copy" / "anat" / path.name.removesuffix(".gz").replace("01", "copy")
        )
    segment(both, tmp_path / "out", run, FAST)
    expected = {"01": True, "02": False, "copy": True}
    told = {name: json.loads(beside(dseg(tmp_path / "out", name)).read_text()) for name in expected}
    assert {name: one["Model"]["SeenWithLabel"] for name, one in told.items()} == expected


def test_label_maps_volumes_and_records_are_written(run, scans, tmp_path):
    result = segment(scans, tmp_path / "out", run, Options(probabilities=True, device="cpu"))
    out = tmp_path / "out"
    assert result.done == ["sub-a"]
    labels = np.asarray(nib.load(dseg(out)).dataobj)
    truth = ellipsoid_labels()
    assert np.mean(labels[truth > 0] == truth[truth > 0]) > 0.8
    assert not labels[truth == 0].any()
    header, row = (out / "volumes.tsv").read_text().splitlines()
    volumes = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert float(volumes["GM_ml"]) == pytest.approx(np.sum(labels == 1) * 0.008, rel=1e-4)
    assert (out / "sub-a" / "figures" / "sub-a_seg-braintissues_dseg.png").stat().st_size > 10_000
    sidecar = json.loads(dseg(out).with_name("sub-a_seg-braintissues_dseg.json").read_text())
    assert sidecar["Sources"] == ["sub-a/anat/sub-a_T1w.nii.gz", "sub-a/anat/sub-a_T2w.nii.gz"]
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_probabilities_sum_to_one_and_agree_with_the_labels(run, scans, tmp_path):
    segment(scans, tmp_path / "out", run, Options(probabilities=True, pictures=False, device="cpu"))
    place = tmp_path / "out" / "sub-a" / "anat"
    probabilities = nib.load(place / "sub-a_seg-braintissues_probseg.nii.gz").get_fdata()
    assert probabilities.shape[3] == len(BRAIN_TISSUES)
    assert np.allclose(probabilities.sum(3), 1, atol=1e-5)
    labels = np.asarray(nib.load(dseg(tmp_path / "out")).dataobj)
    assert np.array_equal(probabilities.argmax(3), labels)
    names = json.loads((place / "sub-a_seg-braintissues_probseg.json").read_text())["LabelMap"]
    assert names == ["BG", "GM", "WM", "CSF"]


def test_the_result_lies_on_the_scans_own_oblique_grid(run, tmp_path, affine_oblique):
    labels = ellipsoid_labels((28, 34, 30))
    files = []
    for name, means in (("T1w", (0, 400, 600, 150)), ("T2w", (0, 500, 400, 900))):
        image = nib.Nifti1Image(phantom_image(labels, means, 3), affine_oblique)
        image.set_qform(affine_oblique, 1)
        image.set_sform(affine_oblique, 4)
        files.append(tmp_path / f"x_{name}.nii.gz")
        nib.save(image, files[-1])
    result = segment(files, tmp_path / "out", run, FAST)
    assert result.done == ["sub-x"]
    made, scan = nib.load(dseg(tmp_path / "out", "x")), nib.load(files[0])
    assert made.shape == scan.shape
    assert np.array_equal(made.affine, scan.affine)
    assert [int(made.header[code]) for code in ("qform_code", "sform_code")] == [1, 4]
    assert not np.asarray(made.dataobj)[labels == 0].any()
    assert np.mean(np.asarray(made.dataobj)[labels == 2] == 2) > 0.5


def test_scans_of_iseg_come_back_in_their_own_shape(run, tmp_path):
    """Invariant 9: (x, y, z, 1) in and out, geometry of T1, nothing cropped, background outside the mask."""
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    labels = {"1": ellipsoid_labels(), "23": np.pad(ellipsoid_labels(), ((4, 0), (0, 0), (0, 0)))}
    for name, inside in labels.items():
        for contrast, means in (("T1", (0, 400, 600, 150)), ("T2", (0, 500, 400, 900))):
            path = tmp_path / "iSeg-2017-Testing" / f"subject-{name}-{contrast}.hdr"
            path.parent.mkdir(exist_ok=True)
            image = phantom_image(inside, means, 5)[..., None]
            nib.Spm2AnalyzeImage(image, affine).to_filename(path)
    segment(tmp_path / "iSeg-2017-Testing", tmp_path / "out", run, FAST)
    for name, inside in labels.items():
        made = nib.load(dseg(tmp_path / "out", name))
        T1 = nib.load(tmp_path / "iSeg-2017-Testing" / f"subject-{name}-T1.hdr")
        assert made.shape == T1.shape == (*inside.shape, 1)
        np.testing.assert_allclose(made.affine, T1.affine)
        found = np.asarray(made.dataobj)[..., 0]
        assert not found[inside == 0].any()
        assert (found[inside > 0] > 0).mean() > 0.9


def test_voxel_order_does_not_change_the_answer(run, tmp_path):
    labels = ellipsoid_labels()
    labels[20:, :, :] = np.where(labels[20:] > 0, 2, 0)
    images = [phantom_image(labels, means, 1) for means in ((0, 400, 600, 150), (0, 500, 400, 900))]
    affine = np.diag([2.0, 2, 2, 1])
    flipped = affine @ np.array([[-1.0, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for name, image in zip(("T1w", "T2w"), images, strict=True):
        save(tmp_path / f"p_{name}.nii.gz", image, affine)
        save(tmp_path / f"q_{name}.nii.gz", image[::-1].copy(), flipped)
    maps = []
    for key in ("p", "q"):
        files = [tmp_path / f"{key}_T1w.nii.gz", tmp_path / f"{key}_T2w.nii.gz"]
        segment(files, tmp_path / f"out-{key}", run, FAST)
        maps.append(np.asarray(nib.load(dseg(tmp_path / f"out-{key}", key)).dataobj))
    assert np.array_equal(maps[0], maps[1][::-1])


def test_finished_subjects_are_skipped_and_a_lost_one_is_made_again(run, scans, tmp_path):
    write_subject(scans, "b", 9, labeled=False)
    segment(scans, tmp_path / "out", run, FAST)
    before = dseg(tmp_path / "out", "a").stat().st_mtime_ns
    dseg(tmp_path / "out", "b").with_name("sub-b_seg-braintissues_dseg.json").unlink()
    result = segment(scans, tmp_path / "out", run, FAST)
    assert (result.skipped, result.done) == (["sub-a"], ["sub-b"])
    assert dseg(tmp_path / "out", "a").stat().st_mtime_ns == before


def test_a_bad_subject_is_reported_and_the_others_are_done(run, scans, tmp_path):
    write_subject(scans, "b", 9, labeled=False)
    (scans / "sub-a" / "anat" / "sub-a_T2w.nii.gz").unlink()
    result = segment(scans, tmp_path / "out", run, FAST)
    assert result.done == ["sub-b"]
    assert "T2w" in result.failed["sub-a"]
    assert not dseg(tmp_path / "out", "a").exists()


def test_an_interrupted_write_leaves_nothing_and_is_made_up_for(run, scans, tmp_path, monkeypatch):
    def dies(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medssl.io.nifti._write", dies)
        with pytest.raises(KeyboardInterrupt):
            segment(scans, tmp_path / "out", run, FAST)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert segment(scans, tmp_path / "out", run, FAST).done == ["sub-a"]


def test_results_of_another_model_are_not_mixed(run, scans, tmp_path):
    segment(scans, tmp_path / "out", run, FAST)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    content = torch.load(other / "models" / "model.pt", weights_only=True)
    content["classifier.2.bias"] += 1
    torch.save(content, other / "models" / "model.pt")
    with pytest.raises(OutputError, match="another model"):
        segment(scans, tmp_path / "out", other, FAST)


def test_t2w_on_another_grid_is_refused_or_resampled(run, scans, tmp_path):
    path = scans / "sub-a" / "anat" / "sub-a_T2w.nii.gz"
    data = np.asarray(nib.load(path).dataobj)
    save(path, np.pad(data, 2), np.array([[2.0, 0, 0, -4], [0, 2, 0, -4], [0, 0, 2, -4], [0, 0, 0, 1]]))
    assert "--resample" in segment(scans, tmp_path / "no", run, FAST).failed["sub-a"]
    result = segment(scans, tmp_path / "yes", run, Options(pictures=False, resample=True, device="cpu"))
    assert result.done == ["sub-a"]


def _bad_run(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    return copy


def test_a_checkpoint_of_another_network_is_refused(run, scans, tmp_path):
    copy = _bad_run(run, tmp_path)
    torch.save({"model": {"a.weight": torch.zeros(2)}}, copy / "models" / "model.pt")
    with pytest.raises(CheckpointError, match=r"another network: \d+ parameters missing"):
        segment(scans, tmp_path / "out", copy)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_another_label_table_is_refused(run, scans, tmp_path):
    copy = _bad_run(run, tmp_path)
    content = torch.load(copy / "models" / "model.pt", weights_only=True)
    card = card_of(content)
    card.labels[1]["index"] = 9
    torch.save(card.attached_to(content), copy / "models" / "model.pt")
    with pytest.raises(CheckpointError, match="label table"):
        segment(scans, tmp_path / "out", copy)


class _Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_that_runs_code_is_refused(run, scans, tmp_path):
    copy = _bad_run(run, tmp_path)
    torch.save({"model": _Evil()}, copy / "models" / "model.pt")
    with pytest.raises(CheckpointError, match="would run code"):
        segment(scans, tmp_path / "out", copy)


def test_a_truncated_checkpoint_is_refused(run, scans, tmp_path):
    copy = _bad_run(run, tmp_path)
    weights = copy / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="cut off"):
        segment(scans, tmp_path / "out", copy)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.pt"])
def test_a_missing_model_is_named(scans, tmp_path, name):
    with pytest.raises(InputError, match=name):
        load_model(tmp_path / name)


def test_output_inside_the_input_is_refused(run, scans):
    with pytest.raises(OutputError):
        segment(scans, scans / "maps", run, FAST)


def test_labels_of_the_scans_are_not_looked_at(run, cohort, tmp_path):
    path = cohort / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_seg-braintissues_dseg.nii.gz"
    save(path, np.full((5, 5, 5), 77, np.uint8), np.eye(4))
    assert "sub-01" in segment(cohort, tmp_path / "out", run, FAST).done


def test_a_subject_listed_twice_is_refused(run, scans, tmp_path):
    anat = scans / "sub-a" / "anat"
    for name in ("T1w", "T2w"):
        for number in (1, 2):
            shutil.copy(anat / f"sub-a_{name}.nii.gz", tmp_path / f"a{'_' * (number - 1)}1_{name}.nii.gz")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in tmp_path.glob("a*.nii.gz"):
        path.rename(flat / path.name)
    with pytest.raises(DatalistError, match="sub-a1 occurs 2 times"):
        segment(flat, tmp_path / "out", run, FAST)
    assert not (tmp_path / "out").exists()


def test_volumes_keep_the_subjects_of_earlier_calls(run, scans, tmp_path):
    segment(scans, tmp_path / "out", run, FAST)
    write_subject(tmp_path / "more", "b", 3, labeled=False)
    segment(tmp_path / "more", tmp_path / "out", run, FAST)
    rows = (tmp_path / "out" / "volumes.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["sub-a", "sub-b"]


def test_missing_probabilities_are_made_up_for(run, scans, tmp_path):
    segment(scans, tmp_path / "out", run, FAST)
    result = segment(scans, tmp_path / "out", run, Options(probabilities=True, pictures=False, device="cpu"))
    assert result.done == ["sub-a"]


def test_a_run_folder_is_no_place_for_results(run, scans):
    with pytest.raises(OutputError, match="training run"):
        segment(scans, run, run, FAST)


def test_records_name_no_folder_of_this_machine(run, scans, tmp_path):
    write_subject(scans, "b", 9, labeled=False)
    (scans / "sub-b" / "anat" / "sub-b_T2w.nii.gz").unlink()
    segment(scans, tmp_path / "out", run, FAST)
    texts = [path for path in (tmp_path / "out").rglob("*") if path.suffix in {".json", ".tsv"}]
    assert not [path.name for path in texts if str(tmp_path) in path.read_text()]


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_other_backends_give_the_same_labels_and_are_named(run, scans, tmp_path, library):
    if not (find_spec(library) and find_spec("onnx")):  # importing openvino here would wake its telemetry
        pytest.skip(f"{library} is not installed")
    segment(scans, tmp_path / "torch", run, FAST)
    options = replace(FAST, backend=library, precision="float32", cache=tmp_path / "cache")
    result = segment(scans, tmp_path / "other", run, options)
    assert result.backend == f"{library}, float32"
    maps = [np.asarray(nib.load(dseg(tmp_path / name)).dataobj) for name in ("torch", "other")]
    assert np.mean(maps[0] != maps[1]) < 1e-4
    sidecar = json.loads(dseg(tmp_path / "other").with_name("sub-a_seg-braintissues_dseg.json").read_text())
    assert sidecar["Backend"] == {"Name": library, "Precision": "float32"}
    command = json.loads((tmp_path / "other" / "run.json").read_text())["command"]
    assert f"--backend {library} --precision float32" in command
    assert list((tmp_path / "cache" / "backends").glob("*.json"))
    assert len(list((tmp_path / "cache").glob("converted/*.openvino"))) == (library == "openvino")


def test_a_backend_that_is_not_there_is_refused_before_anything_is_written(run, scans, tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.inference.choice.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"medssl\[fast\]"):
        segment(scans, tmp_path / "out", run, replace(FAST, backend="openvino"))
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_refused_with_what_works(run, scans, tmp_path):
    reason = segment(scans, tmp_path / "out", run, replace(FAST, memory_limit=1000)).failed["sub-a"]
    least = int(re.search(r"expected at least (\d+) MiB", reason).group(1))
    enough = replace(FAST, memory_limit=least * 2**20)
    assert segment(scans, tmp_path / "out", run, enough).done == ["sub-a"]


def test_windows_are_another_way_and_are_not_mixed_with_one_pass(run, scans, tmp_path):
    out, sidecar = tmp_path / "out", dseg(tmp_path / "out").with_name("sub-a_seg-braintissues_dseg.json")
    assert segment(scans, out, run, replace(FAST, window=16)).done == ["sub-a"]
    assert json.loads(sidecar.read_text())["Window"] == 16
    assert "--window 16" in json.loads((out / "run.json").read_text())["command"]
    assert segment(scans, out, run, replace(FAST, window=16)).skipped == ["sub-a"]
    with pytest.raises(OutputError, match="--window"):
        segment(scans, out, run, FAST)
    assert segment(scans, out, run, replace(FAST, overwrite=True)).done == ["sub-a"]
    assert "Window" not in json.loads(sidecar.read_text())


def test_a_map_whose_windows_were_moved_for_want_of_memory_says_so_and_is_made_anew_with_enough(
    run, scans, tmp_path, monkeypatch
):
    predict, enough = Predictor.predict_box, 40 * 2**20

    def short(self, *words):
        return replace(predict(self, *words), enough_memory=enough if self.memory_now() < enough else None)

    monkeypatch.setattr(Predictor, "predict_box", short)
    out, sidecar = tmp_path / "out", beside(dseg(tmp_path / "out"))
    little, just, plenty = (replace(FAST, memory_limit=limit) for limit in (enough - 1, enough, 2 * enough))
    assert segment(scans, out, run, little).done
    assert json.loads(sidecar.read_text())["MovedWindows"] == {"EnoughMemory_MiB": 40}
    assert segment(scans, out, run, little).skipped, "nothing better can be made now"
    assert segment(scans, out, run, just).skipped, "the scan itself would take some of it"
    assert segment(scans, out, run, plenty).done
    assert "MovedWindows" not in json.loads(sidecar.read_text())
    assert segment(scans, out, run, little).skipped


def test_a_run_remembers_its_deep_windows_and_results_of_others_are_not_mixed(run, scans, tmp_path):
    assert load_model(run).network.deep_window == (16, 16, 16)
    out, other = tmp_path / "out", tmp_path / "other"
    segment(scans, out, run, FAST)
    assert json.loads((out / "run.json").read_text())["deep_window"] == [16, 16, 16]
    shutil.copytree(run, other)
    config = other / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("deep_window: '@crop_size'", "deep_window: null"))
    with pytest.raises(OutputError, match=r"deep_window \[16, 16, 16\], now None"):
        segment(scans, out, other, FAST)
    assert segment(scans, out, other, replace(FAST, overwrite=True)).done == ["sub-a"]


def test_a_file_of_weights_alone_says_how_large_its_crops_were(tmp_path):
    packaged = read_checkpoint(find_weights(None)[1])
    assert load_model().network.deep_window == (48, 48, 48)
    card = replace(card_of(packaged), crop_size=[32, 32, 32])
    torch.save(card.attached_to(weights_of(packaged)), tmp_path / "alone.pt")
    assert load_model(tmp_path / "alone.pt").network.deep_window == (32, 32, 32)


def test_trained_weights_carry_the_crop_size(run):
    assert card_of(torch.load(run / "models" / "model.pt", weights_only=True)).crop_size == [16, 16, 16]
