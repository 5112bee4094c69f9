"""A real server, driven by MONAI Label's own client and by the requests that 3D Slicer sends."""

from __future__ import annotations

import json
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from label_app_server import Server, make_cohort
from phantoms import ellipsoid_labels, save

from medssl.io.cohort import read_cohort
from medssl.io.nifti import read_grid, read_volume
from medssl.io.nrrd import nrrd_to_nifti
from medssl.workflows.check import check
from medssl.workflows.segment import Options, segment

pytestmark = [
    pytest.mark.skipif(find_spec("monailabel") is None, reason="needs monailabel: make test-label"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MONAI Label's client imports cgi ...
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # ... and leaves its sockets open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEGMENTS = [{"name": "gm", "idx": 1}, {"name": "wm", "idx": 2}, {"name": "csf", "idx": 3}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("label")


@pytest.fixture(scope="module")
def server(place, tiny_run):
    """One server for the whole module: tests below follow a day of labeling, in their order."""
    running = Server(make_cohort(place / "cohort"), tiny_run, place / "cache").start()
    yield running
    if running.process.poll() is None:
        running.stop()


def first_image(server, key):
    return server.studies / key / "anat" / f"{key}_T1w.nii.gz"


def drawn(path, values=None, affine=None):
    """Write a label image as a viewer exports it."""
    return save(
        path,
        ellipsoid_labels() if values is None else values,
        np.diag([2.0, 2, 2, 1]) if affine is None else affine,
    )


def put_label(server, path, key="sub-02", segments=SEGMENTS, **query):
    with Path(path).open("rb") as stream:
        return server.call(
            "PUT",
            "/datastore/label",
            params={"image": key, **query},
            files={"label": (Path(path).name, stream)},
            data={"params": json.dumps({"label_info": segments})},
        )


def test_info_has_what_slicer_reads(server, client):
    told = client.info()
    assert not client.auth_enabled()
    assert told["labels"] == ["gm", "wm", "csf"]
    assert told["models"]["segmentation"]["type"] == "segmentation"
    assert told["models"]["segmentation"]["labels"] == {"gm": 1, "wm": 2, "csf": 3}
    assert list(told["trainers"]) == ["supervised", "pseudo-label", "ssldec"]
    assert next(iter(told["strategies"])) == "label_next"
    assert told["datastore"] == {"total": 4, "completed": 1, "label_tags": {"final": 1}}
    assert set(told) >= {"name", "description", "version", "train_stats", "scoring"}


@pytest.mark.parametrize("strategy", ["label_next", "random", "first"])
def test_the_next_sample_is_unlabeled_and_readable(server, client, strategy):
    told = client.next_sample(strategy, {"client_id": "me"})
    assert told["id"] in {"sub-02", "sub-03", "sub-04"}
    assert Path(told["path"]) == first_image(server, told["id"]).resolve()
    assert told["name"] == f"{told['id']}_T1w.nii.gz"
    assert strategy != "label_next" or told["reason"]


def test_the_ranking_comes_with_a_reason_of_its_own(server, client):
    """That of `medssl rank`, not the order of the folder."""
    reasons = {"The ranking is being made; this is the first scan."}
    until = time.monotonic() + 300
    while (reason := client.next_sample("label_next", {})["reason"]) in reasons and time.monotonic() < until:
        time.sleep(0.5)
    assert reason not in reasons
    assert "No ranking" not in reason
    kept = {path.name for path in (server.labels / "ranking").rglob("*_measures.json")}
    assert kept == {f"sub-0{number}_measures.json" for number in range(1, 5)}


def test_an_image_is_sent_as_it_is(server):
    answer = server.get("/datastore/image?image=sub-02")
    assert answer.content == first_image(server, "sub-02").read_bytes()


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
def test_the_answer_is_that_of_the_command_line_on_the_grid_of_the_scan(
    server, client, tiny_run, place, tmp_path, extension
):
    path, told = client.infer(
        "segmentation", "sub-02", {"result_extension": extension, "result_dtype": "uint8"}
    )
    if extension == ".nrrd":
        nrrd_to_nifti(Path(path), tmp_path / "sent.nii.gz")
        path = tmp_path / "sent.nii.gz"
    out = tmp_path / "maps"
    segment(
        server.studies,
        out,
        tiny_run,
        Options(pictures=False, backend="auto", precision="auto", cache=server.cache),
    )
    own = nib.load(out / "sub-02" / "anat" / "sub-02_seg-braintissues_dseg.nii.gz")
    sent = nib.load(path)
    values, reference = np.asarray(sent.dataobj), np.asarray(own.dataobj)
    assert read_grid(path, "sent").difference(read_grid(first_image(server, "sub-02"), "scan")) is None
    for value in (1, 2, 3):
        both = (values == value).sum() + (reference == value).sum()
        assert 2 * ((values == value) & (reference == value)).sum() >= 0.999 * both
    assert told["label_names"] == {"gm": 1, "wm": 2, "csf": 3}
    assert told["model"] == "initial"
    assert values.any()


def test_the_parts_of_an_answer_come_alone_when_asked_for(server):
    answer = server.call("POST", "/infer/segmentation?image=sub-02&output=json")
    assert answer.json()["model"] == "initial"
    answer = server.call("POST", "/infer/segmentation?image=sub-02&output=image", data={"params": "{}"})
    assert answer.content[:4] == b"NRRD"


def test_two_clients_at_once_get_their_own_scans(server, tmp_path):
    from monailabel.client.client import MONAILabelClient

    found = {}

    def ask(key):
        one = MONAILabelClient(server.url, tmpdir=str(tmp_path / key))
        found[key] = one.infer("segmentation", key, {"result_extension": ".nii.gz"})[0]

    threads = [threading.Thread(target=ask, args=(key,)) for key in ("sub-02", "sub-03")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: Path(path).name for key, path in found.items()} == {
        key: f"{key}_seg.nii.gz" for key in ("sub-02", "sub-03")
    }


# ------------------------------------------------------------------------------- what cannot be answered


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/infer/segmentation?image=sub-99", 404),
        ("POST", "/infer/nothing?image=sub-02", 404),
        ("POST", "/infer/segmentation?image=/etc/hostname", 400),
        ("POST", "/infer/segmentation?image=../cohort/sub-02", 400),
        ("POST", "/infer/segmentation", 400),
        ("POST", "/infer/segmentation?session_id=../../x", 400),
        ("POST", "/infer/segmentation?session_id=00000000-0000-0000-0000-000000000000", 404),
        ("GET", "/datastore/image?image=../../x", 400),
        ("GET", "/datastore/image?image=sub-99", 404),
        ("GET", "/datastore/label?label=sub-02&tag=original", 404),
        ("GET", "/datastore/label?label=sub-01&tag=../../x", 400),
        ("GET", "/session/..%2F..%2Fx", 404),
        ("POST", "/activelearning/nothing", 404),
        ("GET", "/train/?check_if_running=true", 404),
        ("GET", "/datastore/?output=nothing", 400),
        ("GET", "/auth/", 404),
        ("POST", "/reload", 404),
        ("PUT", "/model/segmentation", 404),
        ("DELETE", "/model/segmentation", 404),
        ("GET", "/model/segmentation", 404),
        ("GET", "/proxy/dicom/x", 404),
        ("POST", "/batch/infer/segmentation", 404),
        ("DELETE", "/datastore/image?id=sub-01", 405),
    ],
)
def test_what_is_not_there_or_not_allowed_is_said_plainly(server, method, path, status):
    answer = server.call(method, path)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "params",
    [
        {"max_epochs": "$__import__('os').system('touch hacked')"},
        {"max_epochs": "5"},
        {"max_epochs": -1},
        {"max_epochs": True},
        {"budget": "endless"},
        {"device": "@network"},
        {"device": "cuda:7"},
        {"pretrained": "yes"},
        {"seed": 1.5},
        {"other": {"deep": ["%x"]}},
        {"model_filename": 3},
    ],
)
def test_hostile_training_values_start_nothing(server, params):
    answer = server.call("POST", "/train/supervised", json=params)
    assert answer.status_code in (400, 404), answer.text
    assert server.get("/train/").status_code == 404
    assert not list(server.labels.rglob("hacked"))


