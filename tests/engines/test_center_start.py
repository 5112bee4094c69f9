import pytest
import torch
from ignite.engine import Engine
from torch import nn

from medssl.engines import CenterStart
from medssl.networks import ClusteringNetwork


class Crops:
    """Two classes that a 1^3 convolution with weight 1 keeps apart: intensity 1 and 3."""

    def __init__(self, labeled=True):
        self.labeled = labeled
        self.cache = [0]

    def __getitem__(self, number):
        label = torch.zeros(1, 4, 4, 4)
        label[:, :2] = 1
        image = 1.0 + 2 * label
        mask = torch.ones(1, 4, 4, 4)
        return (
            {"image": image, "label": label, "mask": mask} if self.labeled else {"image": image, "mask": mask}
        )


def network():
    backbone = nn.Conv3d(1, 1, 1, bias=False)
    nn.init.ones_(backbone.weight)
    return ClusteringNetwork(backbone, 1, 2, background=True)


def run(found, start, step=2, steps=4, restarts=()):
    seen = []
    engine = Engine(lambda engine, batch: seen.append(found.head.centers.detach().clone().flatten()))
    CenterStart(found, Crops(), Crops(labeled=False), step, start, restarts).attach(engine)
    engine.run([0] * steps, max_epochs=1)
    return seen


@pytest.mark.parametrize("start", ["class_means", "kmeans"])
def test_centers_move_to_the_classes_before_the_given_step_only(start):
    seen = run(network(), start)
    assert torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[2], torch.tensor([1.0, 3.0]))
    assert torch.equal(seen[2], seen[3])


def test_centers_move_again_after_training_began_from_new_weights():
    found = network()
    engine = Engine(lambda engine, batch: None)
    CenterStart(found, Crops(), Crops(labeled=False), 1, "class_means", [3]).attach(engine)
    moved = []

    def step(engine, batch):
        moved.append(float(found.head.centers.detach().sum()) == pytest.approx(4.0))
        with torch.no_grad():
            found.head.centers.zero_()

    engine._process_function = step
    engine.run([0] * 6, max_epochs=1)
    assert moved == [False, True, False, False, True, False]


def test_random_centers_stay_and_other_networks_are_left_alone():
    seen = run(network(), "random")
    assert all(torch.equal(seen[0], centers) for centers in seen)
    engine = Engine(lambda engine, batch: None)
    CenterStart(nn.Conv3d(1, 1, 1), Crops(), Crops(), 0, "class_means").attach(engine)
    engine.run([0], max_epochs=1)


def test_whole_images_give_as_many_samples_as_are_asked_for():
    """Intensities 0, 1, 2, ... in turn of class 0 and 1; the mean of the first four alone."""
    images = [
        {"image": torch.full((1, 2, 2), float(number)), "label": torch.tensor([number % 2])}
        for number in range(9)
    ]
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = ClusteringNetwork(backbone, 1, 2, background=True)
    engine = Engine(lambda engine, batch: None)
    CenterStart(found, images, Crops(), 0, "class_means", samples=4).attach(engine)
    engine.run([0], max_epochs=1)
    assert found.head.centers.flatten().tolist() == [1.0, 2.0]
