import pytest
from pictures import options, write_pictures

from medssl.workflows.classification.baseline import train_with_baseline


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Read only."""
    return write_pictures(tmp_path_factory.mktemp("pictures") / "images")


@pytest.fixture(scope="session")
def compared(pictures):
    """A finished SSLDEC run with its baseline: read only."""
    said = []
    chosen = options(method="ssldec", settings={"unlabeled_start": 0.0})
    return train_with_baseline(pictures, pictures.parent / "compared", chosen, say=said.append), said
