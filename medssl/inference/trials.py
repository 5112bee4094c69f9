"""What was measured of each backend, remembered per machine and model in a folder of the user's."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from medssl.errors import MedsslError
from medssl.inference.gate import Agreement
from medssl.io.files import read_json, write_json

logger = logging.getLogger(__name__)

FORM = 4
"""Number of the file's form and of how the backends compute; another one is measured anew."""


@dataclass(frozen=True)
class Trial:
    """One backend on one tile.

    Attributes:
        backend: Its name.
        precision: Its precision.
        seconds: Least time of a tile; 0 where it cannot be run.
        agreement: What the accuracy gate saw; None where it cannot be run.
        failure: Why it cannot be run.
    """

    backend: str
    precision: str
    seconds: float = 0.0
    agreement: Agreement | None = None
    failure: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it may be used."""
        return self.agreement is not None and self.agreement.accepted

    @property
    def key(self) -> tuple[str, str]:
        """Backend and precision."""
        return self.backend, self.precision


Trials = dict[tuple[str, str], Trial]


@dataclass(frozen=True)
class TrialStore:
    """Remember trials between calls.

    Args:
        folder: The user's cache; made when it is needed.
        model: SHA-256 of the weights.
    """

    folder: Path
    model: str

    def path(self, circumstances: Mapping[str, object]) -> Path:
        """Return the file for a machine, its library versions and a size of tile."""
        what = json.dumps([FORM, self.model, dict(circumstances)], sort_keys=True)
        return self.folder / "backends" / f"{hashlib.sha256(what.encode()).hexdigest()[:20]}.json"

    def read(self, circumstances: Mapping[str, object]) -> Trials:
        """Return what is remembered; nothing where the file is missing, or damaged, which is said."""
        path = self.path(circumstances)
        if not path.exists():
            return {}
        try:
            trials = [_trial(row) for row in read_json(path)["trials"]]
        except (MedsslError, TypeError, KeyError, ValueError):
            logger.warning("%s in the cache of backends is damaged; measuring anew.", path.name)
            return {}
        return {trial.key: trial for trial in trials}

    def write(self, circumstances: Mapping[str, object], trials: Trials) -> None:
        """Remember trials, atomically; a folder that cannot be written to is said and does no harm."""
        rows = [asdict(trials[key]) for key in sorted(trials)]
        record = {"form": FORM, "model": self.model, **circumstances, "trials": rows}
        try:
            write_json(self.path(circumstances), record)
        except (MedsslError, OSError) as error:
            logger.warning("The choice of backend is not remembered: %s", error)


def _trial(row: Mapping[str, object]) -> Trial:
    """Read one row.

    Raises:
        TypeError, KeyError, ValueError: It is no trial.
    """
    found = row["agreement"]
    backend, precision, seconds = row["backend"], row["precision"], row["seconds"]
    if found is None and row["failure"]:
        return Trial(str(backend), str(precision), failure=str(row["failure"]))
    if not isinstance(found, dict) or not isinstance(seconds, (int, float)) or seconds <= 0:
        msg = f"no trial: {row}"
        raise TypeError(msg)
    agreement = Agreement(bool(found["finite"]), float(found["changed"]), float(found["dice_loss"]))
    return Trial(str(backend), str(precision), float(seconds), agreement)
