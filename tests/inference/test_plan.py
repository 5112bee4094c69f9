import pytest
import torch

from medssl.errors import ConfigError
from medssl.inference.plan import Box, box_of, forecast_bytes, plan_tiles, region_around, voxels_that_fit

SHAPE = (70, 61, 90)


def test_box_of_a_mask_is_tight():
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[3, 7, 80] = mask[12, 5, 20] = mask[60, 60, 33] = True
    assert box_of(mask) == Box((3, 5, 20), (61, 61, 81))


def test_empty_mask_has_no_box():
    assert box_of(torch.zeros(SHAPE, dtype=torch.bool)) is None


def test_box_counts_voxels_and_clips():
    box = Box((16, 0, 32), (80, 64, 96))
    assert box.shape == (64, 64, 64)
    assert box.voxels == 64**3
    assert box.clipped(SHAPE) == Box((16, 0, 32), (70, 61, 90))
    assert box.relative_to(Box((0, 0, 16), SHAPE)) == Box((16, 0, 16), (80, 64, 80))


@pytest.mark.parametrize("multiple", [2, 8, 16])
@pytest.mark.parametrize("margin", [0, 5, 16, 200])
def test_region_is_aligned_covers_box_and_margin_and_barely_leaves_the_volume(margin, multiple):
    box = Box((20, 0, 41), (50, 61, 77))
    region = region_around(box, SHAPE, margin=margin, multiple=multiple)
    for axis in range(3):
        start, stop, side = region.start[axis], region.stop[axis], SHAPE[axis]
        assert start % multiple == 0
        assert stop % multiple == 0
        assert 0 <= start <= max(0, box.start[axis] - margin)
        assert min(side, box.stop[axis] + margin) <= stop < side + multiple


def test_region_without_margin_by_hand():
    region = region_around(Box((20, 0, 41), (50, 61, 77)), SHAPE, margin=0, multiple=16)
    assert region == Box((16, 0, 32), (64, 64, 80))


def test_region_of_one_voxel_has_two_multiples_a_side():
    region = region_around(Box((69, 0, 5), (70, 1, 6)), SHAPE, margin=0, multiple=16)
    assert region == Box((64, 0, 0), (96, 32, 32))


REGION = Box((16, 0, 16), (80, 64, 96))


@pytest.mark.parametrize(
    "max_voxels", [64 * 64 * 80, 64 * 64 * 64, 48**3, 48 * 32 * 48, 48 * 48 * 16 + 1, 32**3]
)
@pytest.mark.parametrize("halo", [0, 7, 16])
def test_cores_cover_each_voxel_of_the_region_once_within_the_limit(halo, max_voxels):
    if halo and max_voxels < 48**3:
        pytest.skip("a halo of one multiple on both sides needs 48^3")
    tiles = plan_tiles(REGION, SHAPE, halo=halo, multiple=16, max_voxels=max_voxels)
    written = torch.zeros(SHAPE, dtype=torch.int)
    for tile in tiles:
        written[tile.core.slices] += 1
        assert tile.read.voxels <= max_voxels
        assert all(side % 16 == 0 for side in (*tile.read.start, *tile.read.stop))
    expected = torch.zeros(SHAPE, dtype=torch.int)
    expected[REGION.slices] = 1
    assert torch.equal(written, expected)


def test_each_tile_reads_its_core_and_the_halo_as_far_as_the_region_goes():
    for tile in plan_tiles(REGION, SHAPE, halo=16, multiple=16, max_voxels=48**3):
        for axis in range(3):
            assert tile.read.start[axis] == max(REGION.start[axis], tile.core.start[axis] - 16)
            end = -(-tile.core.stop[axis] // 16) * 16
            assert tile.read.stop[axis] == min(REGION.stop[axis], end + 16)


def test_one_pass_when_it_fits():
    tiles = plan_tiles(REGION, SHAPE, halo=32, multiple=16, max_voxels=REGION.voxels)
    assert [tile.read for tile in tiles] == [REGION]


def test_one_voxel_too_few_cuts_the_longest_axis_once():
    tiles = plan_tiles(REGION, SHAPE, halo=0, multiple=16, max_voxels=REGION.voxels - 1)
    assert [tile.core.shape for tile in tiles] == [(54, 61, 48), (54, 61, 26)]


def test_fewest_tiles_are_found_as_by_trying_every_cut():
    for max_voxels in (48**3, 64 * 64 * 48, 64 * 48 * 48):
        tiles = plan_tiles(REGION, SHAPE, halo=16, multiple=16, max_voxels=max_voxels)
        assert len(tiles) == _reference_fewest((4, 4, 5), 1, max_voxels // 16**3)


def _reference_fewest(units, border, room):
    """Try every core size; count tiles whose widest reading fits."""
    best = 10**9
    for i in range(1, units[0] + 1):
        for j in range(1, units[1] + 1):
            for k in range(1, units[2] + 1):
                count, widest = 1, 1
                for length, core in zip(units, (i, j, k), strict=True):
                    starts = range(0, length, core)
                    count *= len(starts)
                    widest *= max(min(length, s + core + border) - max(0, s - border) for s in starts)
                if widest <= room:
                    best = min(best, count)
    return best


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(
        ConfigError, match=r"found room for 1000 voxels.*at least 36864.*raise the memory limit"
    ):
        plan_tiles(Box((0, 0, 0), (64, 64, 16)), (64, 64, 16), halo=16, multiple=16, max_voxels=1000)
    assert plan_tiles(Box((0, 0, 0), (64, 64, 16)), (64, 64, 16), halo=16, multiple=16, max_voxels=36864)


def test_forecast_is_linear_and_inverts():
    assert forecast_bytes(2 * 96**3, 148) == pytest.approx(2 * forecast_bytes(96**3, 148), rel=1e-6)
    voxels = voxels_that_fit(forecast_bytes(96**3, 148), 148)
    assert voxels == pytest.approx(96**3, abs=1)
