"""What a training tells those who watch it: a command line, a report, a viewer."""

from __future__ import annotations


class Watcher:
    """Told about the progress of a training; every method may be left as it is."""

    def registered(self, done: int, pairs: int) -> None:
        """A labeled scan was laid over an unlabeled one, or that had been done before."""

    def warped(self, done: int, scans: int) -> None:
        """The labeled scans were warped onto an unlabeled one."""

    def started(self, step: int, steps: int) -> None:
        """Training begins or goes on after ``step`` of ``steps``."""

    def step(self, step: int, loss: float) -> None:
        """A step was taken."""

    def validated(self, step: int, score: float) -> None:
        """The held-out labeled data were scored."""
