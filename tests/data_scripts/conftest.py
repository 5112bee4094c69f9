"""The scripts as a shell runs them, but in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "data_scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``python data_scripts/NAME.py ARGUMENTS``; an error leaves by SystemExit."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.syspath_prepend(SCRIPTS)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.delitem(sys.modules, "common", raising=False)
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")

    return run
