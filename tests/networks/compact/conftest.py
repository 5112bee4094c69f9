from importlib.util import find_spec

import pytest


@pytest.fixture(autouse=True)
def _needs_the_extra() -> None:
    """Skip where the extra is absent; `importorskip` would import timm before torchvision is made to fit."""
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm or torchvision is not installed")
