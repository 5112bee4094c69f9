"""The measure of a training is that of its report."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from medssl.engines import MacroF1, scores_and_labels
from medssl.evaluation.classification import scores


def _measured(batches, classes):
    engine = Engine(lambda _, batch: batch)
    MacroF1(num_classes=classes, output_transform=scores_and_labels).attach(engine, "f1")
    return engine.run(batches).metrics["f1"]


@pytest.mark.parametrize("there", [[0, 1, 2], [0, 2]])
def test_it_is_that_of_the_scores(there):
    generator = np.random.default_rng(3)
    labels = generator.choice(there, 40)
    pred = torch.from_numpy(generator.normal(size=(40, 3)) + 1.5 * np.eye(3)[labels])
    batches = [
        {"pred": pred[some], "label": torch.from_numpy(labels)[some, None]}
        for some in torch.arange(40).split(16)
    ]
    expected = scores(labels, pred.softmax(1).numpy(), ("a", "b", "c"), draws=0).measures["macro_f1"]
    assert 0.3 < expected < 1
    assert _measured(batches, 3) == pytest.approx(expected)


def test_perfect_answers_get_1_though_a_class_has_no_images():
    labels = torch.tensor([0, 2, 2, 0])
    batch = {"pred": torch.eye(3)[labels], "label": labels[:, None]}
    assert _measured([batch], 3) == 1
