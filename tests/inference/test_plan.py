from itertools import combinations, pairwise, product
from math import prod

import pytest
import torch

from medssl.errors import ConfigError
from medssl.inference.plan import Box, box_of, bytes_per_voxel, plan_tiles, region_around

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


WIDE = [(halo, room) for halo in (0, 7, 16) for room in (64 * 64 * 80, 64**3, 48**3)]
NARROW = [(0, 48 * 32 * 48), (0, 48 * 48 * 16 + 1), (0, 32**3), (0, 16**3)]


@pytest.mark.parametrize(("halo", "max_voxels"), WIDE + NARROW)
def test_cores_cover_each_voxel_of_the_region_once_within_the_limit(halo, max_voxels):
    tiles = plan_tiles(REGION, SHAPE, halo=halo, multiple=16, memory_limit=max_voxels, voxel_bytes=1)
    written = torch.zeros(SHAPE, dtype=torch.int)
    for tile in tiles:
        written[tile.core.slices] += 1
        assert tile.read.voxels <= max_voxels
        assert all(side % 16 == 0 for side in (*tile.read.start, *tile.read.stop))
    expected = torch.zeros(SHAPE, dtype=torch.int)
    expected[REGION.slices] = 1
    assert torch.equal(written, expected)


def test_each_tile_reads_its_core_and_the_halo_as_far_as_the_region_goes():
    for tile in plan_tiles(REGION, SHAPE, halo=16, multiple=16, memory_limit=48**3, voxel_bytes=1):
        for axis in range(3):
            assert tile.read.start[axis] == max(REGION.start[axis], tile.core.start[axis] - 16)
            end = -(-tile.core.stop[axis] // 16) * 16
            assert tile.read.stop[axis] == min(REGION.stop[axis], end + 16)


def test_one_pass_when_it_fits():
    tiles = plan_tiles(REGION, SHAPE, halo=32, multiple=16, memory_limit=REGION.voxels, voxel_bytes=1)
    assert [tile.read for tile in tiles] == [REGION]


def test_one_voxel_too_few_cuts_one_axis_into_halves():
    tiles = plan_tiles(REGION, SHAPE, halo=0, multiple=16, memory_limit=REGION.voxels - 1, voxel_bytes=1)
    assert [tile.core.shape for tile in tiles] == [(54, 32, 74), (54, 29, 74)]


def test_tiles_beyond_a_small_volume_are_left_out():
    region = region_around(Box((0, 0, 0), (10, 10, 40)), (10, 10, 40), margin=0, multiple=16)
    tiles = plan_tiles(region, (10, 10, 40), halo=0, multiple=16, memory_limit=16**3, voxel_bytes=1)
    assert [tile.core for tile in tiles] == [
        Box((0, 0, 0), (10, 10, 16)),
        Box((0, 0, 16), (10, 10, 32)),
        Box((0, 0, 32), (10, 10, 40)),
    ]


def test_fewest_tiles_are_found_as_by_trying_every_cut():
    for max_voxels in (48**3, 64 * 64 * 48, 64 * 48 * 48):
        tiles = plan_tiles(REGION, SHAPE, halo=16, multiple=16, memory_limit=max_voxels, voxel_bytes=1)
        assert len(tiles) == _reference_fewest((4, 4, 5), 1, max_voxels // 16**3)


def _reference_fewest(units, border, room):
    """Try all cuts at all places; count tiles whose widest reading fits."""
    axes = [list(_widest_of_every_cut(length, border)) for length in units]
    return min(
        prod(count for count, _ in cut) for cut in product(*axes) if prod(wide for _, wide in cut) <= room
    )


def _widest_of_every_cut(length, border):
    for count in range(length):
        for inner in combinations(range(1, length), count):
            ends = [0, *inner, length]
            yield (
                count + 1,
                max(min(length, high + border) - max(0, low - border) for low, high in pairwise(ends)),
            )


def test_too_little_memory_is_refused_with_the_smallest_that_works():
    flat = Box((0, 0, 0), (64, 64, 16))
    with pytest.raises(ConfigError, match=r"found 35 MiB, expected at least 36 MiB; raise the memory limit"):
        plan_tiles(flat, flat.stop, halo=16, multiple=16, memory_limit=35 * 2**20, voxel_bytes=1024)
    assert plan_tiles(flat, flat.stop, halo=16, multiple=16, memory_limit=36 * 2**20, voxel_bytes=1024)


def test_forecast_counts_every_map_and_some_overhead():
    assert bytes_per_voxel(148) == pytest.approx(1.2 * 4 * 148)


@pytest.mark.parametrize("halo", [0, 10, 32, 48])
@pytest.mark.parametrize("window", [(32, 32, 32), (48, 48, 48), (64, 32, 48)])
def test_windows_that_answer_for_a_core_are_those_of_the_region(halo, window):
    region = Box((16, 0, 16), (272, 96, 96))
    shape = (270, 90, 100)
    limit = 190 * 96 * 80
    tiles = plan_tiles(
        region, shape, halo=halo, multiple=16, window=window, memory_limit=limit, voxel_bytes=1
    )
    assert len(tiles) > 1
    assert max(tile.read.voxels for tile in tiles) <= limit
    covered = torch.zeros(shape, dtype=torch.int)
    for tile in tiles:
        covered[tile.core.slices] += 1
        core, read = tile.core.relative_to(region), tile.read.relative_to(region)
        for axis, (side, whole) in enumerate(zip(window, region.shape, strict=True)):
            low, high, first, last = core.start[axis], core.stop[axis], read.start[axis], read.stop[axis]
            assert low - first >= halo or first == 0
            assert last - high >= halo or last == whole
            for place in range(low, high, 16):
                assert first + begin(place - first, side, last - first) == begin(place, side, whole)
    assert covered[region.clipped(shape).slices].eq(1).all()
    assert covered.sum() == region.clipped(shape).voxels


def begin(place: int, window: int, size: int) -> int:
    """Return where the window begins that answers for a place, see `WindowedBlock`."""
    least = min(window, size)
    return min(place // least * least, size - least)
