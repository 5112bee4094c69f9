from itertools import combinations

import pytest
import torch

from medssl.errors import ConfigError
from medssl.transforms import DATA_DISTILLATION, VIEW_PRESETS, VIEWS, image_views
from medssl.transforms.image_augmentation import PRESETS

SMALL = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def _textured(channels, size=28, batch=3):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(batch, channels, 7, 7, generator=generator)
    fine = torch.rand(batch, channels, size, size, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return 0.1 + 0.5 * smooth + 0.2 * fine


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
        ("hflip", [[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]]),
        ("vflip", [[0.4, 0.5, 0.6], [0.1, 0.2, 0.3]]),
        ("hvflip", [[0.6, 0.5, 0.4], [0.3, 0.2, 0.1]]),
        ("rot180", [[0.6, 0.5, 0.4], [0.3, 0.2, 0.1]]),
    ],
)
def test_flips_go_along_the_named_axis_only(name, expected):
    """D2: hflip swaps left and right, vflip top and bottom, on an asymmetric 2 x 3 image."""
    assert torch.equal(VIEWS[name](SMALL[None, None])[0, 0], torch.tensor(expected))


def test_quarter_turns_are_counterclockwise():
    square = torch.tensor([[0.1, 0.2], [0.3, 0.4]])[None, None]
    assert VIEWS["rot90"](square)[0, 0].tolist() == torch.tensor([[0.2, 0.4], [0.1, 0.3]]).tolist()
    assert VIEWS["rot270"](square)[0, 0].tolist() == torch.tensor([[0.3, 0.1], [0.4, 0.2]]).tolist()


@pytest.mark.parametrize("name", ["rot90", "rot270"])
def test_a_quarter_turn_of_an_oblong_image_is_oblong_the_other_way(name):
    assert VIEWS[name](SMALL[None, None]).shape == (1, 1, 3, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name in VIEWS if name != "identity"])
def test_every_view_changes_every_textured_image(name, channels):
    """D3: no view is the identity in disguise."""
    images = _textured(channels)
    changed = VIEWS[name](images)
    assert ((changed - images).abs().amax((1, 2, 3)) > 0.02).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_pairwise_distinct(channels):
    """D4: no two views are the same, but for hvflip and rot180, which are one object."""
    images = _textured(channels)
    seen = {name: view(images) for name, view in VIEWS.items()}
    same = [
        {one, other}
        for one, other in combinations(VIEWS, 2)
        if (seen[one] - seen[other]).abs().amax((1, 2, 3)).min() < 0.01
    ]
    assert same == [{"hvflip", "rot180"}]
    assert VIEWS["hvflip"] is VIEWS["rot180"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_keeps_shape_type_and_range(name, channels, dtype):
    """D5, D18: gray and color, one image or several, any size."""
    for images in (_textured(channels), _textured(channels, 33, 1), _textured(channels, 9, 2)):
        before = images.to(dtype)
        changed = VIEWS[name](before)
        assert changed.shape == images.shape
        assert changed.dtype == dtype
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert torch.equal(before, images.to(dtype))


@pytest.mark.parametrize("name", VIEWS)
def test_a_batch_is_its_images_one_by_one(name):
    """D17: views of a batch are the views of its images."""
    images = _textured(3)
    alone = torch.cat([VIEWS[name](images[i : i + 1]) for i in range(3)])
    assert torch.allclose(VIEWS[name](images), alone, atol=1e-6)


@pytest.mark.parametrize(("name", "exponent"), [("gamma_0.8", 0.8), ("gamma_1.25", 1.25)])
def test_gamma_is_the_number_in_the_name(name, exponent):
    """D3: an exponent of 1 would be the identity."""
    assert torch.allclose(VIEWS[name](SMALL[None, None])[0, 0], SMALL**exponent)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("crop_top_left", slice(0, 14), slice(0, 14)),
        ("crop_top_right", slice(0, 14), slice(2, 16)),
        ("crop_bottom_left", slice(2, 16), slice(0, 14)),
        ("crop_bottom_right", slice(2, 16), slice(2, 16)),
        ("crop_0.875", slice(1, 15), slice(1, 15)),
        ("crop_0.75", slice(2, 14), slice(2, 14)),
    ],
)
def test_crops_show_the_part_that_they_name(name, rows, columns):
    images = _textured(1, 16)
    part = torch.nn.functional.interpolate(
        images[:, :, rows, columns], size=(16, 16), mode="bilinear", align_corners=False
    )
    assert torch.equal(VIEWS[name](images), part)


def test_data_distillation_uses_the_published_views():
    assert DATA_DISTILLATION == ("hflip", "vflip", "hvflip", "mean_blur", "gamma_1.25")
    assert len(image_views(DATA_DISTILLATION)) == 5


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["hflip", "h-flip"], "no view 'h-flip'"),
        (["hflip", "vflip", "hflip"], "hflip, hflip are the same"),
        (["hvflip", "rot180"], "hvflip, rot180 are the same"),
    ],
)
def test_unknown_and_doubled_views_are_refused(names, text):
    with pytest.raises(ConfigError, match=text):
        image_views(names)


def test_every_kind_of_image_has_views_that_suit_it():
    assert set(VIEW_PRESETS) == set(PRESETS)
    for names in VIEW_PRESETS.values():
        image_views(("identity", *names))
    assert not {"vflip", "hvflip", "rot90", "rot180", "rot270"} & set(VIEW_PRESETS["chest-xray"])
    assert not any("flip" in name or "rot" in name for name in VIEW_PRESETS["digits"])