def test_expressions_have_no_effect_on_a_segmentation(server):
    for params in (
        {"device": "$1+1"},
        {"image": "$x"},
        {"result_extension": ".py"},
        {"model_filename": "../x"},
    ):
        answer = server.call("POST", "/infer/segmentation?image=sub-02", data={"params": json.dumps(params)})
        assert answer.status_code in (400, 404), (params, answer.text)
    params = {
        "image": "/etc/hostname",
        "save_label": True,
        "label_tag": "../../x",
        "session": {"image": "/etc"},
    }
    answer = server.call(
        "POST", "/infer/segmentation?image=sub-02&output=json", data={"params": json.dumps(params)}
    )
    assert answer.json()["model"] == "initial"  # the path in the form means nothing
    assert server.call("POST", "/infer/segmentation?image=sub-02", data={"params": "[1"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 200),
        ({}, 200),
    ],
)
def test_only_this_computer_and_no_other_site_is_answered(server, headers, status):
    answer = server.get("/info/", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_another_site_is_refused(server):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    assert server.call("OPTIONS", "/datastore/label", headers=headers).status_code in (403, 405)


def test_the_server_listens_on_this_computer_alone(server):
    import psutil

    listening = [
        one for one in psutil.Process(server.process.pid).net_connections() if one.status == "LISTEN"
    ]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}


