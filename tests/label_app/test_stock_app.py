"""MONAI Label's own app with our bundles as they are: T1w and T2w as two files, and images over REST."""

from __future__ import annotations

import json
import os
import shutil
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
from phantoms import ellipsoid_labels, phantom_image, save
from PIL import Image

pytestmark = pytest.mark.skipif(find_spec("monailabel") is None, reason="needs monailabel: make test-label")

BUNDLE = "infant_brain_segmentation"
CLASSIFIER = "compact_image_classification"
PATIENCE_S = 900
FIT_TORCHVISION = (
    "from medssl.networks.torchvision_compat import ensure_torchvision\n\nensure_torchvision()\n"
)
"""What a computer needs whose torchvision does not fit its torch (see `medssl label doctor`)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_run):
    """Lay out the stock app, our bundles in it, and a flat folder of scans with an image."""
    root = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-m", "monailabel.main", "apps", "--download", "--name", "monaibundle"]
    subprocess.run([*command, "--output", str(root / "apps")], check=True, capture_output=True)
    models = root / "apps" / "monaibundle" / "model"
    shutil.copytree(tiny_run, models / BUNDLE)
    shutil.copytree(Path(__file__).parents[2] / "bundles" / CLASSIFIER, models / CLASSIFIER)
    labels = ellipsoid_labels()
    for number in (1, 2):
        for contrast, means in (("T1w", (0, 400, 600, 150)), ("T2w", (0, 500, 400, 900))):
            image = phantom_image(labels, means, number)
            save(root / "studies" / f"sub-0{number}_{contrast}.nii.gz", image, np.diag([-2.0, 2, 2, 1]))
    picture = np.random.default_rng(0).integers(0, 255, (70, 80, 3)).astype(np.uint8)
    Image.fromarray(picture).save(root / "studies" / "cell.png")
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(FIT_TORCHVISION)
    return root


@pytest.fixture(scope="module")
def url(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "monailabel.main",
        "start_server",
        "--app",
        str(folder / "apps" / "monaibundle"),
    ]
    options = ["--studies", str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port)]
    conf = [
        "--conf",
        "models",
        f"{BUNDLE},{CLASSIFIER}",
        "--conf",
        "zoo_source",
        "ngc",
        "--conf",
        "sam2",
        "false",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_DATASTORE_FILE_EXT": '["*_T1w.nii.gz","*[!w].nii.gz","*.png"]',
    }
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *options, *conf], stdout=stream, stderr=stream, env=environment, cwd=folder
        )
    found, began = f"http://127.0.0.1:{port}", time.monotonic()
    while True:
        try:
            requests.get(f"{found}/info/", timeout=PATIENCE_S)
            break
        except requests.ConnectionError:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() - began < PATIENCE_S, log.read_text()[-3000:]
            time.sleep(0.3)
    yield found
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_bundle_offers_its_labels_and_both_bundles_are_there(url):
    told = requests.get(f"{url}/info/", timeout=PATIENCE_S).json()
    assert told["models"][BUNDLE]["labels"] == {"gray matter": 1, "white matter": 2, "cerebrospinal fluid": 3}
    assert told["models"][CLASSIFIER]["type"] == "classification"
    assert BUNDLE in told["trainers"]
    assert told["datastore"]["total"] == 3


def test_a_pair_is_segmented_on_the_grid_of_the_t1w(url, folder, tiny_run, tmp_path):
    from medssl.workflows.segment import segment

    params = {"params": json.dumps({"result_extension": ".nii.gz", "result_dtype": "uint8"})}
    answer = requests.post(f"{url}/infer/{BUNDLE}?image=sub-01&output=image", data=params, timeout=PATIENCE_S)
    assert answer.status_code == 200, (folder / "server.log").read_text()[-3000:]
    (tmp_path / "x.nii.gz").write_bytes(answer.content)
    sent = nib.load(tmp_path / "x.nii.gz")
    assert np.allclose(sent.affine, np.diag([-2.0, 2, 2, 1]))
    scans = [folder / "studies" / f"sub-01_{contrast}.nii.gz" for contrast in ("T1w", "T2w")]
    segment(scans, tmp_path / "maps", tiny_run)
    own = next((tmp_path / "maps").rglob("*_dseg.nii.gz"))
    values, reference = np.asarray(sent.dataobj), np.asarray(nib.load(own).dataobj)
    assert reference.any()
    assert (values == reference).mean() > 0.999


def test_a_label_is_saved_and_trained_on(url, folder, tmp_path):
    path = save(tmp_path / "label.nii.gz", ellipsoid_labels(), np.diag([-2.0, 2, 2, 1]))
    with path.open("rb") as stream:
        put = requests.put(
            f"{url}/datastore/label?image=sub-01", files={"label": (path.name, stream)}, timeout=PATIENCE_S
        )
    assert put.status_code == 200
    weights = folder / "apps" / "monaibundle" / "model" / BUNDLE / "models" / "model.pt"
    before = weights.read_bytes()
    params = {"max_epochs": 1, "val_split": 0, "run_id": "", "pretrained": True, "tracking": "None"}
    assert requests.post(f"{url}/train/{BUNDLE}", json=params, timeout=PATIENCE_S).status_code == 200
    while (told := requests.get(f"{url}/train/", timeout=PATIENCE_S).json())["status"] in (
        "SUBMITTED",
        "RUNNING",
    ):
        time.sleep(0.3)
    assert told["status"] == "DONE", "\n".join(told["details"])
    assert weights.read_bytes() != before  # the stock app trains into the file it began with


def test_an_image_is_classified(url, folder):
    answer = requests.post(f"{url}/infer/{CLASSIFIER}?image=cell&output=json", timeout=PATIENCE_S)
    assert answer.status_code == 200, (folder / "server.log").read_text()[-3000:]
    found = answer.json()["prediction"]
    assert {one["label"] for one in found} <= {"granular", "lobed", "round", "spindle"}
    assert sum(one["score"] for one in found) == pytest.approx(1, abs=1e-3)
