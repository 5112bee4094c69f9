"""The marks of the server for 3D Slicer: how soon it answers, what REST adds, what a training and a kill do to it.

Run it with the Python of `make label`:
    .venv-label/bin/python benchmarks/label_server.py --json benchmarks/results/label_server.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from requests_toolbelt import MultipartDecoder
from scipy.ndimage import gaussian_filter

from medssl.io.cohort import read_cohort
from medssl.io.files import write_json
from medssl.io.nifti import read_labels
from medssl.labels import BRAIN_TISSUES
from medssl.workflows.provenance import versions

PATIENCE_S = 600
LARGE, SMALL = (144, 192, 256), (48, 48, 48)
MEANS = {"T1w": (0, 400, 600, 150), "T2w": (0, 500, 400, 900)}


def tissues(shape: tuple[int, int, int]) -> np.ndarray:
    """Nested ellipsoids in the middle of a volume, as large as a brain is in its field of view."""
    axes = [np.linspace(-1, 1, side) for side in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    labels = np.zeros(shape, np.uint8)
    for limit, value in ((0.78, 3), (0.65, 1), (0.42, 2)):
        labels[radius < limit] = value
    return labels


def write_subject(root: Path, name: str, shape: tuple[int, int, int], seed: int, *, labeled: bool) -> None:
    """Write a T1w and T2w phantom in BIDS."""
    labels, rng = tissues(shape), np.random.default_rng(seed)
    anat = root / f"sub-{name}" / "anat"
    anat.mkdir(parents=True)
    for contrast, means in MEANS.items():
        noise = 30 * rng.normal(size=shape) + 900 * gaussian_filter(rng.normal(size=shape), 3)
        image = np.where(labels > 0, np.clip(np.array(means)[labels] + noise, 1, None), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), anat / f"sub-{name}_{contrast}.nii.gz")
    if labeled:
        nib.save(nib.Nifti1Image(labels, np.eye(4)), anat / f"sub-{name}_dseg.nii.gz")


class Server:
    """`medssl label serve` of a folder."""

    def __init__(self, studies: Path) -> None:
        self.studies, self.labels = studies, studies.with_name(studies.name + "-labels")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it; return the seconds until it answers."""
        command = [
            sys.executable,
            "-m",
            "medssl",
            "label",
            "serve",
            str(self.studies),
            "--port",
            str(self.port),
        ]
        log = (self.studies.parent / "server.log").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen([*command, "--python", sys.executable], stdout=log, stderr=log)
        while time.monotonic() - began < PATIENCE_S:
            try:
                requests.get(f"{self.url}/info/", timeout=PATIENCE_S)
                return time.monotonic() - began
            except requests.ConnectionError:
                time.sleep(0.05)
        raise TimeoutError

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def infer(self, name: str) -> dict[str, Any]:
        """Segment; return the seconds of each step as the server tells them, and of the whole call."""
        began = time.monotonic()
        answer = requests.post(f"{self.url}/infer/segmentation?image={name}", timeout=PATIENCE_S)
        answer.raise_for_status()
        total = time.monotonic() - began
        parts = MultipartDecoder.from_response(answer).parts
        told = next(json.loads(part.content) for part in parts if part.content[:1] == b"{")
        return {**told["latencies"], "total": total, "backend": told["backend"]}

    def save(self, name: str, path: Path) -> bool:
        """Submit a label; tell whether it was confirmed."""
        with path.open("rb") as stream:
            files = {"label": (path.name, stream)}
            return requests.put(
                f"{self.url}/datastore/label?image={name}", files=files, timeout=PATIENCE_S
            ).ok


def while_training(server: Server) -> float:
    """Train a little and return the longest time that a small question waited for its answer."""
    requests.post(
        f"{server.url}/train/supervised", json={"max_epochs": 2}, timeout=PATIENCE_S
    ).raise_for_status()
    longest = 0.0
    while True:
        began = time.monotonic()
        status = requests.get(f"{server.url}/train/", timeout=PATIENCE_S).json()["status"]
        longest = max(longest, time.monotonic() - began)
        if status not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(0.05)
    if status != "DONE":
        raise RuntimeError(status)
    return longest


def killed_while_saving(server: Server, name: str, path: Path, moments: int, seed: int) -> int:
    """Kill the server at random moments while labels are saved; return how many confirmed labels were lost."""
    rng, lost = random.Random(seed), 0
    for _ in range(moments):
        confirmed = threading.Event()

        def save_again(confirmed: threading.Event = confirmed) -> None:
            try:
                while server.save(name, path):
                    confirmed.set()
            except requests.RequestException:
                pass

        saving = threading.Thread(target=save_again)
        saving.start()
        confirmed.wait(PATIENCE_S)
        time.sleep(rng.uniform(0, 1))
        server.end(signal.SIGKILL)
        saving.join()
        found = {one.key: one.label for one in read_cohort(server.studies).training}
        expected = np.asarray(nib.load(path).dataobj)
        whole = name in found and np.array_equal(read_labels(found[name], name, BRAIN_TISSUES).data, expected)
        lost += not whole
        server.start()
    return lost


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "scans"
        write_subject(studies, "01", SMALL, 1, labeled=True)
        for number, name in enumerate(("02", "03")):
            write_subject(studies, name, SMALL, 10 + number, labeled=False)
        write_subject(studies, "09", LARGE, 9, labeled=False)
        drawn = Path(folder) / "label.nii.gz"
        nib.save(nib.Nifti1Image(tissues(SMALL), np.eye(4)), drawn)
        server = Server(studies)
        found: dict[str, Any] = {"versions": versions(), "cores": len(os.sched_getaffinity(0))}
        found["ready_s"] = [server.start()]
        server.infer("sub-09")  # backends are compared once
        calls = [server.infer("sub-09") for _ in range(options.repeats)]
        found["infer_144x192x256"] = calls
        found["above_predictor_s"] = [call["total"] - call["infer"] for call in calls]
        found["longest_wait_while_training_s"] = while_training(server)
        found["killed"] = options.kills
        found["lost"] = killed_while_saving(server, "sub-02", drawn, options.kills, options.seed)
        server.end()
        found["ready_s"].append(server.start())
        server.end()
    print(json.dumps(found, indent=2))
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