def test_nothing_is_written_outside_by_ids_and_tags(server, tmp_path):
    label = drawn(tmp_path / "label.nii.gz")
    before = sorted(path for path in server.studies.parent.rglob("*") if server.labels not in path.parents)
    assert put_label(server, label, key="../x").status_code == 400
    assert put_label(server, label, tag="../../x").status_code == 400
    assert put_label(server, label, tag="other").status_code == 400
    with label.open("rb") as stream:
        sent = {"file": ("../../evil_T1w.nii.gz", stream)}
        assert server.call("PUT", "/datastore/image?image=../evil", files=sent).status_code == 400
    after = sorted(path for path in server.studies.parent.rglob("*") if server.labels not in path.parents)
    assert [path for path in after if path not in before and server.cache not in path.parents] == []


def test_a_4d_volume_is_refused_in_words(server, client, tmp_path):
    path = save(tmp_path / "four_T1w.nii.gz", np.ones((8, 8, 8, 2), np.int16), np.eye(4))
    session = client.create_session(str(path))["session_id"]
    answer = server.call("POST", f"/infer/segmentation?session_id={session}")
    assert answer.status_code == 400
    assert "4D" in answer.json()["detail"]
    assert client.remove_session(session)
    assert server.get(f"/session/{session}").status_code == 404
    with path.open("rb") as stream:
        assert (
            server.call("PUT", "/datastore/?image=four_T1w", files={"file": (path.name, stream)}).status_code
            == 400
        )


def test_one_volume_of_a_pair_is_refused_and_both_are_segmented(server, client, tmp_path):
    source = first_image(server, "sub-03")
    session = client.create_session(str(source))["session_id"]
    answer = server.call("POST", f"/infer/segmentation?session_id={session}")
    assert answer.status_code == 400
    assert "T2w" in answer.json()["detail"]
    pair = [source, source.with_name(source.name.replace("T1w", "T2w"))]
    files = [("files", (path.name, path.read_bytes())) for path in pair]
    session = server.call("PUT", "/session/", files=files).json()["session_id"]
    answer = server.call("POST", f"/infer/segmentation?session_id={session}&output=json")
    assert answer.status_code == 200, answer.text


def test_a_missing_t2w_is_named(server):
    path = server.studies / "sub-04" / "anat" / "sub-04_T2w.nii.gz"
    away = path.with_name("away")
    path.rename(away)
    try:
        answer = server.call("POST", "/infer/segmentation?image=sub-04")
    finally:
        away.rename(path)
    assert answer.status_code == 400
    assert "T2w is missing: expected sub-04_T2w.nii.gz" in answer.json()["detail"]


# ------------------------------------------------------------------------------------------- a day's work


