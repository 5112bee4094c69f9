import json
import re

import numpy as np
import pytest

from medssl.evaluation.audit import audit_pseudo_labels
from medssl.evaluation.classification import scores
from medssl.reporting.classification import (
    Arm,
    ClassificationReport,
    Networks,
    Ranking,
    ShownImage,
    compose,
    render_classification_report,
)

CLASSES = ("benign", "malignant", "other <x>")
SELECTION = "The step and the temperature were chosen on 6 validation images; test images chose nothing."
ROWS = [{"step": step, "loss": 1 / step, "val_f1": step / 10} for step in (1, 2, 3)]


def record(wrong):
    """Scores of six images, read back from JSON; the third class is never predicted."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    pred = np.array([0, 0, 1, 1, 1, 0])
    pred[:wrong] = 1
    found = scores(labels, 0.1 + 0.7 * np.eye(3)[pred], CLASSES, draws=20).record()
    return json.loads(json.dumps(found).replace("NaN", "null"))


@pytest.fixture(scope="module")
def parts():
    pool = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.35, 0.25]])
    audit = audit_pseudo_labels(["p", "q", "r"], pool, np.array([True, True, False]), CLASSES, (2, 2, 2),
                                validation=(np.array([0, 1, 1]), pool.argmax(1), pool.max(1)))  # fmt: skip
    return {
        "headline": "On 6 held-out test images, fixmatch reaches a macro F1 of 0.47.",
        "arms": [Arm("labeled-only", record(2), [ROWS]), Arm("fixmatch", record(0), [ROWS])],
        "scored_on": "6 held-out test images",
        "selection": SELECTION,
        "verdict": "Cannot tell whether the unlabeled images helped.",
        "done": ["Everything."],
        "warnings": ["Transductive."],
        "counts": [("labeled images", 6)],
        "operating": [("silent below", "confidence 0.8")],
        "audit": audit.record(),
        "threshold": 0.7,
        "least_certain": [ShownImage(np.zeros((20, 30)), "r: benign, 0.40")] * 30,
        "networks": Networks(["a", "b", "c"], [0.8, 0.9, float("nan")], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], ["a", "b"],
                             "a fits.", "One thread."),
        "ranking": Ranking(["x", "y", "z"], [1.2, 2.0, 2.8], 1.0, ((0, 1),), "x", "Over 6 data sets."),
        "commands": ["medssl classify train images"],
        "facts": [("torch", "2.13")],
        "footer": "Written by medssl.",
    }  # fmt: skip


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are drawn in their own tests; here each is a few bytes."""
    monkeypatch.setattr("medssl.reporting.classification.figure_to_png", lambda figure: b"\x89PNG drawn")


@pytest.fixture
def page(parts):
    return render_classification_report(ClassificationReport(**parts))


def test_every_section_is_there(page):
    assert re.findall(r"<h2>([^<]+)</h2>", page) == [
        "What was done", "Did the unlabeled images help?", "Classes", "What is confused", "Is it as sure as right?",
        "Pseudo-labels", "Least certain images", "Training", "Which network?", "Over data sets", "Commands",
        "Provenance",
    ]  # fmt: skip


def test_d13_the_page_says_which_images_chose_what(page, parts):
    """Spec 8, D13: selection on test images; the report states the selection split, always."""
    assert SELECTION in page
    assert "6 held-out test images" in page
    with pytest.raises(TypeError, match="selection"):
        ClassificationReport("headline", parts["arms"], "images")


def test_d23_warnings_of_the_audit_are_on_the_page(page):
    """Spec 8, D23: class imbalance of pseudo-labels unchecked."""
    assert "No pseudo-label says &#39;other &lt;x&gt;&#39;" in page
    assert "2 of 3 unlabeled images (67%) keep a pseudo-label." in page


def test_answers_that_were_learned_are_not_called_labels(parts):
    soft = parts | {"audit": parts["audit"] | {"targets": "soft", "warnings": []}}
    page = render_classification_report(ClassificationReport(**soft))
    assert "learned the teachers&#39; answers for all 3 unlabeled images" in page
    assert "keep a pseudo-label" not in page


