"""Where the network has to look: the box of the brain, and the fewest, largest tiles that fit in memory."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor

from medssl.errors import ConfigError

Triple = tuple[int, int, int]

FLOAT_BYTES = 4
OVERHEAD = 1.2
"""Forecast over the bytes of the maps: copies inside the convolutions. DenseFCN, float32, two CPU threads: the
forecast was 2 to 16 % above the measured peak for regions of 112 x 160 x 128 to 144 x 192 x 256 and for tiles."""


class TooLittleMemory(ConfigError):
    """A memory limit is too small.

    Args:
        message: As in `MedsslError`.
        cure: As there.
        enough: Bytes that would do.
    """

    def __init__(self, message: str, cure: str = "", *, enough: float) -> None:
        super().__init__(message, cure)
        self.enough = enough


@dataclass(frozen=True)
class Box:
    """Voxels from `start` up to, not including, `stop`; may reach beyond a volume's far ends."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Voxels along each axis."""
        return _triple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array `(I, J, K)`."""
        i, j, k = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return i, j, k

    def clipped(self, shape: Triple) -> "Box":
        """Return the part that lies inside a volume."""
        return Box(self.start, _triple(min(stop, side) for stop, side in zip(self.stop, shape, strict=True)))

    def relative_to(self, other: "Box") -> "Box":
        """Return the same voxels counted from the start of another box."""
        start = _triple(a - b for a, b in zip(self.start, other.start, strict=True))
        stop = _triple(a - b for a, b in zip(self.stop, other.start, strict=True))
        return Box(start, stop)


@dataclass(frozen=True)
class Tile:
    """One pass: what the network reads, and the voxels it answers for."""

    read: Box
    core: Box


def box_of(mask: Tensor) -> Box | None:
    """Return the smallest box around the true voxels of a mask, None if there are none.

    Shapes:
        `(I, J, K)` bool.
    """
    ranges = []
    for axis in range(3):
        hits = torch.nonzero(mask.amax(dim=[other for other in range(3) if other != axis]))
        if not len(hits):
            return None
        ranges.append((int(hits[0]), int(hits[-1]) + 1))
    return Box(_triple(low for low, _ in ranges), _triple(high for _, high in ranges))


def region_around(box: Box, shape: Triple, *, margin: int, multiple: int) -> Box:
    """Widen a box by a margin to the network's grid, within the volume.

    Offsets and sides are multiples, so that the deepest maps are those of the whole volume. The far ends may
    reach beyond the volume by less than one multiple, more only where a side would be a single multiple.

    Args:
        box: What must be covered.
        shape: Shape of the volume.
        margin: Voxels added at each end, where the volume has them.
        multiple: The network's multiple.
    """
    start = _triple(max(0, low - margin) // multiple * multiple for low in box.start)
    ends = (min(side, high + margin) for side, high in zip(shape, box.stop, strict=True))
    stop = _triple(
        low + max(2, ceil((end - low) / multiple)) * multiple for low, end in zip(start, ends, strict=True)
    )
    return Box(start, stop)


def bytes_per_voxel(peak_maps: int) -> float:
    """Forecast the memory that a pass takes for each voxel it reads, beyond weights and process.

    Args:
        peak_maps: Float32 maps that the network keeps at its peak (`network.peak_maps`).
    """
    return OVERHEAD * FLOAT_BYTES * peak_maps


def plan_tiles(
    region: Box,
    shape: Triple,
    *,
    halo: int,
    multiple: int,
    window: Triple | None = None,
    memory_limit: float,
    voxel_bytes: float,
) -> list[Tile]:
    """Cut a region into the fewest tiles that fit in memory.

    One pass when it fits. Of equally many tiles the cut with the least reading wins, then the one whose largest
    tile is smallest. The cores cover each voxel of the region that lies in the volume exactly once; a tile reads
    its core and the halo, as far as the region goes.

    Args:
        region: Box with offsets and sides that are multiples.
        shape: Shape of the volume; cores end where it ends.
        halo: Voxels read beyond a core, rounded up to a multiple.
        multiple: The network's multiple.
        window: Sides of the network's own windows, multiples. Tiles are read so that the windows that answer for their
            cores are those of the region: reading begins where one begins and ends no earlier than one ends. None where
            it has none.
        memory_limit: Bytes that one pass may take.
        voxel_bytes: Bytes that a pass takes for each voxel it reads.

    Raises:
        TooLittleMemory: If the limit is too small for any tile.
    """
    cube_bytes = voxel_bytes * multiple**3
    units = _triple(side // multiple for side in region.shape)
    border = ceil(halo / multiple)
    sides = (1, 1, 1) if window is None else _triple(side // multiple for side in window)
    splits = [_splits(count, border, side) for count, side in zip(units, sides, strict=True)]
    fitting = [cut for cut in itertools.product(*splits) if _widest(cut) * cube_bytes <= memory_limit]
    if not fitting:
        least = min(map(_widest, itertools.product(*splits))) * cube_bytes
        msg = (
            f"The memory limit is too small for one tile: found {memory_limit / 2**20:.0f} MiB, expected at "
            f"least {ceil(least / 2**20)} MiB; raise the memory limit."
        )
        raise TooLittleMemory(msg, enough=least)
    best = min(fitting, key=lambda cut: (prod(map(len, cut)), _reading(cut), _widest(cut)))
    tiles = (_tile(pieces, region, multiple, shape) for pieces in itertools.product(*best))
    return [tile for tile in tiles if min(tile.core.shape) > 0]


Span = tuple[int, int]
Piece = tuple[Span, Span]


def _splits(count: int, border: int, window: int) -> list[list[Piece]]:
    """Return cuts of one axis, in multiples: per piece what is read and what is answered for.

    The pieces of a cut read equally much, as far as there is something to read: those at the ends, with one border
    less, answer for more. Cores begin a border behind the start of a window.
    """
    cuts = []
    for length in reversed(range(window, count + window, window)):
        ends = [*range(length + border, count - border, length), count]
        starts = [0, *ends[:-1]]
        cuts.append([(_read(core, count, border, window), core) for core in zip(starts, ends, strict=True)])
    return cuts


def _read(core: Span, count: int, border: int, window: int) -> Span:
    """Widen a core by the border, and to whole windows. The last window of an axis ends where the axis ends."""
    low, high = core
    start = min(low - border, count - window) // window * window
    stop = max(high + border, ceil(high / window) * window)
    return max(0, start), min(count, stop)


def _reading(cut: tuple[list[Piece], ...]) -> int:
    """Return what all tiles of a cut read together, in cubes of the multiple."""
    return prod(sum(stop - start for (start, stop), _ in pieces) for pieces in cut)


def _widest(cut: tuple[list[Piece], ...]) -> int:
    """Return the size of the largest tile of a cut, in cubes of the multiple."""
    return prod(max(stop - start for (start, stop), _ in pieces) for pieces in cut)


def _tile(pieces: tuple[Piece, ...], region: Box, multiple: int, shape: Triple) -> Tile:
    def box(spans: list[Span]) -> Box:
        corners = zip(region.start, spans, strict=True)
        (i, j, k) = [(low + start * multiple, low + stop * multiple) for low, (start, stop) in corners]
        return Box((i[0], j[0], k[0]), (i[1], j[1], k[1]))

    core = box([core for _, core in pieces]).clipped(shape)
    return Tile(read=box([read for read, _ in pieces]), core=core)


def _triple(values: Iterable[int]) -> Triple:
    i, j, k = values
    return i, j, k