def test_each_method_trains_from_one_label_with_all_unlabeled_scans(server):
    """The log says so, and the weights differ from each other and from those they began with."""
    longest, done = [0.0], threading.Event()

    def ask():
        while not done.is_set():
            began = time.monotonic()
            server.get("/datastore/")
            longest[0] = max(longest[0], time.monotonic() - began)
            done.wait(0.1)

    asking = threading.Thread(target=ask)
    asking.start()
    weights = {"initial": (server.model / "models" / "model.pt").read_bytes()}
    for method in ("supervised", "pseudo-label", "ssldec"):
        told = server.trained(method, max_epochs=2, pretrained=True)
        log = "\n".join(told["details"])
        assert told["status"] == "DONE", log
        assert f"Training {method} into {method}-001: 1 labeled, 0 validating, 3 unlabeled scans" in log
        assert told["progress"]["epoch"] == told["progress"]["total_epochs"] == 2
        weights[method] = (server.labels / "models" / f"{method}-001" / "models" / "model.pt").read_bytes()
        record = json.loads((server.labels / "models" / f"{method}-001" / "run.json").read_text())
        assert record["subjects"]["unlabeled"] == (
            [] if method == "supervised" else ["sub-02", "sub-03", "sub-04"]
        )
    done.set()
    asking.join()
    assert len(set(weights.values())) == 4
    assert (server.model / "models" / "model.pt").read_bytes() == weights["initial"]
    assert longest[0] < 5, f"the server was silent for {longest[0]:.1f} s"


def test_new_weights_can_be_chosen_and_the_newest_come_first(server, client):
    names = client.info()["models"]["segmentation"]["config"]["model_filename"]
    assert names == ["newest", "ssldec-001", "pseudo-label-001", "supervised-001", "initial"]
    used = {
        name: client.infer("segmentation", "sub-02", {"model_filename": name})[1]["model"]
        for name in names[:3]
    }
    assert used == {"newest": "ssldec-001", **{name: name for name in names[1:3]}}
    assert client.infer("segmentation", "sub-02", {"model_filename": names})[1]["model"] == "ssldec-001"


def test_a_training_is_stopped_and_goes_on(server):
    server.call("POST", "/train/supervised", json={"max_epochs": 2000})
    assert server.call("POST", "/train/supervised", json={"max_epochs": 1}).status_code == 429
    while (told := server.get("/train/").json())["progress"].get("step", 0) < 2:
        assert told["status"] in ("SUBMITTED", "RUNNING"), told["details"]
        time.sleep(0.2)
    run = told["progress"]["model"]
    stopped = server.call("DELETE", "/train/").json()
    assert stopped["status"] == "STOPPED"
    step = server.get("/train/").json()["progress"]["step"]
    server.call("POST", "/train/supervised", json={"max_epochs": 2000})
    while (told := server.get("/train/").json())["progress"].get("step", 0) <= step:
        assert told["status"] in ("SUBMITTED", "RUNNING"), told["details"]
        time.sleep(0.2)
    log = "\n".join(server.get("/train/").json()["details"])
    assert f"Going on with supervised into {run}" in log
    assert server.call("DELETE", "/train/").json()["status"] == "STOPPED"
    assert server.call("DELETE", "/train/").json() is None


def test_a_label_is_remapped_by_its_names_and_its_affine_stays(server, client, tmp_path):
    table = {1: 3, 2: 1, 3: 2}  # the order of segments in a viewer's scene
    values = np.vectorize(lambda value: table.get(value, 0))(ellipsoid_labels()).astype(np.uint8)
    names = [{"name": "WM", "idx": 1}, {"name": "csf", "idx": 2}, {"name": "Gray Matter", "idx": 3}]
    told = client.save_label(
        "sub-02", str(drawn(tmp_path / "x.nii.gz", values)), params={"label_info": names}
    )
    assert told == {"image": "sub-02", "label": "sub-02"}
    stored = nib.load(server.labels / "final" / "sub-02_seg-braintissues_dseg.nii.gz")
    lookup = {1: 2, 2: 3, 3: 1}
    expected = np.vectorize(lambda value: lookup.get(value, 0))(values)
    assert np.array_equal(np.asarray(stored.dataobj), expected)
    scan = nib.load(first_image(server, "sub-02"))
    assert np.array_equal(stored.affine, scan.affine)
    assert stored.header["sform_code"] == scan.header["sform_code"]
    assert server.get("/datastore/label?label=sub-02&tag=final").status_code == 200
    assert client.next_sample("first", {})["id"] == "sub-03"


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([{"name": "liver", "idx": 1}], "liver"),
        ([{"name": "gm", "idx": 1}], "no segment"),
        ([{"name": "gm"}], "idx"),
        ([{"name": "$gm", "idx": 1}], "expression"),
    ],
)
def test_a_label_with_other_names_is_refused(server, tmp_path, segments, words):
    answer = put_label(server, drawn(tmp_path / "x.nii.gz"), key="sub-03", segments=segments)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert not (server.labels / "final" / "sub-03_seg-braintissues_dseg.nii.gz").exists()


