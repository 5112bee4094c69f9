import csv

import pytest
import torch
from ignite.engine import Engine, Events

from medssl.engines import MetricsTable
from medssl.engines.watching import PARTS


class _Run:
    """A training whose loss is the number of the step; unlabeled crops from step 3 on."""

    def __init__(self, path):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        self.table = MetricsTable(str(path), Engine(lambda *_: None), optimizer, ["GM"])
        self.engine = Engine(self.step)
        self.table.attach(self.engine)

    def step(self, engine, batch):
        number = float(engine.state.iteration)
        output = {"loss": torch.tensor(number, requires_grad=True), "loss_labeled": torch.tensor(number)}
        output["n_labeled"] = torch.tensor(1000 * number)
        if number >= 3:
            output |= {"loss_unlabeled": torch.tensor(10 * number), "unlabeled_weight": torch.tensor(0.5)}
        return output


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_parts_have_columns_of_means_over_the_steps_that_had_them(tmp_path):
    run = _Run(tmp_path / "metrics.tsv")
    run.engine.run([0, 0], max_epochs=3)
    rows = _rows(tmp_path / "metrics.tsv")
    assert [name for name in rows[0] if name in PARTS] == list(PARTS)
    assert [row["loss_labeled"] for row in rows] == ["1.50000", "3.50000", "5.50000"]
    assert [row["loss_unlabeled"] for row in rows] == ["", "35.00000", "55.00000"]
    assert [row["unlabeled_weight"] for row in rows] == ["", "0.50000", "0.50000"]
    assert {row["confidence"] for row in rows} == {""}
    assert [row["n_labeled"] for row in rows] == ["3000", "7000", "11000"]  # added up
    assert {row["n_unlabeled"] for row in rows} == {""}
    assert {row["skipped_steps"] for row in rows} == {"0"}


def test_an_epoch_with_few_unlabeled_steps_averages_over_those(tmp_path):
    run = _Run(tmp_path / "metrics.tsv")
    run.engine.run([0] * 4, max_epochs=1)
    assert [row["loss_unlabeled"] for row in _rows(tmp_path / "metrics.tsv")] == ["35.00000"]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_stopped_inside_an_epoch_goes_on_with_its_parts(tmp_path, stop):
    whole = _Run(tmp_path / "whole.tsv")
    whole.engine.run([0, 0, 0], max_epochs=2)
    begun = _Run(tmp_path / "parts.tsv")
    saved = {}

    def save(engine):
        if engine.state.iteration == stop:
            saved.update(table=begun.table.state_dict(), engine=engine.state_dict())
            saved["table"]["parts"] = {name: list(values) for name, values in saved["table"]["parts"].items()}

    begun.engine.add_event_handler(Events.ITERATION_COMPLETED, save)
    begun.engine.run([0, 0, 0], max_epochs=2)
    resumed = _Run(tmp_path / "parts.tsv")
    resumed.table.load_state_dict(saved["table"])
    resumed.engine.load_state_dict(saved["engine"])
    resumed.engine.run([0, 0, 0])
    without_time = [
        [{**row, "elapsed_s": ""} for row in _rows(tmp_path / f"{name}.tsv")] for name in ("whole", "parts")
    ]
    assert without_time[0] == without_time[1]
