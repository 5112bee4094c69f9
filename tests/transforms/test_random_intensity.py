"""Each change is held against MONAI's transform of the same kind."""

import numpy as np
import pytest
import torch
from monai import transforms as monai

from medssl.transforms import random_intensity
from medssl.transforms.random_intensity import (
    CHANGES,
    RandomIntensityd,
    bias_field,
    blur,
    gain,
    gamma,
    noise,
    offset,
)

SAME_DRAWS = {
    bias_field: lambda s: monai.RandBiasField(2, (0.0, 0.15 * s), prob=1),
    gain: lambda s: monai.RandScaleIntensity(0.2 * s, prob=1, channel_wise=True),
    offset: lambda s: monai.RandShiftIntensity(0.2 * s, prob=1, channel_wise=True),
    gamma: lambda s: monai.RandAdjustContrast(1.0, (1 - 0.25 * s, 1 + 0.35 * s)),
    blur: lambda s: monai.RandGaussianSmooth((0.3, 0.8), (0.3, 0.8), (0.3, 0.8), prob=1),
}


@pytest.fixture
def image():
    return torch.randn(2, 7, 9, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("change", SAME_DRAWS, ids=lambda change: change.__name__)
def test_a_change_is_that_of_monai(image, change, strength):
    """Where both draw the same numbers in the same order, both give the same image."""
    reference = SAME_DRAWS[change](strength)
    reference.set_random_state(seed=5)
    random = np.random.RandomState(5)
    random.random_sample()  # MONAI draws whether it happens at all
    before = image.clone()
    expected = torch.as_tensor(reference(image))
    assert torch.allclose(change(image, random, strength), expected, atol=1e-5)
    assert torch.equal(image, before)
    assert not torch.allclose(expected, image, atol=1e-3)


def test_noise_has_the_deviation_that_is_drawn():
    image = torch.zeros(1, 24, 24, 24)
    random = np.random.RandomState(0)
    deviations = [float(noise(image, random, 1.0).std()) for _ in range(200)]
    assert max(deviations) < 0.155
    assert min(deviations) < 0.01
    assert 0.06 < np.mean(deviations) < 0.09


def test_changes_happen_as_often_as_they_say(image, monkeypatch):
    happened = dict.fromkeys(range(len(CHANGES)), 0)

    def counted(number):
        def change(image, random, strength):
            happened[number] += 1
            return image

        return change

    listed = tuple((counted(number), share) for number, (_, share) in enumerate(CHANGES))
    monkeypatch.setattr(random_intensity, "CHANGES", listed)
    transform = RandomIntensityd("image")
    for seed in range(500):
        transform.set_random_state(seed=seed)
        transform({"image": image})
    assert [round(count / 500, 1) for count in happened.values()] == pytest.approx(
        [share for _, share in CHANGES], abs=0.11
    )


def test_without_strength_nothing_changes_and_what_comes_in_is_never_written_to(image):
    before = image.clone()
    assert RandomIntensityd("image", strength=0)({"image": image})["image"] is image
    transform = RandomIntensityd("image")
    outs = []
    for seed in range(30):
        transform.set_random_state(seed=seed)
        outs.append(transform({"image": image})["image"])
    assert torch.equal(image, before)
    assert sum(not torch.equal(out, before) for out in outs) > 20
    transform.set_random_state(seed=7)
    assert torch.equal(transform({"image": image})["image"], outs[7])
