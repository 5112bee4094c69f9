"""Which scan to label next: ranked in the background while people draw, and said why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from monailabel.interfaces.tasks.strategy import Strategy

from medssl.errors import MedsslError
from medssl.label_app.datastore import CohortDatastore
from medssl.label_app.models import ModelStore

logger = logging.getLogger(__name__)

NAME = "label_next"
BEING_MADE = "The ranking is being made; this is the first scan."


class Ranked(Protocol):
    """A scan in the order of `medssl rank`."""

    subject: str
    score: float
    reason: str


Rank = Callable[..., Sequence[Ranked]]
"""``rank(data, model, folder)``: the unlabeled scans of a datalist, the best to label first."""


class LabelNext(Strategy):
    """Offer the unlabeled scan whose label is expected to help most.

    A thin caller of `medssl rank`, which keeps what it found of each scan in a folder: after a restart it goes on
    where it was. Until a ranking is ready, and where there can be none, scans come in their own order.

    Args:
        models: The newest model ranks.
        folder: A subfolder for each model.
        rank: Replaces `medssl.workflows.ranking.rank`.
    """

    def __init__(self, models: ModelStore, folder: Path, rank: Rank | None = None) -> None:
        super().__init__("The unlabeled scan whose label is expected to help most")
        self.models, self.folder, self._rank = models, folder, rank
        self._lock = threading.Lock()
        self._ranking: list[dict[str, Any]] = []
        self._done: tuple[object, ...] | None = None
        self._thread: threading.Thread | None = None
        self._problem = ""

    def __call__(self, request: dict[str, Any], datastore: CohortDatastore) -> dict[str, Any] | None:
        """Return the id of the next scan with ``reason`` and ``weight``, or None where all are labeled."""
        waiting = datastore.get_unlabeled_images()
        if not waiting:
            return None
        self.refresh(datastore)
        with self._lock:
            best = next((one for one in self._ranking if one["id"] in waiting), None)
            under_way = self._thread is not None and self._thread.is_alive()
            problem = self._problem
        if best is not None:
            return dict(best)
        return {
            "id": waiting[0],
            "weight": 0.0,
            "reason": problem or (BEING_MADE if under_way else "This scan could not be ranked."),
        }

    def refresh(self, datastore: CohortDatastore) -> None:
        """Rank in the background, unless that is done or under way for this model, these scans and labels."""
        model = self.models.names()[0]
        scans = (datastore.get_labeled_images(), datastore.get_unlabeled_images())
        state = (model, *(tuple(sorted(some)) for some in scans))
        with self._lock:
            if state == self._done or (self._thread is not None and self._thread.is_alive()):
                return
            arguments = (state, datastore, model)
            self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="ranking")
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for the ranking that is under way."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _work(self, state: tuple[object, ...], datastore: CohortDatastore, model: str) -> None:
        problem, found = "", []
        try:
            datastore.scans.write_lists()
            rank = self._rank or _own_rank()
            place = self.models.place(model) or self.models.bundle()
            ranked = rank(datastore.scans.workspace.training_list, place, self.folder / model)
            found = [{"id": one.subject, "weight": float(one.score), "reason": one.reason} for one in ranked]
        except MedsslError as error:
            problem = f"No ranking: {error}"
        except Exception as error:  # a ranking that fails must not stop the labeling
            logger.exception("The ranking failed")
            problem = f"No ranking: {type(error).__name__}: {error}"
        with self._lock:
            self._done, self._problem = state, problem
            self._ranking = found


def _own_rank() -> Rank:
    """Return the package's own ranking."""
    from medssl.workflows.ranking import rank  # noqa: PLC0415 - only the background needs it

    return rank
