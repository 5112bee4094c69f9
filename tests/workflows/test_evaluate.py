import json

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import DatalistError, GridError, InputError, LabelError, OutputError
from medssl.io.files import read_tsv
from medssl.labels import LabelTable
from medssl.workflows.evaluate import SEEN, TABLE_COLUMNS, evaluate, read_scores

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])


def labels(seed=0):
    values = np.zeros((8, 9, 7), np.uint8)
    values[1:7, 1:8, 1:6] = np.random.default_rng(seed).integers(1, 4, (6, 7, 5))
    return values


def save(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def save_map(folder, key, values, affine=AFFINE):
    subject, _, session = key.partition("_")
    place = folder / subject / session if session else folder / subject
    return save(place / "anat" / f"{key}_seg-braintissues_dseg.nii.gz", values, affine)


@pytest.fixture
def folders(tmp_path):
    """Two scored subjects, one of them with a session; sub-03 lacks a reference, sub-04 a prediction."""
    pred, ref = tmp_path / "maps", tmp_path / "reference"
    for key in ("sub-01", "sub-02_ses-6mo", "sub-03"):
        save_map(pred, key, labels(1))
    for key in ("sub-01", "sub-02_ses-6mo", "sub-04"):
        save_map(ref, key, labels(1) if key == "sub-01" else labels(2))
    return pred, ref, tmp_path / "scores.tsv"


def test_table_has_one_row_a_subject_and_label(folders):
    result = evaluate(*folders)
    rows = read_tsv(folders[2])
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert TABLE_COLUMNS == (
        "subject", "label", "dice", "hd95_mm", "hd_mm", "assd_mm", "volume_pred_ml", "volume_ref_ml",
    )  # fmt: skip
    assert [(r["subject"], r["label"]) for r in rows] == [
        (subject, label) for subject in ("sub-01", "sub-02_ses-6mo") for label in ("GM", "WM", "CSF")
    ]
    assert [r["dice"] for r in rows[:3]] == ["1", "1", "1"]
    assert float(rows[3]["dice"]) < 0.6
    assert float(rows[0]["volume_ref_ml"]) == pytest.approx(np.sum(labels(1) == 1) * 2 / 1000)
    assert result.summary.n_subjects == 2


def test_unmatched_subjects_are_named(folders):
    warnings = " ".join(evaluate(*folders).warnings)
    assert "no reference" in warnings
    assert "sub-03" in warnings
    assert "no prediction" in warnings
    assert "sub-04" in warnings


def test_summary_rows_end_with_the_mean(folders):
    result = evaluate(*folders)
    rows = result.summary_rows()
    assert [row[0] for row in rows] == ["GM", "WM", "CSF", "mean"]
    assert rows[-1][2] == f"{result.summary.mean_dice:.3f}"
    assert {len(row) for row in rows} == {6}


def test_sidecar_explains_the_columns_and_holds_the_means(folders):
    result = evaluate(*folders)
    sidecar = json.loads(folders[2].with_suffix(".json").read_text())
    assert set(TABLE_COLUMNS) < set(sidecar)
    assert sidecar["hd95_mm"]["Units"] == "mm"
    assert sidecar["summary"]["mean_dice"] == pytest.approx(result.summary.mean_dice)


def test_labels_without_a_score_are_written_as_na_and_mentioned(tmp_path):
    pred, ref = labels(1), labels(1)
    pred[pred == 3], ref[ref == 3] = 1, 1
    pred[pred == 2] = 1
    files = save(tmp_path / "a.nii.gz", pred), save(tmp_path / "b.nii.gz", ref)
    result = evaluate(*files, tmp_path / "t.tsv")
    rows = {row["label"]: row for row in read_tsv(tmp_path / "t.tsv")}
    assert rows["CSF"]["dice"] == rows["CSF"]["hd95_mm"] == rows["WM"]["hd_mm"] == "n/a"
    assert rows["WM"]["dice"] == "0"
    assert any(text.startswith("CSF") and "neither" in text for text in result.warnings)
    assert any(text.startswith("WM") and "only in the reference" in text for text in result.warnings)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("stamped", [True, False])
def test_scores_of_a_transductive_model_say_so(folders, stamped, old):
    """Invariant 10; a map of earlier versions says it in words alone."""
    pred, _, out = folders
    words = ", transductive: held-out scans may be among them" * stamped if old else ", not transductive"
    model = {"TrainedOn": f"4 labeled scans and 2 unlabeled{words}"} | (
        {} if old else {"Transductive": stamped}
    )
    beside = next(pred.rglob("sub-01_*_dseg.nii.gz"))
    sidecar = beside.with_name(beside.name.replace(".nii.gz", ".json"))
    sidecar.write_text(json.dumps({"Model": model}))
    result = evaluate(*folders)
    assert (SEEN in result.warnings) is stamped
    told = [row.get("transductive") for row in read_tsv(out)]
    assert told == ([*["yes"] * 3, *[""] * (len(told) - 3)] if stamped else [None] * len(told))
    assert len(read_scores(out)) == len(told)
    assert ("Transductive" in json.loads(out.with_suffix(".json").read_text())) is stamped


@pytest.mark.parametrize("told", [{"SeenWithLabel": True}, {"SeenWithLabel": False}, {}, None])
def test_scores_of_scans_that_taught_the_network_say_so(folders, told):
    pred, _, out = folders
    beside = next(pred.rglob("sub-01_*_dseg.nii.gz"))
    beside.with_name(beside.name.replace(".nii.gz", ".json")).write_text(json.dumps({"Model": told}))
    found = evaluate(*folders)
    seen = bool(told and told["SeenWithLabel"]) if told else False
    assert any("1 of 2 scored subjects (sub-01)" in text for text in found.warnings) is seen
    assert any("no evidence for new scans" in text for text in found.warnings) is seen
    assert not any("datalist" in text for text in found.warnings)
    assert ("TrainedOn" in json.loads(out.with_suffix(".json").read_text())) is seen


def test_what_stands_beside_a_map_is_read_once(folders, monkeypatch):
    read = []
    monkeypatch.setattr(
        "medssl.workflows.evaluate.read_json", lambda path: read.append(path) or {"Model": {}}
    )
    evaluate(*folders)
    assert len(read) == len(set(read)) == 2


def test_a_written_table_reads_back(folders):
    result = evaluate(*folders)
    for read, row in zip(read_scores(folders[2]), result.rows, strict=True):
        assert (read.pop("subject"), read.pop("label")) == (row["subject"], row["label"])
        assert read == pytest.approx({name: row[name] for name in read}, rel=1e-6)


def test_two_files_belong_together_whatever_their_names(tmp_path):
    files = save(tmp_path / "mine.nii.gz", labels()), save(tmp_path / "sub-07_dseg.nii.gz", labels())
    assert {row["subject"] for row in evaluate(*files, tmp_path / "t.tsv").rows} == {"sub-07"}


def test_references_come_from_a_datalist_and_from_derivatives(tmp_path):
    cohort, pred = tmp_path / "cohort", tmp_path / "maps"
    for number in ("01", "02"):
        save(cohort / f"sub-{number}/anat/sub-{number}_T1w.nii.gz", labels().astype(np.float32))
        save_map(cohort / "derivatives/truth", f"sub-{number}", labels())
        save_map(pred, f"sub-{number}", labels())
    save_map(cohort / "derivatives/second-reader", "sub-01", labels(5))
    label = "derivatives/truth/sub-01/anat/sub-01_seg-braintissues_dseg.nii.gz"
    entry = {"subject": "01", "image": ["sub-01/anat/sub-01_T1w.nii.gz"]}
    (cohort / "datalist.json").write_text(
        json.dumps(
            {"contrasts": ["T1w"], "test": [{**entry, "label": label}], "training": [], "unlabeled": []}
        )
    )
    folder = evaluate(pred, cohort, tmp_path / "a.tsv")
    assert {row["subject"] for row in folder.rows} == {"sub-01", "sub-02"}
    assert folder.summary.mean_dice == 1.0
    listed = evaluate(pred, cohort / "datalist.json", tmp_path / "b.tsv")
    assert {row["subject"] for row in listed.rows} == {"sub-01"}


def test_predictions_inside_the_reference_folder_are_not_references(tmp_path):
    pred = tmp_path / "cohort/derivatives/medssl"
    save_map(pred, "sub-01", labels(1))
    save_map(tmp_path / "cohort/derivatives/truth", "sub-01", labels(2))
    result = evaluate(pred, tmp_path / "cohort", tmp_path / "t.tsv")
    assert result.summary.mean_dice < 0.6


def test_labels_follow_the_table_beside_the_reference(tmp_path):
    values = np.where(labels() == 1, 200, 0).astype(np.uint8)
    for side in ("maps", "reference"):
        save(tmp_path / side / "sub-01_seg-deep_dseg.nii.gz", values)
    (tmp_path / "reference/seg-deep_dseg.tsv").write_text(
        "index\tname\tabbreviation\n0\tbackground\tBG\n200\tputamen\tPUT\n"
    )
    rows = evaluate(tmp_path / "maps", tmp_path / "reference", tmp_path / "t.tsv").rows
    assert [(row["label"], row["dice"]) for row in rows] == [("PUT", 1.0)]


def test_sides_with_different_meanings_of_a_value_are_refused(tmp_path):
    for side, name in (("maps", "putamen"), ("reference", "caudate")):
        save(tmp_path / side / "sub-01_dseg.nii.gz", np.minimum(labels(), 1))
        (tmp_path / side / "dseg.tsv").write_text(f"index\tname\n0\tbackground\n1\t{name}\n")
    with pytest.raises(LabelError, match="mean different things"):
        evaluate(tmp_path / "maps", tmp_path / "reference", tmp_path / "t.tsv")


def test_a_given_table_decides(tmp_path):
    files = [save(tmp_path / f"{name}.nii.gz", np.minimum(labels(), 1)) for name in "ab"]
    table = LabelTable.from_rows([{"index": 1, "name": "brain"}])
    assert [row["label"] for row in evaluate(*files, tmp_path / "t.tsv", table=table).rows] == ["brain"]


def test_progress_is_told(folders):
    seen = []
    evaluate(*folders, progress=lambda *call: seen.append(call))
    assert seen == [("sub-01", 0, 2), ("sub-02_ses-6mo", 1, 2), ("", 2, 2)]


def test_another_grid_is_refused_and_nothing_written(folders):
    pred, ref, out = folders
    save_map(pred, "sub-01", labels(1), np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(GridError, match=r"sub-01.*orientation"):
        evaluate(pred, ref, out)
    assert not out.exists()


def test_values_outside_the_table_are_refused(folders):
    pred, ref, out = folders
    save_map(pred, "sub-01", labels(1) * 2)
    with pytest.raises(LabelError, match=r"sub-01.*4, 6"):
        evaluate(pred, ref, out)
    assert not out.exists()


def test_no_common_subject_is_refused(tmp_path):
    save_map(tmp_path / "a", "sub-01", labels())
    save_map(tmp_path / "b", "sub-02", labels())
    with pytest.raises(InputError, match=r"sub-01.*sub-02"):
        evaluate(tmp_path / "a", tmp_path / "b", tmp_path / "t.tsv")


@pytest.mark.parametrize("missing", ["pred", "ref"])
def test_missing_folders_are_refused(folders, missing):
    pred, ref, out = folders
    nowhere = pred.parent / "nowhere"
    with pytest.raises(InputError, match="nowhere"):
        evaluate(nowhere if missing == "pred" else pred, nowhere if missing == "ref" else ref, out)


def test_a_folder_without_maps_is_refused(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No label map"):
        evaluate(tmp_path / "empty", folders[1], folders[2])


def test_two_maps_of_one_subject_are_refused(folders):
    pred, ref, out = folders
    save(pred / "sub-01/anat/sub-01_seg-other_dseg.nii.gz", labels())
    with pytest.raises(DatalistError, match="sub-01 has 2 files"):
        evaluate(pred, ref, out)


def test_a_table_is_replaced_only_when_asked(folders):
    evaluate(*folders)
    with pytest.raises(OutputError, match=r"scores\.tsv"):
        evaluate(*folders)
    assert evaluate(*folders, overwrite=True).out == folders[2]


def test_a_table_under_the_name_of_something_else_is_refused(folders):
    with pytest.raises(OutputError, match=r"\.tsv"):
        evaluate(*folders[:2], folders[0] / "sub-01.nii.gz", overwrite=True)


def test_a_table_of_something_else_is_not_read_as_scores(tmp_path):
    (tmp_path / "t.tsv").write_text("subject\tlabel\nsub-01\tGM\n")
    with pytest.raises(InputError, match="lacks the columns dice"):
        read_scores(tmp_path / "t.tsv")


def test_a_prediction_without_any_label_scores_zero(tmp_path):
    save_map(tmp_path / "pred", "sub-1", np.zeros_like(labels()))
    save_map(tmp_path / "ref", "sub-1", labels())
    result = evaluate(tmp_path / "pred", tmp_path / "ref", tmp_path / "scores.tsv")
    assert [row["dice"] for row in result.rows] == [0, 0, 0]
