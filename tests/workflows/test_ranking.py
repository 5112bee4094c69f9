import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import TINY, ellipsoid_labels, phantom_image, save, write_subject

from medssl.errors import CheckpointError, ConfigError, DatalistError, InputError, OutputError
from medssl.io.files import read_tsv
from medssl.labels import BRAIN_TISSUES, Label, LabelTable
from medssl.workflows import ranking
from medssl.workflows.ranking import Ranked, RankingWatcher, RankOptions, ordered, rank
from medssl.workflows.ranking_table import COLUMNS, rank_to_table
from medssl.workflows.scan_measures import Measures, Slice
from medssl.workflows.train import TrainOptions, train

CPU = RankOptions(device="cpu")


class Log(RankingWatcher):
    """Keeps what it is told, and may press Ctrl-C."""

    def __init__(self, stop_at: int = 0) -> None:
        self.seen, self.failures, self.stop_at = [], {}, stop_at

    def measured(self, subject, done, scans):
        self.seen.append((subject, done, scans))
        if done == self.stop_at:
            raise KeyboardInterrupt

    def failed(self, subject, why):
        self.failures[subject] = why


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A network that was trained for some steps on phantoms."""
    root = tmp_path_factory.mktemp("trained")
    write_subject(root / "cohort", "01", 1)
    settings = {**TINY, "epochs": 6, "learning_rate": 0.01, "augmentation_strength": 0.0}
    train(root / "cohort", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    return root / "run"


@pytest.fixture
def scans(tmp_path) -> Path:
    """One labeled phantom, three unlabeled ones; the last has twice the noise."""
    root = tmp_path / "scans"
    write_subject(root, "01", 1)
    for name, seed in (("02", 20), ("03", 30)):
        write_subject(root, name, seed, labeled=False)
    labels = ellipsoid_labels()
    rng = np.random.default_rng(0)
    for contrast, means in (("T1w", (0, 400, 500, 350)), ("T2w", (0, 500, 400, 600))):
        image = phantom_image(labels, means, 4) + rng.normal(0, 150, labels.shape)
        image = np.where(labels == 0, 0, np.clip(np.rint(image), 1, 2000)).astype(np.int16)
        save(root / "sub-04" / "anat" / f"sub-04_{contrast}.nii.gz", image, np.diag([2.0, 2, 2, 1]))
    return root


def measures(entropy=0.3, disagreement=0.1, gm=0.5, volume=900.0, mean=0.0):
    return Measures(
        entropy=entropy,
        disagreement=disagreement,
        shares={"GM": gm, "WM": 1 - gm},
        volume_ml=volume,
        quantiles={"T1w": [-1.5, -0.5, 0.0, 0.5, 1.5]},
        means={"T1w GM": mean, "T1w WM": -mean},
        border=("GM", "WM"),
        place="left top",
        voxel=(1, 2, 3),
        slices=(Slice("sagittal", 0, 1), Slice("coronal", 1, 2), Slice("axial", 2, 3)),
    )


def subjects(ranked: list[Ranked]) -> list[str]:
    return [one.subject for one in ranked]


def test_unlabeled_scans_are_ranked_with_reasons_and_slices(run, scans, tmp_path):
    log = Log()
    ranked = rank(scans, run, tmp_path / "measures", watcher=log, options=CPU)
    assert sorted(subjects(ranked)) == ["sub-02", "sub-03", "sub-04"]
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    assert all(0 <= one.score <= 1 and 0 < one.uncertainty < 1 for one in ranked)
    assert all(one.nearest == "sub-01" and one.distance > 0 for one in ranked)
    assert all("border" in one.reason for one in ranked)
    assert all([cut.index for cut in one.slices] == list(one.voxel) for one in ranked)
    labels = ellipsoid_labels()
    assert all(labels[one.voxel] > 0 for one in ranked)
    assert [done for _, done, _ in log.seen] == [1, 2, 3, 4]
    assert {scans for *_, scans in log.seen} == {4}


def test_the_noisy_scan_is_the_most_uncertain(run, scans, tmp_path):
    ranked = rank(scans, run, tmp_path / "measures", options=CPU)
    assert max(ranked, key=lambda one: one.entropy).subject == "sub-04"


def test_a_second_call_runs_no_network_and_says_the_same(run, scans, tmp_path, monkeypatch):
    first = rank(scans, run, tmp_path / "measures", options=CPU)
    monkeypatch.setattr(ranking, "measure", None)
    log = Log()
    assert rank(scans, run, tmp_path / "measures", watcher=log, options=CPU) == first
    assert len(log.seen) == 4


def test_an_interrupted_call_goes_on_where_it_stopped(run, scans, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        rank(scans, run, tmp_path / "measures", watcher=Log(stop_at=2), options=CPU)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "measures").iterdir()}
    assert {"sub-01_measures.json", "sub-02_measures.json"} <= set(finished)
    assert len(finished) < 4
    ranked = rank(scans, run, tmp_path / "measures", options=CPU)
    assert len(ranked) == 3
    for name, when in finished.items():
        assert (tmp_path / "measures" / name).stat().st_mtime_ns == when
    assert ranked == rank(scans, run, tmp_path / "other", options=CPU)


def test_only_a_changed_scan_is_measured_again(run, scans, tmp_path):
    folder = tmp_path / "measures"
    rank(scans, run, folder, options=CPU)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_subject(scans, "03", 77, labeled=False)
    rank(scans, run, folder, options=CPU)
    changed = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"sub-03_measures.json"}


def test_other_weights_or_another_opinion_measure_everything_anew(run, scans, tmp_path):
    folder = tmp_path / "measures"
    rank(scans, run, folder, options=CPU)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    ranked = rank(scans, run, folder, options=RankOptions(device="cpu", previous=run))
    assert all(path.stat().st_mtime_ns != before[path.name] for path in folder.iterdir())
    assert [one.disagreement for one in ranked] == pytest.approx([0] * 3, abs=1e-6)
    assert json.loads((folder / "sub-02_measures.json").read_text())["weights_sha256"]


def test_a_label_that_was_made_changes_the_order_without_the_network(run, scans, tmp_path, monkeypatch):
    first = rank(scans, run, tmp_path / "measures", options=CPU)
    chosen = first[0].subject
    place = scans / "derivatives" / "manual" / chosen / "anat"
    save(place / f"{chosen}_seg-braintissues_dseg.nii.gz", ellipsoid_labels(), np.diag([2.0, 2, 2, 1]))
    monkeypatch.setattr(ranking, "measure", None)
    after = rank(scans, run, tmp_path / "measures", options=CPU)
    assert sorted(subjects(after)) == sorted(set(subjects(first)) - {chosen})


def test_a_broken_scan_is_told_and_the_others_are_ranked(run, scans, tmp_path):
    (scans / "sub-03" / "anat" / "sub-03_T2w.nii.gz").unlink()
    log = Log()
    ranked = rank(scans, run, tmp_path / "measures", watcher=log, options=CPU)
    assert sorted(subjects(ranked)) == ["sub-02", "sub-04"]
    assert list(log.failures) == ["sub-03"]
    assert str(tmp_path) not in log.failures["sub-03"]
    assert "T2w" in log.failures["sub-03"]


def test_unreadable_measures_are_made_anew(run, scans, tmp_path):
    first = rank(scans, run, tmp_path / "measures", options=CPU)
    (tmp_path / "measures" / "sub-02_measures.json").write_text('{"subject": "sub-')
    assert rank(scans, run, tmp_path / "measures", options=CPU) == first


def test_nothing_unlabeled_is_an_error_that_says_so(run, tmp_path):
    write_subject(tmp_path / "scans", "01", 1)
    with pytest.raises(DatalistError, match=r"No unlabeled scan .*1 labeled"):
        rank(tmp_path / "scans", run, tmp_path / "measures", options=CPU)
    assert not (tmp_path / "measures").exists()


def test_no_usable_scan_is_an_error_that_names_the_first_reason(run, tmp_path):
    write_subject(tmp_path / "scans", "02", 1, labeled=False)
    (tmp_path / "scans" / "sub-02" / "anat" / "sub-02_T2w.nii.gz").unlink()
    with pytest.raises(InputError, match=r"None of the 1 unlabeled scans.*T2w"):
        rank(tmp_path / "scans", run, tmp_path / "measures", options=CPU)


def test_no_model_and_a_folder_inside_the_data_are_refused(run, scans, tmp_path):
    with pytest.raises(InputError, match="no such run folder"):
        rank(scans, tmp_path / "nothing", tmp_path / "measures", options=CPU)
    with pytest.raises(CheckpointError, match="neither a run folder nor a bundle"):
        rank(scans, scans, tmp_path / "measures", options=CPU)
    with pytest.raises(OutputError, match="inside the input folder"):
        rank(scans, run, scans / "measures", options=CPU)


def test_a_previous_model_of_another_space_is_refused(run, scans, tmp_path):
    root = tmp_path / "other"
    write_subject(root, "01", 1, affine=np.diag([1.5, 1.5, 1.5, 1.0]))
    settings = {**TINY, "epochs": 1, "steps_per_epoch": 1}
    train(root, tmp_path / "previous", TrainOptions(budget="quick", device="cpu", settings=settings))
    options = RankOptions(device="cpu", previous=tmp_path / "previous")
    with pytest.raises(ConfigError, match="another spacing"):
        rank(scans, run, tmp_path / "measures", options=options)


def test_mirroring_is_left_out_where_labels_name_a_side(run):
    model = ranking.load_model(run)
    sided = LabelTable("sides", (BRAIN_TISSUES.labels[0], Label(1, "left hippocampus", "LH", "#ffffff")))
    object.__setattr__(model, "table", sided)
    opinion, told = ranking._second_opinion(model, None, RankOptions())
    assert opinion is None
    assert "side" in told


def test_no_labeled_scan_is_no_error(run, scans, tmp_path):
    (scans / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_seg-braintissues_dseg.nii.gz").unlink()
    ranked = rank(scans, run, tmp_path / "measures", options=CPU)
    assert len(ranked) == 4
    assert all(one.distance is None and one.nearest == "" for one in ranked)


def test_twins_do_not_follow_each_other():
    twin = {"entropy": 0.9, "disagreement": 0.5, "gm": 0.7, "mean": 1.0}
    pool = {
        "sub-a": measures(**twin),
        "sub-b": measures(**twin, volume=901.0),
        "sub-c": measures(0.5, 0.2, gm=0.3, mean=-1.0),
        "sub-d": measures(0.4, 0.2, gm=0.4, volume=400.0),
    }
    ranked = ordered(pool, {"sub-l": measures()})
    assert {subjects(ranked)[0], subjects(ranked)[-1]} == {"sub-a", "sub-b"}
    assert f"much like {subjects(ranked)[0]}, which stands above it" in ranked[-1].reason


def test_a_copy_of_a_labeled_scan_comes_last_and_says_so():
    pool = {
        "sub-a": measures(0.9, 0.9),
        "sub-b": measures(0.1, 0.1, gm=0.8),
        "sub-c": measures(0.2, 0.1, gm=0.2),
    }
    ranked = ordered(pool, {"sub-l": measures()})
    assert subjects(ranked)[-1] == "sub-a"
    assert "much like the labeled sub-l" in ranked[-1].reason
    assert ranked[-1].score == pytest.approx(0)


def test_reasons_name_what_is_unlike_every_labeled_scan():
    pool = {"sub-a": measures(0.9, 0.9, volume=300.0), "sub-b": measures(0.1, 0.1, gm=0.51)}
    labeled = {"sub-l": measures(), "sub-m": measures(gm=0.49)}
    reasons = {one.subject: one.reason for one in ordered(pool, labeled)}
    assert "smaller volume than in every labeled scan" in reasons["sub-a"]
    assert reasons["sub-a"].startswith("very uncertain at the GM/WM border, most in the left top")
    assert "two predictions disagree more than in most scans" in reasons["sub-a"]
    assert reasons["sub-b"].startswith("fairly sure")


def test_the_table_its_json_and_the_pictures_are_written(run, scans, tmp_path):
    out = tmp_path / "next.tsv"
    ranked = rank_to_table(scans, run, out, options=CPU)
    rows = read_tsv(out)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["subject"] for row in rows] == subjects(ranked)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert int(rows[0]["axial_slice"]) == ranked[0].voxel[2]
    assert rows[0]["stored_axes"] == "sagittal,coronal,axial"
    told = json.loads(out.with_suffix(".json").read_text())
    assert set(COLUMNS) < set(told)
    assert str(tmp_path) not in out.with_suffix(".json").read_text()
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "next_measures" / "sub-02_measures.json").is_file()


def test_a_table_is_not_replaced_unless_asked(run, scans, tmp_path):
    out = tmp_path / "next.tsv"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"next.tsv exists already"):
        rank_to_table(scans, run, out, options=CPU)
    assert out.read_text() == "mine"
    rank_to_table(scans, run, out, options=CPU, overwrite=True, pictures=False)
    assert out.read_text() != "mine"
    assert not out.with_suffix(".png").exists()


def test_the_scans_are_left_as_they_are(run, scans, tmp_path):
    before = {path: path.read_bytes() for path in scans.rglob("*.nii.gz")}
    rank_to_table(scans, run, tmp_path / "next.tsv", options=CPU)
    assert {path: path.read_bytes() for path in scans.rglob("*") if path.is_file()} == before
    assert nib.load(next(iter(before))).shape == (32, 32, 32)
