from pathlib import Path

import pytest

from medssl.errors import MedsslError
from medssl.label_app import checks
from medssl.label_app.checks import InferRequest, NotThere, RequestError, TrainRequest

MODELS = ["ssldec-001", "initial"]


@pytest.mark.parametrize("text", ["sub-01", "sub-01_ses-6mo", "a", "9.x+y"])
def test_plain_ids_pass(text):
    assert checks.identifier(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "a/b", "a\\b", "-x", ".hidden", "a..b", "x" * 200, "a\n", None, 3, "ä"]
)
def test_other_ids_are_refused(text):
    with pytest.raises(RequestError):
        checks.identifier(text)


@pytest.mark.parametrize("text", ["final", "original"])
def test_known_tags_pass(text):
    assert checks.tag(text) == text


@pytest.mark.parametrize("text", ["", "Final", "../x", None, ["final"]])
def test_other_tags_are_refused(text):
    with pytest.raises(RequestError):
        checks.tag(text)


def test_a_file_keeps_its_name_without_its_folders():
    assert checks.file_name("/home/me/sub-01_T1w.nii.gz") == "sub-01_T1w.nii.gz"
    assert checks.file_name("C:\\data\\x.nrrd") == "x.nrrd"


@pytest.mark.parametrize("name", ["", "..", "x.py", "x.hdr", "x.nhdr", ".nii.gz", "x.nii.gz\n", "a;b.nii"])
def test_other_files_are_refused(name):
    with pytest.raises(RequestError):
        checks.file_name(name)


@pytest.mark.parametrize(
    "told",
    [
        {"x": "$1"},
        {"x": "@network"},
        {"x": "%a::b"},
        {"x": "  $1"},
        {"$x": 1},
        {"x": ["a", {"y": "$z"}]},
        ["x"],
        "x",
    ],
)
def test_what_a_configuration_would_evaluate_is_refused(told):
    with pytest.raises(RequestError):
        checks.plain_object(told)


def test_deep_nesting_is_refused():
    told = {}
    for _ in range(50):
        told = {"x": told}
    with pytest.raises(RequestError):
        checks.plain_object(told)


@pytest.mark.parametrize("text", ["[1]", "{", "3", "[" * 100_000])
def test_params_that_are_no_object_are_refused(text):
    with pytest.raises(RequestError):
        checks.json_object(text)


def test_empty_params_mean_nothing():
    assert checks.json_object("") == checks.json_object(None) == checks.plain_object(None) == {}


def test_slicer_sends_lists_of_choices_and_more_than_is_known():
    told = {
        "model_filename": MODELS,
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "run_id": "",
        "client_id": "me",
    }
    assert checks.infer_request(told, MODELS) == InferRequest("ssldec-001", ".nrrd")
    told = {
        "budget": ["quick", "full"],
        "max_epochs": 3.0,
        "device": ["cpu"],
        "run_id": "",
        "pretrained": False,
    }
    assert checks.train_request(told, MODELS, ["cpu"]) == TrainRequest(
        "quick", 3, pretrained=False, device="cpu"
    )


@pytest.mark.parametrize("told", [{"result_extension": ".py"}, {"result_extension": 3}])
def test_other_endings_are_refused(told):
    with pytest.raises(RequestError):
        checks.infer_request(told, MODELS)


@pytest.mark.parametrize("name", ["x", "../initial", 3, {"a": 1}])
def test_unknown_models_are_not_there(name):
    with pytest.raises(NotThere):
        checks.infer_request({"model_filename": name}, MODELS)


@pytest.mark.parametrize(
    "told",
    [
        {"max_epochs": "3"},
        {"max_epochs": 1.5},
        {"max_epochs": -1},
        {"max_epochs": True},
        {"max_epochs": float("nan")},
        {"max_epochs": float("inf")},
        {"max_epochs": 10**9},
        {"max_epochs": None},
        {"max_epochs": {}},
        {"pretrained": 1},
        {"resume": "true"},
        {"budget": "endless"},
        {"device": "cuda:9"},
        {"seed": -1},
    ],
)
def test_training_values_of_the_wrong_type_are_refused(told):
    with pytest.raises(MedsslError):
        checks.train_request(told, MODELS, ["cpu"])


def test_paths_outside_are_refused_links_followed(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.touch()
    (own / "link").symlink_to(other)
    (own / "file").touch()
    assert checks.inside(own / "file", own) == (own / "file").resolve()
    for path in (own / "link", own / ".." / "other", Path("/etc/hostname")):
        with pytest.raises(RequestError):
            checks.inside(path, own)


def test_nothing_but_checked_values_reaches_a_training():
    told = {
        "model": "other",
        "bundle_path": "/tmp/x",
        "gpus": "0;x",
        "max_epochs": 2,
        "model_filename": "initial",
    }
    params = checks.train_request(told, MODELS, ["cpu"]).as_params()
    assert params["max_epochs"] == 2
    assert params["model_filename"] == "initial"
    assert not {"model", "bundle_path", "gpus"} & set(params)
    assert checks.train_request(params, MODELS, ["cpu"]) == checks.train_request(told, MODELS, ["cpu"])
