import pytest
import torch

from medssl.errors import ConfigError
from medssl.transforms import strong_augmentation, weak_augmentation
from medssl.transforms.image_augmentation import (
    GEOMETRY,
    INTENSITY,
    PRESETS,
    Preset,
    _changed_intensity,
    _draw,
    _drawn_matrices,
    _pose,
    cut_out,
)
from medssl.transforms.image_geometry import warp

AUGMENTATIONS = {
    f"{strength.__name__} {preset}": strength(preset)
    for preset in PRESETS
    for strength in (weak_augmentation, strong_augmentation)
}


def _random(seed=0):
    return torch.Generator().manual_seed(seed)


def _images(batch=6, channels=3, height=16, width=16, seed=1):
    images = torch.rand(batch, channels, height, width, generator=_random(seed))
    images[:, :, : height // 2] *= 0.3  # dark above, bright below
    images[:, :, :, : width // 2] *= 0.6  # dark on the left, bright on the right
    return images


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(
    "shape", [(5, 1, 16, 16), (1, 3, 15, 15), (4, 3, 12, 20), (3, 5, 9, 9), (2, 3, 2, 2)]
)
def test_every_preset_keeps_shape_type_and_range(name, shape):
    """D18: batches of one and of odd size, gray, color and other channels, any size."""
    for dtype in (torch.float32, torch.float64):
        images = torch.rand(shape, generator=_random(4)).to(dtype)
        before = images.clone()
        changed = AUGMENTATIONS[name](images, _random())
        assert changed.shape == shape
        assert changed.dtype == dtype
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if "none" not in name])
def test_the_generator_alone_decides(name):
    images, change = _images(), AUGMENTATIONS[name]
    state = torch.get_rng_state()
    once, again, other = (change(images, _random(seed)) for seed in (7, 7, 8))
    assert torch.equal(once, again)
    assert (once != other).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if "none" not in name])
def test_each_image_has_its_own_random_numbers(name):
    images = _images(1).expand(12, -1, -1, -1)
    changed = AUGMENTATIONS[name](images, _random(3))
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 12


@pytest.mark.parametrize("strength", [weak_augmentation, strong_augmentation])
def test_none_changes_nothing(strength):
    images = _images()
    assert torch.equal(strength("none")(images, _random()), images)


def _share_kept(changed, axis):
    """Return in how many images the bright side is still where it was."""
    near, far = changed.chunk(2, axis)
    return ((far - near).mean((1, 2, 3)) > 0).float().mean().item()


@pytest.mark.parametrize(
    ("preset", "top_stays", "left_stays"),
    [
        ("natural", True, False),
        ("chest-xray", True, False),
        ("grey", True, False),
        ("digits", True, True),
        ("microscopy", False, False),
    ],
)
def test_images_are_flipped_only_where_the_preset_allows_it(preset, top_stays, left_stays):
    """D2 and the presets: left-right is axis 3; no chest X-ray is upside down, no digit mirrored."""
    images = _images(1).expand(200, -1, -1, -1)
    changed = weak_augmentation(preset)(images, _random(5))
    for axis, stays in ((2, top_stays), (3, left_stays)):
        share = _share_kept(changed, axis)
        assert share == 1 if stays else 0.35 < share < 0.65


def test_microscopy_shows_all_eight_symmetries_of_the_square():
    symmetries = Preset(horizontal_flip=True, vertical_flip=True, quarter_turns=True)
    image = torch.rand(1, 1, 3, 3, generator=_random(2))
    changed = weak_augmentation(symmetries)(image.expand(200, -1, -1, -1), _random())
    expected = [one.rot90(turns, (2, 3)) for one in (image, image.flip(3)) for turns in range(4)]
    found = [(changed - one).abs().amax((1, 2, 3)) < 1e-5 for one in expected]
    assert torch.stack(found).sum(0).tolist() == [1] * 200
    assert all(5 < int(one.sum()) < 50 for one in found)


@pytest.mark.parametrize("preset", ["chest-xray", "grey"])
@pytest.mark.parametrize("strength", [weak_augmentation, strong_augmentation])
def test_gray_presets_do_not_color_gray_images(preset, strength):
    images = _images(40, 1).expand(-1, 3, -1, -1)
    changed = strength(preset)(images, _random())
    assert (changed - changed[:, :1]).abs().max() < 1e-6
    assert not {"hue", "color", "solarize"} & set(PRESETS[preset].operations)


def test_pose_stays_within_its_bounds_and_changes_three_images_in_four():
    matrices = _pose(Preset(rotation=10, zoom=(1.0, 1.25)), 2000, _random())
    angle = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    zoom = 1 / matrices[:, :2, :2].det().sqrt()
    assert 9.8 < angle.abs().max() < 10.001
    assert abs(angle.mean()) < 0.5
    assert zoom.min() > 0.999
    assert 1.24 < zoom.max() < 1.2501
    assert 0.71 < (angle != 0).float().mean() < 0.79


def test_lighting_multiplies_brightness_and_contrast():
    images = torch.full((800, 1, 2, 2), 0.5)
    changed = weak_augmentation(Preset(lighting=0.2))(images, _random())[:, 0, 0, 0]
    assert 0.399 < changed.min() < 0.41
    assert 0.59 < changed.max() < 0.601
    assert 0.2 < (changed == 0.5).float().mean() < 0.3


