"""The page docs/slicer.md, followed step by step with MONAI Label's client against a running server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from label_app_server import Server, make_cohort
from phantoms import ellipsoid_labels, save

pytestmark = [
    pytest.mark.skipif(find_spec("monailabel") is None, reason="needs monailabel: make test-label"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MONAI Label's client imports cgi ...
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # ... and leaves its sockets open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = (Path(__file__).parents[2] / "docs" / "slicer.md").read_text()
CODE = re.compile(r"`([^`]+)`")


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table that follows a header row."""
    lines = PAGE[PAGE.index(header) :].splitlines()[2:]
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


STEPS = {int(number): (what, happens) for number, what, happens in rows("| step | in 3D Slicer |")}
TROUBLE = [row[0] for row in rows("| what you see |")]


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_run):
    """One server for the page; the tests follow its order."""
    place = tmp_path_factory.mktemp("page")
    running = Server(make_cohort(place / "SCANS", 1, 4), tiny_run, place / "cache").start()
    yield running
    if running.process.poll() is None:
        running.stop()


def test_the_command_says_what_to_type_in_slicer(server):
    told = server.log.read_text().replace("\n", " ")
    assert "5 scans, 1 of them labeled" in told
    for words in ("MONAI Label", server.url, "Next Sample", "Run", "Submit Label", "Train", "Ctrl-C"):
        assert words in told
    assert "`http://127.0.0.1:8000`" in STEPS[2][0]
    assert server.url.startswith("http://127.0.0.1:")


def test_step_2_the_lists_appear(client):
    told = client.info()
    assert {"models", "trainers", "strategies", "datastore"} <= told.keys()
    assert list(told["trainers"]) == CODE.findall(STEPS[7][0])
    assert set(told["strategies"]) == set(CODE.findall(STEPS[3][1])) - {"sub-07", "medssl rank"}
    _, name, option = CODE.findall(STEPS[4][1])
    assert option in told["models"][name]["config"]
    options = {word for row in rows("| option | meaning |") for word in CODE.findall(row[0])}
    for trainer in told["trainers"].values():
        assert options == trainer["config"].keys()


def test_steps_3_to_6_a_scan_is_offered_segmented_corrected_and_submitted(server, client):
    offered = client.next_sample("label_next", {})
    assert re.fullmatch(r"sub-\d\d", offered["id"])
    assert offered["reason"]
    model = CODE.findall(STEPS[4][0])[0]
    made, params = client.infer(model, offered["id"], {})
    assert list(params["label_names"]) == ["gm", "wm", "csf"]
    path = Path(made).with_name("drawn.nii.gz")
    scan = nib.load(offered["path"])
    values = np.asarray(nib.load(str(_as_nifti(Path(made)))).dataobj).astype(np.uint8)
    assert values.shape == scan.shape
    values[10:14, 10:14, 10:14] = 4  # a segment called unknown
    nib.save(nib.Nifti1Image(values, scan.affine), path)
    segments = [
        {"name": name, "idx": number} for number, name in enumerate(["gm", "wm", "csf", "unknown"], 1)
    ]
    before = client.info()["datastore"]["completed"]
    client.save_label(offered["id"], str(path), params={"label_info": segments})
    assert client.info()["datastore"]["completed"] == before + 1
    stored = server.labels / "final" / f"{offered['id']}_seg-braintissues_dseg.nii.gz"
    assert (np.asarray(nib.load(stored).dataobj)[10:14, 10:14, 10:14] == 255).all()


@pytest.mark.parametrize("method", CODE.findall(STEPS[7][0]))
def test_steps_7_and_8_a_training_is_watched_and_its_weights_come_first(server, client, method):
    before = slicers_choices(client.info()["models"]["segmentation"]["config"])
    client.train_start(method, {"max_epochs": 40})
    seen = []
    while (status := client.train_status()["status"]) in ("SUBMITTED", "RUNNING"):
        shown = next(iter(client.info()["train_stats"].values()))  # what the progress bar of Slicer takes
        seen.append((shown["epoch"], shown["total_epochs"], "total_time" in shown))
        time.sleep(0.1)
    assert status == "DONE", server.log.read_text()[-3000:]
    assert any(0 < epoch < total == 40 for epoch, total, _ in seen), seen
    assert not any(ended for _, _, ended in seen)
    newest = client.info()["models"]["segmentation"]["config"]["model_filename"][1]
    assert newest.startswith(f"{method}-0")
    assert CODE.findall(STEPS[8][1])[0] == before["model_filename"]
    assert client.infer("segmentation", "sub-05", before)[1]["model"] == newest


