import json
import re

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure

from medssl.errors import InputError, OutputError
from medssl.io.cohort import read_cohort
from medssl.io.files import write_json, write_tsv
from medssl.labels import BRAIN_TISSUES
from medssl.workflows import report
from medssl.workflows.evaluate import evaluate
from medssl.workflows.report import write_report

SHAPE = (14, 16, 12)
NAMES = [f"{number:02d}" for number in range(1, 7)]
MAP = "sub-{0}/anat/sub-{0}_seg-braintissues_dseg.nii.gz"


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.5, 1.0])), path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Cohort of 2 training, 3 test and 1 unlabeled scans with run, maps and scores; quality falls with number."""
    root = tmp_path_factory.mktemp("demo")
    rng = np.random.default_rng(0)
    lists = {"training": NAMES[:2], "test": NAMES[2:5], "unlabeled": NAMES[5:]}
    volumes = []
    for number, name in enumerate(NAMES):
        truth = np.zeros(SHAPE, np.uint8)
        truth[2:-2, 2:-2, 2:-2] = rng.integers(1, 4, (10, 12, 8))
        found = np.where((rng.random(SHAPE) < 0.1 * number) & (truth > 0), 1, truth).astype(np.uint8)
        image = (truth * 10 + rng.random(SHAPE) * (truth > 0)).astype(np.float32)
        save(root / f"cohort/sub-{name}/anat/sub-{name}_T1w.nii.gz", image)
        save(root / "cohort/derivatives/truth" / MAP.format(name), truth)
        save(root / "maps" / MAP.format(name), found)
        volumes.append({"subject": f"sub-{name}", "GM_ml": 1.25, "WM_ml": 0.5, "CSF_ml": 0.75})
    entry = {
        name: {"subject": name, "image": [f"sub-{name}/anat/sub-{name}_T1w.nii.gz"]}
        | ({"label": f"derivatives/truth/{MAP.format(name)}"} if name != "06" else {})
        for name in NAMES
    }
    datalist = {section: [entry[name] for name in names] for section, names in lists.items()}
    (root / "cohort/datalist.json").write_text(json.dumps({"contrasts": ["T1w"], **datalist}))
    write_tsv(root / "cohort/participants.tsv", [{"participant_id": "sub-03", "age_months": 6.0}],
              ["participant_id", "age_months"])  # fmt: skip
    write_tsv(root / "maps/volumes.tsv", volumes, list(volumes[0]))
    write_json(root / "maps/run.json", {"command": "medssl segment cohort", "model": "run", "seconds": 5.0})
    write_json(root / "run/run.json", {
        "command": "medssl train cohort --out run", "method": "supervised", "network": "dense-fcn", "seed": 3,
        "contrasts": ["T1w"], "versions": {"torch": "9.8.7"}, "seconds": 300.0, "steps": 400,
        "budget": {"name": "quick", "steps": 400, "crops": 4, "crop_size": 32},
        "subjects": {"training": ["sub-01", "sub-02"], "validation": []},
    })  # fmt: skip
    rows = [{"step": step, "loss": 1 / step, "val_dice": None} for step in (25, 50, 75)]
    write_tsv(root / "run/metrics.tsv", rows, list(rows[0]))
    evaluate(root / "maps", root / "cohort", root / "scores.tsv")
    return root


@pytest.fixture(autouse=True)
def quick_pictures(page, monkeypatch):
    """Draw next to nothing; the module's page is drawn in full before."""
    for name in ("plot_subject", "plot_dice", "plot_volumes", "plot_learning_curve"):
        monkeypatch.setattr(report, name, lambda *args, **named: Figure(figsize=(0.1, 0.1), dpi=10))


def full(demo, out, **changes):
    parts = {"run": demo / "run", "segmentation": demo / "maps", "evaluation": demo / "scores.tsv"} | changes
    return write_report(out, cohort=demo / "cohort", title="A demo", **parts)


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