def test_a_label_on_another_grid_or_without_voxels_is_refused(server, tmp_path):
    moved = np.diag([2.0, 2, 2, 1])
    moved[0, 3] = 5
    assert "grid" in put_label(server, drawn(tmp_path / "a.nii.gz", affine=moved), "sub-03").json()["detail"]
    empty = np.zeros((32, 32, 32), np.uint8)
    assert "no voxel" in put_label(server, drawn(tmp_path / "b.nii.gz", empty), "sub-03").json()["detail"]
    (tmp_path / "c.nii.gz").write_bytes(b"no image")
    assert put_label(server, tmp_path / "c.nii.gz", "sub-03").status_code == 400
    assert put_label(server, tmp_path / "c.nii.gz", "sub-99").status_code == 404


def test_the_command_line_sees_the_labels(server):
    """`medssl check STUDIES` and `medssl train STUDIES` take the corrected scan for a labeled one."""
    cohort = read_cohort(server.studies)
    assert [one.key for one in cohort.training] == ["sub-01", "sub-02"]
    assert check(server.studies).ok
    assert check(server.labels).ok  # the folder beside is a cohort as well
    assert [one.key for one in read_cohort(server.labels).training] == ["sub-01", "sub-02"]


def test_a_killed_server_loses_no_label_that_it_confirmed(server, tmp_path):
    path, confirmed, failed = drawn(tmp_path / "x.nii.gz"), [], []

    def save_again():
        while not failed:
            try:
                if put_label(server, path, "sub-03").ok:
                    confirmed.append(time.monotonic())
            except requests.RequestException as error:
                failed.append(error)

    saving = threading.Thread(target=save_again)
    saving.start()
    while len(confirmed) < 3:
        time.sleep(0.01)
    server.stop(signal.SIGKILL)
    saving.join()
    server.start()
    told = server.get("/datastore/?output=all").json()["objects"]
    assert [key for key, one in told.items() if "final" in one["labels"]] == ["sub-01", "sub-02", "sub-03"]
    assert np.array_equal(read_volume(server.labels / "final" / "sub-03_seg-braintissues_dseg.nii.gz", "sub-03").data,
                          ellipsoid_labels())  # fmt: skip
    assert (
        list(server.get("/info/").json()["models"]["segmentation"]["config"]["model_filename"])[-1]
        == "initial"
    )


def test_a_label_is_taken_back_and_kept_aside(server):
    assert server.call("DELETE", "/datastore/label?id=sub-03&tag=final").status_code == 200
    assert server.get("/info/").json()["datastore"]["completed"] == 2
    assert len(list((server.labels / "removed").iterdir())) == 1
    assert server.call("DELETE", "/datastore/label?id=sub-01&tag=final").status_code == 404  # not saved here


def test_an_uploaded_pair_becomes_a_scan(server, client):
    source = first_image(server, "sub-03")
    assert client.upload_image(str(source), "sub-09_T1w") == {"image": "sub-09"}
    assert server.get("/info/").json()["datastore"]["total"] == 4  # one contrast is no scan yet
    client.upload_image(str(source.with_name(source.name.replace("T1w", "T2w"))), "sub-09_T2w")
    assert server.get("/info/").json()["datastore"]["total"] == 5
    assert server.call("POST", "/infer/segmentation?image=sub-09&output=json").status_code == 200


def test_the_folder_of_the_scans_is_as_it_was(server):
    assert sorted(path.name for path in server.studies.iterdir()) == [
        "derivatives",
        "sub-01",
        "sub-02",
        "sub-03",
        "sub-04",
    ]
    assert len(list(server.studies.rglob("*"))) == 4 + 4 + 8 + 1 + 1 + 1 + 1 + 1


def test_a_second_server_on_the_same_folder_is_refused(server):
    other = Server(server.studies, server.model, server.cache)
    with pytest.raises(AssertionError, match="is being written by"):
        other.start()


def test_it_ends_cleanly_on_a_signal_and_frees_the_folder(server):
    server.call("POST", "/train/supervised", json={"max_epochs": 3000})
    while server.get("/train/").json()["status"] != "RUNNING":
        time.sleep(0.1)
    assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert not (server.labels / ".server.lock").exists()
