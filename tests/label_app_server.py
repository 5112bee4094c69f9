"""A tiny model and a tiny cohort, and a real server on this computer that is driven as 3D Slicer drives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from phantoms import write_subject

PATIENCE_S = 900
"""How long a server may take to start: the mark is 10 s, a busy machine is not the server's fault."""

STEPS = {
    "crop_size": [16, 16, 16],
    "batch_size": 2,
    "steps_per_epoch": 3,
    "augmentation_strength": 0,
    "patience": 0,
}
"""Trainings of seconds."""


def make_cohort(root: Path, labeled: int = 1, unlabeled: int = 3) -> Path:
    """Write phantoms in BIDS, the labeled ones first."""
    for number in range(labeled + unlabeled):
        write_subject(root, f"{number + 1:02d}", 20 * number, labeled=number < labeled)
    return root


class Server:
    """`medssl label serve` in a process of its own."""

    def __init__(self, studies: Path, model: Path, cache: Path) -> None:
        self.studies, self.model, self.cache = studies, model, cache
        self.labels = studies.with_name(studies.name + "-labels")
        self.log = studies.with_name("server.log")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.seconds = 0.0

    def start(self) -> Server:
        """Start it and wait until it answers."""
        settings = [
            word for name, value in STEPS.items() for word in ("--set", f"{name}={json.dumps(value)}")
        ]
        command = [
            sys.executable,
            "-m",
            "medssl",
            "label",
            "serve",
            str(self.studies),
            "--model",
            str(self.model),
        ]
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--python", sys.executable, *settings],
                stdout=log,
                stderr=log,
                env={**os.environ, "MEDSSL_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"},
            )
        while self.get("/info/", patient=True) is None:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - began < PATIENCE_S, self.log.read_text()[-3000:]
            time.sleep(0.2)
        self.seconds = time.monotonic() - began
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def get(self, path: str, *, patient: bool = False, **options: Any) -> Any:
        """Return the answer to GET; None where nobody answers yet."""
        import requests

        try:
            return requests.get(self.url + path, timeout=PATIENCE_S, **options)
        except requests.ConnectionError:
            if not patient:
                raise
            return None

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer to any request."""
        import requests

        return requests.request(method, self.url + path, timeout=PATIENCE_S, **options)

    def trained(self, method: str, **params: Any) -> dict[str, Any]:
        """Train to the end; return the last status."""
        begun = self.call("POST", f"/train/{method}", json=params)
        assert begun.status_code == 200, begun.text
        while (told := self.get("/train/").json())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.3)
        return told