def test_what_lies_where(server, client, tmp_path):
    drawn = save(tmp_path / "x.nii.gz", ellipsoid_labels(), np.diag([2.0, 2, 2, 1]))
    names = [{"name": name, "idx": number} for number, name in enumerate(["gm", "wm", "csf"], 1)]
    for number in range(2, 6):
        client.save_label(f"sub-0{number}", str(drawn), params={"label_info": names})
    client.save_label("sub-03", str(drawn), tag="original", params={"label_info": names})
    assert server.call("DELETE", "/datastore/label?id=sub-02&tag=final").status_code == 200
    scan = server.studies / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    for contrast in ("T1w", "T2w"):
        client.upload_image(str(scan), f"new_{contrast}")
    client.save_label("sub-02", str(drawn), params={"label_info": names})
    listed = PAGE[PAGE.index("## What lies where") :].split("```")[1].strip().splitlines()
    for line in listed:
        for word in re.split(r"\s{2,}", line)[0].split():
            wanted = word.replace("sub-07", "sub-*") + ("*" if word.endswith("/") else "")
            assert list(server.labels.glob(wanted)), f"{word} is not there"
    checked = medssl("check", str(server.studies))
    assert checked.returncode == 0, checked.stderr


def test_the_messages_of_the_last_table_are_those_of_the_program(server, client, tmp_path):
    """All rows but those of the environment, which the doctor's tests make, and those that Slicer says itself."""
    drawn = save(tmp_path / "x.nii.gz", ellipsoid_labels(), np.diag([2.0, 2, 2, 1]))
    moved = save(tmp_path / "y.nii.gz", ellipsoid_labels(), np.diag([2.0, 2, 3, 1]))
    t2w = server.studies / "sub-04" / "anat" / "sub-04_T2w.nii.gz"
    scan = server.studies / "sub-03" / "anat" / "sub-03_T1w.nii.gz"
    t2w.rename(t2w.with_name("away"))
    missing = server.call("POST", "/infer/segmentation?image=sub-04").json()["detail"]
    t2w.with_name("away").rename(t2w)
    session = client.create_session(str(scan))["session_id"]
    server.call("POST", "/train/supervised", json={"max_epochs": 2000})
    messages = [
        missing,
        server.call("POST", f"/infer/segmentation?session_id={session}").json()["detail"],
        put_label(server, drawn, [{"name": "Segment_1", "idx": 1}]),
        put_label(server, moved, [{"name": "gm", "idx": 1}]),
        server.call("POST", "/train/supervised", json={"max_epochs": 1}).json()["detail"],
        other_server(server, server.studies, free_port()),
        other_server(server, make_cohort(tmp_path / "other"), server.port),
    ]
    server.call("DELETE", "/train/")
    elsewhere = (
        "MONAI Label is not",
        "No module named",
        "operator torchvision",
        "Slicer: ",
        "Train ends with",
    )
    for row in TROUBLE:
        words = row.strip("`*")
        if words.startswith(elsewhere):
            continue
        pattern = re.escape(words).replace(re.escape("..."), ".+")
        assert any(re.search(pattern, one) for one in messages), f"nothing says: {words}\n{messages}"


def test_stop_and_ctrl_c(server, client):
    client.train_start("ssldec", {"max_epochs": 2000})
    while client.train_status()["progress"].get("step", 0) < 2:
        time.sleep(0.1)
    assert client.train_stop()["status"] == "STOPPED"
    assert server.stop(signal.SIGINT) in (0, -signal.SIGINT)
    with pytest.raises(requests.ConnectionError):
        server.get("/info/")


def slicers_choices(config):
    """Return what 3D Slicer sends: the first of each list, of the table that it filled when it connected."""
    return {name: value[0] if isinstance(value, list) else value for name, value in config.items()}


def medssl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "medssl", *words], capture_output=True, text=True, check=False
    )


def put_label(server, path, segments):
    with path.open("rb") as stream:
        return server.call(
            "PUT",
            "/datastore/label?image=sub-03",
            files={"label": (path.name, stream)},
            data={"params": json.dumps({"label_info": segments})},
        ).json()["detail"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def other_server(server, studies, port):
    """Start one more; return what it says before it ends."""
    place = ["--python", sys.executable, "--model", str(server.model)]
    ended = medssl("label", "serve", str(studies), "--port", str(port), *place)
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


def _as_nifti(path):
    from medssl.io.nrrd import is_nrrd, nrrd_to_nifti

    if not is_nrrd(path):
        return path
    target = path.with_name("answer.nii.gz")
    nrrd_to_nifti(path, target)
    return target