@pytest.fixture(scope="module")
def page(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "page.html"
    return full(demo, out, commands=["medssl demo --out here"]).read_text()


def test_all_sections_are_there_in_order(page):
    assert headings(page) == [
        "What was done", "Dice per tissue", "Scans", "Volumes", "Learning curve", "Commands", "Provenance",
    ]  # fmt: skip


def test_headline_speaks_of_the_held_out_scans_only(demo, page):
    headline = re.search(r"<h1>(.*?)</h1>", page)[1]
    summary = evaluate(demo / "maps", demo / "cohort/datalist.json", demo / "again.tsv", overwrite=True).rows
    held_out = [row["dice"] for row in summary if row["subject"] in ("sub-03", "sub-04", "sub-05")]
    assert headline == (
        f"On 3 held-out test scans, the tissue maps overlap the reference with a mean Dice of {np.mean(held_out):.2f}."
    )


def test_scores_stand_apart_by_what_training_saw(page):
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles[:3] == ["Held-out test scans (n = 3)", "Unlabeled scans (n = 1)", "Training scans (n = 2)"]
    assert "no evidence for new scans" in page


def test_best_median_and_worst_test_scan_are_shown_first(page):
    titles = [title for title in re.findall(r"<h3>(.*?)</h3>", page) if title.startswith("sub-")]
    assert [title.split(",")[0].split(":")[0] for title in titles] == [
        f"sub-{n}" for n in ("03", "04", "05", "06", "01", "02")
    ]
    assert "best of 3 held-out test scans, mean Dice 0." in titles[0]
    assert "median of 3" in titles[1]
    assert "worst of 3" in titles[2]
    assert titles[0].startswith("sub-03, 6 months")


def test_pictures_stop_at_the_limit_and_the_rest_is_counted(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_PICTURES", 4)
    text = full(demo, tmp_path).read_text()
    assert len(re.findall("Three views of", text)) == 4
    assert "2 more scans segmented" in text


def test_references_of_scored_unlabeled_scans_are_drawn(demo, tmp_path, monkeypatch):
    drawn = {}

    def spy(images, result, reference, *rest, **named):
        drawn[float(images["T1w"].sum())] = reference
        return Figure(figsize=(0.1, 0.1))

    monkeypatch.setattr(report, "plot_subject", spy)
    full(demo, tmp_path)
    assert len(drawn) == 6
    assert all(reference is not None for reference in drawn.values())


def test_page_tells_what_was_done_and_with_what(page):
    for text in ("2 labeled scans", "400 steps of 4 crops of 32³ voxels", "seed 3", "5.0 minutes", "9.8.7",
                 "1.2", "sub-01, sub-02", "6 scans were segmented"):  # fmt: skip
        assert text in page


def commands_of(page):
    return re.sub(r"<[^>]+>", "", re.search(r"<code>(.*?)</code>", page, re.DOTALL)[1]).split("\n")


def test_given_commands_win_over_recorded_ones(demo, page, tmp_path):
    assert commands_of(page) == ["medssl demo --out here", ""]
    recorded = commands_of(full(demo, tmp_path).read_text())
    assert recorded == ["medssl train cohort --out run", "medssl segment cohort", ""]


def test_page_names_no_folder_of_this_machine_and_asks_for_nothing(demo, page):
    assert str(demo) not in page
    assert "/tmp/" not in page
    assert not re.search(r"https?://", page)


def test_a_report_of_the_same_folders_is_the_same(demo, tmp_path):
    assert full(demo, tmp_path / "a").read_text() == full(demo, tmp_path / "b").read_text()


def test_missing_parts_leave_their_section_out(demo, tmp_path):
    only_run = full(demo, tmp_path / "a", segmentation=None, evaluation=None).read_text()
    assert headings(only_run) == ["What was done", "Learning curve", "Commands", "Provenance"]
    assert "nothing is segmented yet" in only_run
    only_maps = full(demo, tmp_path / "b", run=None, evaluation=None).read_text()
    assert headings(only_maps) == ["What was done", "Scans", "Volumes", "Commands", "Provenance"]
    assert "6 scans were segmented; nothing was given to score them against." in only_maps
    nothing = write_report(tmp_path / "c", cohort=read_cohort(demo / "cohort")).read_text()
    assert headings(nothing) == ["What was done", "Provenance"]


def test_without_a_run_no_scan_is_called_held_out(demo, tmp_path):
    text = full(demo, tmp_path, run=None).read_text()
    assert "held-out" not in text.lower()
    assert "All scored scans (n = 6)" in text
    assert "cannot tell" in text


def test_scans_held_out_by_the_run_are_validation(demo, tmp_path):
    record = json.loads((demo / "run/run.json").read_text())
    record["subjects"] = {"training": ["sub-01"], "validation": ["sub-02"]}
    write_json(tmp_path / "run/run.json", record)
    text = full(demo, tmp_path / "page.html", run=tmp_path / "run").read_text()
    assert "Validation scans (n = 1)" in text
    assert "Training scans (n = 1)" in text


def test_unlabeled_scans_of_a_semi_supervised_run_are_called_transductive(demo, tmp_path, page):
    assert "transductive" not in page
    record = json.loads((demo / "run/run.json").read_text()) | {"method": "pseudo-label"}
    write_json(tmp_path / "run/run.json", record)
    assert "transductive" in full(demo, tmp_path / "page.html", run=tmp_path / "run").read_text()


def test_the_verdict_on_the_unlabeled_scans_has_a_section_of_its_own(demo, tmp_path, page):
    assert "Did the unlabeled scans help?" not in headings(page)
    said = {
        "sentence": "They helped a lot.",
        "dice": {"sub-02": {"labeled-only": 0.7, "semi-supervised": 0.74}},
    }
    record = json.loads((demo / "run/run.json").read_text()) | {"method": "ssldec", "verdict": said}
    record["anatomy_at_inference"] = {
        "sentence": "Registered labels gain.",
        "network": "check-ssldec",
        "dice": {"sub-02": {"without": 0.74, "with": 0.8125}},
    }
    record |= {"contrasts": ["T1w", "T2w"], "labels": BRAIN_TISSUES.rows(), "transductive": ["sub-04 twice"]}
    write_json(tmp_path / "run/run.json", record)
    text = full(demo, tmp_path / "page.html", run=tmp_path / "run").read_text()
    assert headings(text)[1] == "Did the unlabeled scans help?"
    assert all(
        words in text for words in ("They helped a lot.", "Registered labels gain.", "0.812", "check-ssldec")
    )
    assert "+4.0" in text
    assert "Transductive: training saw 1 scan" in text
    assert "(--init packaged)" in text
    assert "Both networks had the same budget" in text, "a run of an earlier version tells no patience"
    for patience, same in ((0, "steps"), (3, "patience")):
        write_json(tmp_path / "run/run.json", record | {"verdict": said | {"patience": patience}})
        text = full(demo, tmp_path / f"{same}.html", run=tmp_path / "run").read_text()
        assert f"Both networks had the same {same}" in text


def test_an_unreadable_scan_costs_its_picture_only(demo, tmp_path, monkeypatch):
    original = report.read_volume

    def read_volume(path, subject):
        if subject == "sub-03":
            msg = "sub-03: truncated."
            raise InputError(msg)
        return original(path, subject)

    monkeypatch.setattr(report, "read_volume", read_volume)
    assert len(re.findall("Three views of", full(demo, tmp_path).read_text())) == 5


def test_a_page_is_replaced_only_when_asked(demo, tmp_path):
    page = full(demo, tmp_path, segmentation=None)
    assert page == tmp_path / "report.html"
    with pytest.raises(OutputError, match=r"report\.html"):
        full(demo, tmp_path, segmentation=None)
    assert full(demo, tmp_path, segmentation=None, overwrite=True) == page


@pytest.mark.parametrize("part", ["run", "segmentation", "evaluation"])
def test_a_named_part_that_is_missing_is_refused(demo, tmp_path, part):
    with pytest.raises(InputError, match="nowhere"):
        full(demo, tmp_path, **{part: tmp_path / "nowhere"})
    assert not (tmp_path / "report.html").exists()


def test_scores_with_labels_of_another_table_are_refused(demo, tmp_path):
    text = (demo / "scores.tsv").read_text().replace("GM", "XX")
    (tmp_path / "scores.tsv").write_text(text)
    with pytest.raises(InputError, match="'XX'"):
        full(demo, tmp_path, evaluation=tmp_path / "scores.tsv")
