import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("monailabel")

from medssl.errors import InputError
from medssl.label_app.next_scan import LabelNext


class Store:
    """A datastore with five scans, some of them labeled."""

    def __init__(self, tmp_path):
        self.labeled = ["sub-1"]
        workspace = SimpleNamespace(training_list=tmp_path / "datalist.json")
        self.scans = SimpleNamespace(write_lists=lambda: None, workspace=workspace)

    def get_unlabeled_images(self):
        return [f"sub-{number}" for number in range(1, 6) if f"sub-{number}" not in self.labeled]

    def get_labeled_images(self):
        return self.labeled


def models(tmp_path):
    return SimpleNamespace(
        names=lambda: ["initial"], place=lambda name: tmp_path / "run", bundle=lambda: tmp_path
    )


def ranked(*names):
    return [
        SimpleNamespace(subject=name, score=1.0 / rank, reason=f"rank {rank}")
        for rank, name in enumerate(names, 1)
    ]


def test_the_best_unlabeled_scan_comes_with_its_reason(tmp_path):
    calls = []

    def rank(data, model, folder):
        calls.append((data, model, folder))
        return ranked("sub-4", "sub-2", "sub-3", "sub-5")

    store = Store(tmp_path)
    strategy = LabelNext(models(tmp_path), tmp_path / "ranking", rank)
    strategy.refresh(store)
    strategy.wait(10)
    assert strategy({}, store) == {"id": "sub-4", "weight": 1.0, "reason": "rank 1"}
    assert calls == [(tmp_path / "datalist.json", tmp_path / "run", tmp_path / "ranking" / "initial")]
    store.labeled = ["sub-1", "sub-4"]
    assert strategy({}, store)["id"] == "sub-2"  # at once, by what is known, while it is ranked again
    strategy.wait(10)
    assert len(calls) == 2
    store.labeled = [f"sub-{number}" for number in range(1, 6)]
    assert strategy({}, store) is None


def test_nobody_waits_for_the_ranking(tmp_path):
    go_on = threading.Event()

    def rank(data, model, folder):
        go_on.wait(10)
        return ranked("sub-5")

    store = Store(tmp_path)
    strategy = LabelNext(models(tmp_path), tmp_path, rank)
    told = strategy({}, store)
    assert told["id"] == "sub-2"
    assert "being made" in told["reason"]
    go_on.set()
    strategy.wait(10)
    assert strategy({}, store)["id"] == "sub-5"


@pytest.mark.parametrize("error", [InputError("no scan fits."), RuntimeError("broken")])
def test_a_ranking_that_fails_says_so_and_stops_nobody(tmp_path, error):
    def rank(data, model, folder):
        raise error

    store = Store(tmp_path)
    strategy = LabelNext(models(tmp_path), tmp_path, rank)
    strategy.refresh(store)
    strategy.wait(10)
    told = strategy({}, store)
    assert told["id"] == "sub-2"
    assert str(error) in told["reason"]


def test_a_scan_that_came_later_is_ranked_and_one_that_cannot_be_is_said(tmp_path):
    found = [ranked("sub-2", "sub-3", "sub-4", "sub-5"), []]
    store = Store(tmp_path)
    strategy = LabelNext(models(tmp_path), tmp_path / "ranking", lambda *_: found.pop(0))
    strategy.refresh(store)
    strategy.wait(10)
    store.get_unlabeled_images = lambda: ["sub-6"]
    strategy.refresh(store)
    strategy.wait(10)
    assert not found
    assert strategy({}, store) == {"id": "sub-6", "weight": 0.0, "reason": "This scan could not be ranked."}
