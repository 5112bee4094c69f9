"""The weights a viewer can choose from: those the server began with, and one run folder a training."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medssl.inference.predictor import Predictor
from medssl.inference.trials import TrialStore
from medssl.io.files import read_json
from medssl.label_app.checks import NotThere
from medssl.workflows.devices import choose_device
from medssl.workflows.models import Model, find_weights, load_model

INITIAL = "initial"
"""Name of the weights that the server began with."""

_KEPT = 2
"""Networks kept in memory: the newest, and one to compare with."""


class ModelStore:
    """Find models by name and keep the last ones loaded.

    Args:
        initial: Run, bundle or file of weights; None for the packaged bundle.
        folder: Where trainings leave their run folders.
        cache: Remembers which backend is fastest; None compares anew in every process.
        device: Where networks run.
    """

    def __init__(self, initial: Path | None, folder: Path, cache: Path | None, device: str = "auto") -> None:
        self.initial, self.folder, self.cache = initial, folder, cache
        self.device = choose_device(device)
        self._loaded: OrderedDict[str, tuple[Model, Predictor]] = OrderedDict()
        self._lock = threading.Lock()

    def bundle(self) -> Path:
        """Return the folder with the configurations of the initial weights."""
        return find_weights(self.initial)[0]

    def names(self) -> list[str]:
        """Return the names of all models, the newest training first, the initial one last."""
        finished = [run for run in self.folder.glob("*-[0-9][0-9][0-9]*") if is_finished(run)]
        finished.sort(key=lambda run: (run / "run.json").stat().st_mtime, reverse=True)
        return [*(run.name for run in finished), INITIAL]

    def place(self, name: str | None) -> Path | None:
        """Return the run folder of a model; None means the packaged bundle.

        Raises:
            NotThere: There is no such model.
        """
        names = self.names()
        name = name or names[0]
        if name not in names:
            msg = f"There is no model '{name}'; there are {', '.join(names)}."
            raise NotThere(msg)
        return self.initial if name == INITIAL else self.folder / name

    @contextmanager
    def used(self, name: str | None = None) -> Iterator[tuple[str, Model, Predictor]]:
        """Yield a model that is ready; one caller at a time, since a network fills the memory.

        Raises:
            NotThere: There is no such model.
            CheckpointError: It cannot be loaded.
        """
        name = name or self.names()[0]
        place = self.place(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(place)
            self._loaded.move_to_end(name)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            yield (name, *self._loaded[name])

    def _load(self, place: Path | None) -> tuple[Model, Predictor]:
        model = load_model(place, self.device)
        store = None if self.cache is None else TrialStore(self.cache, model.weights_sha256)
        predictor = Predictor(
            network=model.network, device=model.device, backend="auto", precision="auto", store=store
        )
        return model, predictor


def is_finished(run: Path) -> bool:
    """Tell whether a training in a run folder came to its end."""
    record = run / "run.json"
    return (
        record.is_file()
        and bool(read_json(record).get("finished"))
        and (run / "models" / "model.pt").is_file()
    )


def next_name(names: Sequence[str], method: str) -> str:
    """Return the name of a method's next run folder, such as "ssldec-003"."""
    numbers = [
        int(name.removeprefix(f"{method}-")) for name in names if name.removeprefix(f"{method}-").isdigit()
    ]
    return f"{method}-{max(numbers, default=0) + 1:03d}"
