"""A tiny model for the tests of the label app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_app_server import Server, make_cohort
from phantoms import TINY


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a network that learned a little."""
    from medssl.workflows.train import TrainOptions, train

    folder = tmp_path_factory.mktemp("tiny")
    settings = {**TINY, "epochs": 4, "augmentation_strength": 0}
    train(make_cohort(folder / "cohort", 2, 0), folder / "run", TrainOptions(settings=settings))
    return folder / "run"


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Any:
    """Return MONAI Label's own client of the module's server."""
    from monailabel.client.client import MONAILabelClient

    return MONAILabelClient(server.url, tmpdir=str(tmp_path))