@pytest.mark.parametrize("name", [*GEOMETRY, *(name for name in INTENSITY if name != "identity")])
def test_every_operation_changes_an_image(name):
    images = 0.2 + 0.5 * _images(40)
    only = strong_augmentation(Preset(operations=(name,)), n=1, cutout=0)
    changed = (only(images, _random()) - images).abs().amax((1, 2, 3)) > 0.004
    assert changed.float().mean() > 0.6  # an amount near 0, or 8 bits, is hardly a change


def test_identity_alone_changes_nothing():
    images = _images()
    only = strong_augmentation(Preset(operations=("identity",)), n=3, cutout=0)
    assert torch.equal(only(images, _random()), images)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.05, 0.95),
        ("color", 0.05, 0.95),
        ("contrast", 0.05, 0.95),
        ("sharpness", 0.05, 0.95),
        ("rotate", -30, 30),
        ("shear_x", -0.3, 0.3),
        ("shear_y", -0.3, 0.3),
        ("translate_x", -0.3, 0.3),
        ("translate_y", -0.3, 0.3),
        ("solarize", 0, 256),
    ],
)
def test_amounts_are_spread_over_the_published_bounds(name, low, high):
    choice, amounts = _draw((name,), 5000, _random())
    assert choice.tolist() == [0] * 5000
    found = [amounts.min().item(), amounts.mean().item(), amounts.max().item()]
    assert found == pytest.approx([low, (low + high) / 2, high], abs=0.02 * (high - low))
    assert low <= found[0] <= found[2] <= high


def test_each_image_gets_an_amount_of_its_own_operation():
    choice, amounts = _draw(("rotate", "brightness"), 300, _random())
    assert (amounts[choice == 0].abs() > 1).any()
    assert ((amounts[choice == 1] >= 0.05) & (amounts[choice == 1] <= 0.95)).all()
    assert len(set(amounts.tolist())) > 290


def test_posterize_keeps_four_to_eight_bits():
    _, amounts = _draw(("posterize",), 500, _random())
    assert set(amounts.floor().int().tolist()) == {4, 5, 6, 7, 8}


@pytest.mark.parametrize("preset", ["natural", "microscopy", "digits"])
def test_grouped_operations_equal_one_image_after_the_other(preset):
    names, images = PRESETS[preset].operations, _images(60)
    drawn = [_draw(names, 60, _random(n)) for n in range(2)]
    matrices = torch.eye(3)
    for changes in _drawn_matrices(names, drawn):
        matrices = matrices @ changes
    found = _changed_intensity(warp(images, matrices), names, drawn)
    for number in range(60):
        own = [(names[int(choice[number])], amount[number : number + 1]) for choice, amount in drawn]
        matrix, expected = torch.eye(3), images[number : number + 1]
        for name, amount in own:
            if name in GEOMETRY:
                matrix = matrix @ GEOMETRY[name].change(amount)[0]
        expected = warp(expected, matrix[None])
        for name, amount in own:
            if name in INTENSITY:
                expected = INTENSITY[name].change(expected, amount)
        off = (found[number] - expected[0]).abs() > 1e-4
        assert off.float().mean() < 0.01, own  # a gray level on a step of posterize may fall to either side


def test_operations_are_drawn_with_replacement_and_follow_each_other():
    """Twice half the brightness is a quarter: n counts."""
    images = torch.full((400, 1, 2, 2), 1.0)
    means = [
        strong_augmentation(Preset(operations=("brightness",)), n=n, cutout=0)(images, _random())
        .mean()
        .item()
        for n in range(4)
    ]
    assert means == pytest.approx([1, 0.5, 0.25, 0.125], abs=0.03)


def test_cut_out_fills_one_square_with_the_mean():
    images = _images(50, 2, 24, 24)
    changed = cut_out(images, 0.5, _random())
    cut = (changed != images).any(1)
    for image, one, inside in zip(images, changed, cut, strict=True):
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        assert inside.sum() == len(rows) * len(columns)
        assert max(len(rows), len(columns), 0) <= 12
        assert torch.allclose(one[:, inside], image.mean((1, 2))[:, None].expand(-1, int(inside.sum())))
    assert 0.01 < cut.float().mean() < 0.08
    assert torch.equal(cut_out(images, 0.0, _random()), images)


def test_cut_out_is_part_of_strong_augmentation():
    images = torch.ones(200, 1, 20, 20)
    images[..., ::2] = 0
    only = Preset(operations=("identity",))
    gray = [
        (strong_augmentation(only, cutout=share)(images, _random()) == 0.5).float().mean().item()
        for share in (0.0, 0.2, 0.5)
    ]
    assert gray[0] == 0 < gray[1] < gray[2] < 0.25


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: weak_augmentation("x-ray"), "no augmentation preset 'x-ray'"),
        (lambda: strong_augmentation("photo"), "Choose one of: natural"),
        (lambda: Preset(operations=("rotate", "invert")), "no operation 'invert'"),
        (lambda: strong_augmentation("natural", n=-1), "n -1"),
        (lambda: strong_augmentation("natural", cutout=2), "cutout 2"),
    ],
)
def test_unknown_names_and_numbers_are_refused_at_once(call, text):
    with pytest.raises(ConfigError, match=text):
        call()
