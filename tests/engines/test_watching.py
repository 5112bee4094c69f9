import logging

import pytest
import torch
from ignite.engine import Engine

from medssl.engines import PartsToTensorBoard, VanishingClasses
from medssl.engines.watching import scalars, warn_of_dead_clusters

NAMES = ["background", "gray matter", "white matter", "fluid"]
SHARES = torch.tensor([0.0, 500.0, 300.0, 200.0])


def _run(watcher, epochs):
    """Run an engine whose outputs hold these masses, one list an epoch; None: no unlabeled crops."""
    outputs = iter([mass for epoch in epochs for mass in epoch])

    def step(*_):
        mass = next(outputs)
        return {} if mass is None else {"mass": torch.tensor(mass, dtype=torch.float64)}

    engine = Engine(step)
    watcher.attach(engine)
    engine.run([0] * len(epochs[0]), max_epochs=len(epochs))


def test_a_vanishing_class_is_told_once_until_it_is_back(caplog):
    watcher = VanishingClasses(SHARES, NAMES)
    gone, there = [60.0, 39.0, 1.0], [50.0, 30.0, 20.0]
    with caplog.at_level(logging.WARNING):
        _run(watcher, [[there, there], [gone, gone], [gone, gone], [there, there]])
        assert len(caplog.records) == 1
        assert not watcher.vanished
        _run(watcher, [[gone, gone], [gone, gone]])
    assert len(caplog.records) == 2
    assert all(message.startswith("fluid is vanishing") for message in caplog.messages)
    assert "1.00 %" in caplog.text
    assert "at step 4" in caplog.text
    assert "20.00 %" in caplog.text
    assert watcher.vanished == ["fluid"]


def test_a_dead_cluster_is_told(caplog):
    watcher = VanishingClasses(SHARES, NAMES)
    _run(watcher, [[[70.0, 0.0, 0.0]]])
    assert watcher.vanished == ["white matter", "fluid"]
    assert len(caplog.records) == 2


def test_masses_are_summed_over_an_epoch(caplog):
    """Single crops may lack a class; crops without unlabeled ones do not count."""
    watcher = VanishingClasses(SHARES, NAMES)
    _run(watcher, [[[100.0, 0.0, 0.0], None, [0.0, 60.0, 40.0]], [None, None, None], [[0.0, 0.0, 0.0]] * 3])
    assert not caplog.records


def test_the_limit_is_a_part_of_the_labeled_share():
    for share, told in ((2.01, []), (1.99, ["fluid"])):
        watcher = VanishingClasses(SHARES, NAMES, least=0.1)
        _run(watcher, [[[50.0, 50.0 - share, share]]])
        assert watcher.vanished == told


def test_background_counts_only_where_it_has_a_cluster():
    shares = torch.tensor([9000.0, 500.0, 300.0, 200.0])
    without, beside = VanishingClasses(shares, NAMES), VanishingClasses(shares, NAMES)
    _run(without, [[[5.0, 3.0, 2.0]]])
    assert without.vanished == []
    _run(without, [[[50.0, 48.5, 1.5]]])
    assert without.vanished == ["fluid"]
    _run(beside, [[[10.0, 500.0, 300.0, 200.0]]])
    assert beside.vanished == ["background"]


def test_a_class_that_no_labeled_scan_has_is_told_at_the_start(caplog):
    watcher = VanishingClasses(torch.tensor([0, 5, 0, 7]), NAMES)
    assert len(caplog.records) == 1
    assert "No labeled example of white matter" in caplog.text
    _run(watcher, [[[5.0, 0.0, 7.0]]])
    assert watcher.vanished == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("first", "background", "told"), [(1, 6, True), (1, 4, False), (0, 600, False)])
def test_background_that_is_labeled_inside_the_mask_and_has_no_cluster_is_told(
    caplog, first, background, told
):
    VanishingClasses(torch.tensor([background, 500.0, 300.0, 200.0]), NAMES, first=first)
    assert len(caplog.records) == told
    assert ("0.6 % of the labeled voxels" in caplog.text) is told
    assert ("--background_cluster true" in caplog.text) is told


def test_one_process_speaks_for_all(caplog, monkeypatch):
    monkeypatch.setattr("medssl.engines.watching.torch_rank", lambda: 1)
    watcher = VanishingClasses(torch.tensor([0, 5, 0, 7]), NAMES)
    _run(watcher, [[[5.0, 0.0, 0.0]]])
    assert watcher.vanished == ["fluid"]
    assert not caplog.records


def test_scalars_are_those_that_are_there():
    output = {"loss": torch.tensor(1.0), "loss_labeled": torch.tensor(0.5), "mass": torch.ones(3)}
    assert scalars(output) == {"loss_labeled": 0.5}
    assert scalars([output]) == {"loss_labeled": 0.5}
    assert scalars({"loss": torch.tensor(1.0)}) == {}


def test_parts_become_curves(tmp_path, monkeypatch):
    written = []
    watcher = PartsToTensorBoard(log_dir=str(tmp_path))
    monkeypatch.setattr(watcher._writer, "add_scalar", lambda *point: written.append(point))
    outputs = iter([{"loss_labeled": torch.tensor(2.0)}, {"loss_unlabeled": torch.tensor(3.0)}])
    engine = Engine(lambda *_: next(outputs))
    watcher.attach(engine)
    engine.run([0, 0], max_epochs=1)
    watcher.close()
    assert written == [("train_loss_labeled", 2.0, 1), ("train_loss_unlabeled", 3.0, 2)]


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_bounds_of_the_limit(least):
    watcher = VanishingClasses(SHARES, NAMES, least=least)
    _run(watcher, [[[50.0, 31.0, 19.0]]])
    assert watcher.vanished == (["fluid"] if least else [])


def test_the_network_is_watched_rather_than_its_targets():
    """Registered labels or an earlier round hold the targets up while the network loses a class."""
    targets, own = torch.tensor([50.0, 30.0, 20.0]), torch.tensor([60.0, 40.0, 0.0])
    watcher = VanishingClasses(SHARES, NAMES)
    engine = Engine(lambda *_: {"mass": targets, "predicted_mass": own})
    watcher.attach(engine)
    engine.run([0], max_epochs=1)
    assert watcher.vanished == ["fluid"]


def test_class_shares_become_curves(tmp_path, monkeypatch):
    written = {}
    watcher = PartsToTensorBoard(log_dir=str(tmp_path), names=NAMES)
    monkeypatch.setattr(
        watcher._writer, "add_scalar", lambda name, value, step: written.update({name: value})
    )
    engine = Engine(lambda *_: {"predicted_mass": torch.tensor([6.0, 3.0, 1.0])})
    watcher.attach(engine)
    engine.run([0], max_epochs=1)
    watcher.close()
    shares = {"gray matter": 0.6, "white matter": 0.3, "fluid": 0.1}
    assert written == {f"train_share_{name}": pytest.approx(share) for name, share in shares.items()}


def test_clusters_that_targets_have_lost_are_named_once_their_frequency_is_at_its_floor(caplog):
    warn_of_dead_clusters(2, torch.tensor([1e6, 1.1, 5.0]), ["a", "b", "c"], "unlabeled image")
    assert not caplog.records
    warn_of_dead_clusters(2, torch.tensor([1e6, 0.9, 0.0]), ["a", "b", "c"], "unlabeled image")
    (told,) = caplog.messages
    assert told.startswith("Round 2: no unlabeled image goes to b, c; ")
