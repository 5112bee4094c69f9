"""The model card says what a run was, and nothing that is not known."""

import pytest

from medssl.reporting.model_card import Origin, model_card

RUN = {
    "command": "medssl classify train images --out run",
    "classes": ["dark", "light"],
    "image": {"size": 28, "channels": 1},
    "images": {"training": 20, "validation": 8, "test": 0, "unlabeled": 300},
    "method": "ssldec",
    "budget": {"steps": 100, "images": 32},
    "seed": 3,
    "versions": {"medssl": "0.1.0", "torch": "2.13.0"},
    "transductive": False,
}
NETWORK = {
    "name": "vgg-small-28",
    "source": "medssl",
    "id": "vgg-small-28",
    "license": "none",
    "code_license": "apache-2.0",
}
SCORES = {
    "n": 8,
    "accuracy": 0.75,
    "balanced_accuracy": 0.8,
    "macro_precision": float("nan"),
    "macro_f1": 0.7,
    "auroc": 0.9,
    "ece": 0.1,
    "interval": {"macro_f1": [0.5, 0.875]},
    "per_class": [
        {"name": "dark", "n": 5, "precision": float("nan"), "recall": 0.0, "f1": 0.0},
        {"name": "light", "n": 3, "precision": 0.5, "recall": 1.0, "f1": 0.667},
    ],
}


def card(run=None, origin=None, **changes):
    known = {
        "parameters": 12345,
        "temperature": 1.0,
        "scores": SCORES,
        "sentence": "The unlabeled images helped: +3.",
    }
    made = Origin(**{"steps": 300, "seed": 4, "started_from": "random weights", **(origin or {})})
    return model_card(RUN | (run or {}), NETWORK, made, **{**known, **changes})


def test_it_tells_task_data_protocol_scores_and_the_verdict():
    text = card()
    assert text.startswith("# Model card: vgg-small-28, 2 classes\nThe unlabeled images helped: +3.\n")
    for line in (
        "| task | one of dark, light for an image |",
        "| network | vgg-small-28 (medssl vgg-small-28), 12,345 parameters |",
        "| license of the network's code | apache-2.0 (medssl) |",
        "| input | 28 x 28 pixels, gray |",
        "| started from | random weights |",
        "| protocol | 300 steps of 32 images in all, seed 4; the step was chosen on the validation images |",
        "| temperature | 1, not fitted |",
        "| training | 20 |",
        "| macro F1 | 0.700 [0.500, 0.875] |",
        "| macro precision | n/a |",
        "| dark | 5 | n/a | 0.000 | 0.000 |",
    ):
        assert line in text.splitlines()
    assert "one of its classes.\n\n| |" in text
    assert "License" not in text
    assert "transductive" not in text
    assert "On the 8 validation images, on which the step was chosen" in text


@pytest.mark.parametrize(
    ("returned", "rows"),
    [
        (
            "ssldec",
            [
                "| supervised baseline | 0.650 | 0.875 |",
                "| semi-supervised network (returned) | 0.700 | 0.750 |",
            ],
        ),
        (
            "supervised",
            [
                "| supervised baseline (returned) | 0.700 | 0.750 |",
                "| semi-supervised network | 0.750 | 0.625 |",
            ],
        ),
    ],
)
def test_where_a_verdict_is_both_networks_stand_beside_each_other(returned, rows):
    verdict = {"returned": returned, "n": 8, "macro_f1": {"value": 0.05}, "accuracy": {"value": -0.125}}
    lines = card(run={"verdict": verdict}).splitlines()
    place = lines.index("| network | macro F1 | accuracy |")
    assert lines[place + 2 : place + 4] == rows


def test_a_score_of_zero_has_no_sign():
    verdict = {"returned": "ssldec", "n": 8, "macro_f1": {"value": 0.3}, "accuracy": {"value": 0.3}}
    near = SCORES | {"macro_f1": 0.1 + 0.2 - 1e-16, "accuracy": 0.3 - 1e-16}
    assert "| supervised baseline | 0.000 | 0.000 |" in card(run={"verdict": verdict}, scores=near)


@pytest.mark.parametrize(
    ("verdict", "found"),
    [({}, SCORES), ({"verdict": {"returned": "student", "n": 0, "macro_f1": None, "accuracy": None}}, None)],
)
def test_without_a_comparison_there_is_no_table_of_both(verdict, found):
    assert "supervised baseline" not in card(run=verdict, scores=found)


def test_what_is_not_known_is_said():
    text = card(scores=None, sentence="")
    assert "No validation image: nothing is known about how good it is." in text
    assert "Whether the unlabeled images helped was not asked." in text
    assert "chosen on the validation images" not in text
    assert "macro F1" not in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run": {"transductive": True}}, "Held-out images may be among the unlabeled (transductive)."),
        ({"origin": {"taught": 12}}, "| training | 20, 12 of them labeled by teachers |"),
        (
            {"origin": {"warning": "Read the license."}},
            "one of its classes.\n\n**License.** Read the license.\n\n| |",
        ),
        ({"run": {"image": {"size": 28, "channels": 3}}}, "| input | 28 x 28 pixels, color |"),
        ({"run": {"image": {"size": 28, "channels": 5}}}, "| input | 28 x 28 pixels, 5 channels |"),
        ({"temperature": 1.7}, "| temperature | 1.7, fitted on the validation images |"),
        ({"run": {"method": "supervised"}, "sentence": ""}, "Trained on the labeled images alone."),
        ({"run": {"classes": ["a|b", "c"]}}, "| task | one of a\\|b, c for an image |"),
    ],
)
def test_what_differs_is_told(changes, told):
    assert told in card(**changes)
