import pytest
from phantoms import TINY

from medssl.workflows.train import TrainOptions


@pytest.fixture
def tiny_options():
    def make(**changes):
        settings = {**TINY, **changes.pop("settings", {})}
        return TrainOptions(**{"budget": "quick", "device": "cpu", "settings": settings, **changes})

    return make
