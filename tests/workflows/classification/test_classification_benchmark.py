"""What the benchmark of the methods asks for can be had: options, network and labels of each task."""

import importlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from medssl.errors import ConfigError
from medssl.io.files import read_json
from medssl.io.image_cohort import read_image_cohort
from medssl.networks.compact import build_classifier, network_facts
from medssl.workflows.classification.train import prepare_classifier, usable_cohort

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("classification")
    for name in ("classification", "studies", "set_aside"):
        sys.modules.pop(name, None)


def facts(benchmark, task, labels=2, **changes):
    network = benchmark.TASKS[task]["network"]
    asked = {"task": task, "method": "ssldec", "labels_per_class": labels, "seed": 0, "steps": 50, "set": {}}
    return {**asked, "network": network, **changes}


@pytest.mark.parametrize(
    ("task", "size", "channels"), [("mnist", 28, 1), ("svhn", 32, 3), ("mednist", 64, 1)]
)
def test_the_network_of_a_task_takes_its_images(benchmark, task, size, channels):
    options = benchmark._options(facts(benchmark, task))
    assert (options.size or network_facts(options.network).input_size, options.channels) == (size, channels)
    network = build_classifier(options.network, 10, channels, size=options.size)
    network(torch.rand(2, channels, size, size)).sum().backward()
    assert all(value.grad is not None for value in network.parameters())


def test_a_run_on_svhn_is_prepared_as_it_is_asked_for(benchmark, tmp_path):
    """The data themselves could not be had: color of 32 pixels in ten classes stands for them."""
    rng = np.random.default_rng(0)
    for section, count in (("train", 3), ("test", 1)):
        for digit in range(10):
            folder = tmp_path / "svhn" / section / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    options = benchmark._options(facts(benchmark, "svhn"))
    cohort = usable_cohort(tmp_path / "svhn", options)
    assert (len(cohort.training), len(cohort.unlabeled)) == (20, 10)
    prepare_classifier(tmp_path / "run", cohort, options, tmp_path / "svhn")
    record = read_json(tmp_path / "run" / "run.json")
    assert record["image"] == {"size": 32, "channels": 3}
    assert record["budget"] == {"steps": 50, "images": 256}


def test_training_images_take_the_place_of_test_images(benchmark, tmp_path):
    script = importlib.import_module("set_aside")
    for place in ("train", "test"):
        for number in range(6):
            path = tmp_path / "data" / place / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(path)
    cohort = read_image_cohort(tmp_path / "data")
    found = script.set_aside(cohort, 2, seed=100)
    order = list(cohort.training)
    random.Random(100).shuffle(order)
    assert found.test == tuple(order[:2])
    assert set(found.training) == set(order[2:])
    command = [str(tmp_path / "data"), "--out", str(tmp_path / "data" / "aside.csv"), "--images", "2"]
    assert CliRunner().invoke(script.main, command).exit_code == 0
    again = read_image_cohort(tmp_path / "data" / "aside.csv")
    assert [item.path for item in again.test] == [item.path for item in found.test]
    assert {item.path for item in again.training} == {item.path for item in found.training}
    with pytest.raises(ConfigError, match="6 training images"):
        script.set_aside(cohort, 6, seed=0)
