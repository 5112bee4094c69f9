"""Cells are a pure function of seed and number, and no statistic of a whole image gives their kind away."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label

from medssl.errors import ConfigError
from medssl.simulation.images import CELLS, _cell, simulate_images


def _linear_accuracy(training: int, test: int, size: int = 16) -> float:
    """Fit a ridge regression on the kinds to the pixels; return its share of right answers on other images."""
    images, labels = simulate_images(training, size=size)
    others, truth = simulate_images(test, size=size, first=training)
    pixels, unseen = (part.reshape(len(part), -1) / 255 - 0.5 for part in (images, others))
    kernel = pixels @ pixels.T + 30 * np.eye(training)
    scores = unseen @ pixels.T @ np.linalg.solve(kernel, np.eye(4)[labels] - 0.25)
    return float((scores.argmax(1) == truth).mean())


def test_images_are_what_they_say() -> None:
    images, labels = simulate_images(6, size=24)
    assert (images.shape, images.dtype) == ((6, 24, 24, 3), np.uint8)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 2, 3, 0, 1], np.int64)
    assert images.std(axis=(1, 2, 3)).min() > 5


def test_an_image_is_a_function_of_seed_and_number() -> None:
    images, labels = simulate_images(6, size=16, seed=5)
    later, later_labels = simulate_images(3, size=16, seed=5, first=3)
    np.testing.assert_array_equal(images[3:], later)
    np.testing.assert_array_equal(labels[3:], later_labels)
    assert not np.array_equal(images, simulate_images(6, size=16, seed=6)[0])


def test_no_two_images_are_equal() -> None:
    images, _ = simulate_images(40, size=16)
    assert len({image.tobytes() for image in images}) == 40


def test_fewer_kinds_are_the_first_ones() -> None:
    images, labels = simulate_images(4, classes=2, size=16)
    assert labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(images[:2], simulate_images(2, size=16)[0])


def test_the_task_is_neither_trivial_nor_hopeless_for_a_linear_classifier() -> None:
    assert _linear_accuracy(4 * 20, 400) < 0.6
    assert 0.3 < _linear_accuracy(4 * 100, 400) < 0.8


@pytest.mark.parametrize("kind", CELLS)
def test_kinds_differ_in_grains_lobes_and_length(kind: str) -> None:
    axis = np.linspace(-2, 2, 200)
    u, v = np.meshgrid(axis, axis)
    areas = []
    for seed in range(8):
        cell, nucleus, grains = (part > 0.5 for part in _cell(np.random.default_rng(seed), kind, u, v))
        assert grains.any() == (kind == "granular")
        assert (_elongation(cell) > 2) == (kind == "spindle")
        assert (label(binary_erosion(nucleus, iterations=8))[1] > 1) == (kind == "lobed")
        areas.append((nucleus | grains).sum() / cell.sum())
    assert 0.18 < np.mean(areas) < 0.34


def _elongation(mask: np.ndarray) -> float:
    """Return the ratio of the axes of a mask's moments."""
    axes = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
    return float(np.sqrt(axes[1] / axes[0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 0}, "count is 0; expected 1 to"),
        ({"classes": 5}, "classes is 5; expected 2 to 4"),
        ({"size": 8}, "size is 8; expected 16 to 512"),
        ({"seed": -1}, "seed is -1"),
        ({"first": -1}, "first is -1"),
    ],
)
def test_bad_arguments_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        simulate_images(**({"count": 1} | change))