def test_it_is_said_among_how_many_images_the_least_certain_were_looked_for(page, parts):
    some = render_classification_report(ClassificationReport(**parts | {"looked_at": (2000, 107766)}))
    assert "least sure of, among 2,000 of 107,766, evenly spread: the ones" in some
    assert "least sure of: the ones" in page


def test_what_is_not_defined_is_said_and_no_zero(page, parts):
    rows = {block.title: block.rows for section in compose(ClassificationReport(**parts)).sections
            for block in section.blocks if block.kind == "table"}  # fmt: skip
    by_class = {row[0]: row for row in rows["Classes, fixmatch"]}
    assert by_class["other <x>"] == ("other <x>", "n/a", "0.000", "0.000", "2", "0")
    by_score = {row[0]: row[1:] for row in rows["Scores on 6 held-out test images"]}
    assert by_score["macro precision"] == ("n/a", "n/a")
    assert re.fullmatch(r"0\.\d{3} \(0\.\d\d-0\.\d\d\)", by_score["macro F1"][1])
    assert "class that is never predicted has F1 0 and no precision" in page


def test_the_page_is_self_contained_and_names_no_place(page, tmp_path):
    assert not re.search(r"https?://|<script|<link[^>]+stylesheet|@import|url\(", page)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"/home/|/root/|/tmp/|/work", re.sub(r"base64,[^\"]+", "", page))


def test_the_page_is_wellformed_and_escaped(page):
    assert "other <x>" not in page
    stack = []
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    for closing, name in re.findall(r"<(/?)([a-z0-9]+)[^>]*>", body):
        if closing:
            assert stack.pop() == name
        elif name not in {"meta", "link", "img", "br"}:
            stack.append(name)
    assert stack == []


def test_thumbnails_stand_side_by_side_and_are_limited(page):
    gallery = re.search(r'<ul class="gallery">(.*?)</ul>', page, re.DOTALL)[1]
    assert gallery.count("<li>") == gallery.count("data:image/png;base64,") == 24
    assert gallery.count("<figcaption>r: benign, 0.40</figcaption>") == 24
    assert "grid-template-columns: repeat(auto-fill" in page


def test_networks_are_listed_from_the_best_and_the_unmeasured_last(page):
    names = re.findall(r'<th scope="row">(\d {1,2}[abc])</th>', page)
    assert names == ["1  b", "2  a", "3  c"]
    assert "a fits." in page


def test_the_threshold_that_was_used_is_drawn_and_told(parts, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "medssl.reporting.classification.plot_threshold", lambda *given: drawn.append(given[-1])
    )
    pages = [
        render_classification_report(ClassificationReport(**parts | {"threshold": one}))
        for one in (0.7, None)
    ]
    assert drawn == [0.7, None]
    assert ["The dashed line is the threshold that was used, 0.7." in page for page in pages] == [True, False]


def test_what_is_missing_drops_out(parts):
    least = ClassificationReport("Done.", parts["arms"][:1], "6 images", SELECTION)
    titles = [section.title for section in compose(least).sections if section.blocks]
    assert titles == ["What was done", "Did the unlabeled images help?", "Classes", "What is confused",
                      "Is it as sure as right?", "Training"]  # fmt: skip
    assert "Done." in render_classification_report(least)


def test_the_arm_in_detail_can_be_named(parts):
    first = compose(ClassificationReport(**{**parts, "shown": "labeled-only"}))
    assert first.tiles[0].value != compose(ClassificationReport(**parts)).tiles[0].value
    with pytest.raises(ValueError, match="no arm 'x'"):
        compose(ClassificationReport(**{**parts, "shown": "x"}))
    with pytest.raises(ValueError, match="no arm"):
        compose(ClassificationReport(**{**parts, "arms": []}))


def test_seeds_are_counted_below_the_curves(parts):
    two = [Arm("labeled-only", record(2), [ROWS, ROWS]), Arm("fixmatch", record(0), [ROWS])]
    page = render_classification_report(ClassificationReport(**{**parts, "arms": two}))
    assert "One color a network, 1 to 2 seeds each; line: median, band: least to greatest." in page
    assert "One color a network, 1 seed each." in render_classification_report(ClassificationReport(**parts))
