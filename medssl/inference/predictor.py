"""From an image to label probabilities: plan, run, stitch."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.inference.backends.protocol import Backend
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.choice import (
    REFERENCE,
    BackendFailure,
    Wish,
    candidates,
    checked,
    choose_backend,
    finite,
)
from medssl.inference.memory import available_memory
from medssl.inference.plan import (
    Box,
    Tile,
    TooLittleMemory,
    Triple,
    box_of,
    bytes_per_voxel,
    plan_tiles,
    region_around,
)
from medssl.inference.trials import TrialStore
from medssl.inference.windows import require_window, windowed

logger = logging.getLogger(__name__)

MARGIN = 0
"""Voxels around the brain's box. A network that was trained on crops knows the zeros that convolutions add at a crop's
ends; wide empty space around a brain it hardly knows. So a margin costs time and brings no Dice: packaged weights,
three simulated scans of 1 mm, mean Dice .783, .781, .782 and .781 with 0, 16, 48 voxels and on the whole volume
(`benchmarks/margin.py`, docs/performance.md)."""

HALO = 32
"""Voxels that a tile reads beyond what it answers for. Packaged weights, brain of 112 x 144 x 128: .025 % of the labels
differ from one pass (`benchmarks/inference.py`). Chosen before the network had windows of its own, on one trained for
110 steps on synthetic ellipsoids: .64, .032, .004, .001 % with two tiles and a halo of 0, 16, 32, 48."""

MEMORY_SHARE = 0.75
"""Share of the free memory that a pass may take where no limit is given."""

PROBE_SIDE = 80
"""Longest side of the tile on which backends are compared. Times grow in step with the voxels beyond."""

DEFAULT_MULTIPLE = 16
DEFAULT_PEAK_MAPS = 256
BACKGROUND_LOGIT = 15.0
"""Logit of the background outside the box, and its negative that of all other labels."""


@dataclass(frozen=True)
class Tiling:
    """What the tiles of a volume depend on besides the volume.

    Attributes:
        margin: Voxels around the brain's box that are run too.
        halo: Voxels that a tile reads beyond what it answers for.
        multiple: The network's multiple.
        window: Sides of the network's own windows; None where it has none.
        peak_maps: Float32 maps that the network keeps at its peak.
        memory_limit: Bytes that a pass may take.
        memory_factor: Memory that the backend takes, as a multiple of what `peak_maps` say.
    """

    margin: int
    halo: int
    multiple: int
    window: Triple | None
    peak_maps: int
    memory_limit: int
    memory_factor: float = 1.0


def tiling_for(
    network: Any,
    device: torch.device,
    *,
    margin: int,
    halo: int,
    memory_limit: int | None,
    memory_factor: float = 1.0,
) -> Tiling:
    """Fill in what a network says about itself and what the device has free.

    Args:
        network: Carries `multiple`, `peak_maps` and `deep_window`; one that does not is taken for 16, 256 and None.
        device: Where the network runs.
        margin: Voxels around the brain's box that are run too.
        halo: Voxels that a tile reads beyond what it answers for.
        memory_limit: Bytes that a pass may take; None takes three quarters of what is free.
        memory_factor: Memory that the backend takes, as a multiple of what `peak_maps` say.
    """
    inner = getattr(network, "module", network)
    limit = int(MEMORY_SHARE * _free_bytes(device)) if memory_limit is None else memory_limit
    multiple = getattr(inner, "multiple", DEFAULT_MULTIPLE)
    peak_maps = getattr(inner, "peak_maps", DEFAULT_PEAK_MAPS)
    window = getattr(inner, "deep_window", None)
    return Tiling(margin, halo, multiple, window, peak_maps, limit, memory_factor)


def tile_logits(
    forward: Callable[[Tensor], Tensor],
    image: Tensor,
    mask: Tensor | None,
    tiling: Tiling,
    *,
    exact: bool = False,
) -> Iterator[tuple[Box, Tensor]]:
    """Yield boxes that cover the brain, each voxel once, with their logits.

    Args:
        forward: Maps a tile `(1, C, I, J, K)` to logits `(1, L, I, J, K)`.
        image: Preprocessed contrasts.
        mask: The brain; None runs the whole volume, an empty one a corner.
        tiling: Margin, halo and memory.
        exact: Refuse tiles in which the network's own windows lie elsewhere than in one pass.

    Raises:
        TooLittleMemory: The memory limit is too small for any such tile.

    Shapes:
        image `(C, I, J, K)`, mask `(I, J, K)` bool; logits `(L, i, j, k)` for a box of that shape.
    """
    shape = (image.shape[1], image.shape[2], image.shape[3])
    region = _region(image, mask, tiling)
    cost = bytes_per_voxel(tiling.peak_maps) * tiling.memory_factor
    tiles = _tiles(region, shape, tiling, cost, exact)
    need = max(tile.read.voxels for tile in tiles) * cost
    logger.debug(
        "%s of %s voxels in %d pass(es) of about %.1f GiB", region.shape, shape, len(tiles), need / 2**30
    )
    for tile in tiles:
        logits = forward(_read(image, tile.read)[None])[0]
        yield tile.core, logits[(slice(None), *tile.core.relative_to(tile.read).slices)]


def probe_tile(image: Tensor, mask: Tensor | None, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Cut the middle of the brain out, to compare backends on.

    Args:
        image: Preprocessed contrasts.
        mask: The brain; None takes every voxel for it.
        tiling: Margin, multiple and memory.

    Shapes:
        image `(C, I, J, K)`, mask `(I, J, K)` bool; returns a tile `(1, C, i, j, k)` and its mask `(i, j, k)`,
        sides multiples and at most `PROBE_SIDE`, or one multiple if that is more.
    """
    region = _region(image, mask, tiling)
    room = (tiling.memory_limit / (bytes_per_voxel(tiling.peak_maps) * tiling.memory_factor)) ** (1 / 3)
    most = max(1, int(min(PROBE_SIDE, room)) // tiling.multiple) * tiling.multiple
    sides = [min(side, most) for side in region.shape]
    spans = [
        (low + (whole - side) // 2, side)
        for low, whole, side in zip(region.start, region.shape, sides, strict=True)
    ]
    (i, di), (j, dj), (k, dk) = spans
    box = Box((i, j, k), (i + di, j + dj, k + dk))
    brain = torch.ones_like(image[0], dtype=torch.bool) if mask is None else mask
    return _read(image, box)[None], _read(brain[None], box)[0]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Label probabilities where the network looked; everywhere else the answer is background.

    So nothing of the size of a volume has to exist for all labels at a time.

    Attributes:
        inside: `(L, i, j, k)`, float32.
        box: The voxels they are of.
        shape: Of the volume.
        ran: Backend and precision of what ran the network.
        enough_memory: Bytes with which the network's own windows would lie as in one pass; None where they do.
    """

    inside: Tensor
    box: Box
    shape: Triple
    ran: tuple[str, str] = REFERENCE
    enough_memory: float | None = None

    def channel(self, label: int) -> Tensor:
        """Return the probability of one label.

        Args:
            label: Its number in the table; the background is 0.

        Shapes:
            return: `(I, J, K)`
        """
        volume = self.inside.new_full(self.shape, float(label == 0))
        volume[self.box.slices] = self.inside[label]
        return volume

    def whole(self) -> Tensor:
        """Return the probabilities of all labels.

        Shapes:
            return: `(L, I, J, K)`
        """
        return _join([(self.box, self.inside)], Box((0, 0, 0), self.shape), background=1.0, others=0.0)

    def replaced(self, whole: Tensor) -> "Prediction":
        """Return the same place with other probabilities.

        Shapes:
            whole: `(L, I, J, K)`, background outside the box
        """
        return replace(self, inside=whole[(slice(None), *self.box.slices)].clone())


class Predictor:
    """Turn a preprocessed image into label probabilities.

    Crops to the brain, runs the network in one pass if memory allows, otherwise in the fewest and largest
    tiles, and joins them without blending; or in overlapping windows, where that is asked for.

    Args:
        network: Module with logits out, background first; it is copied.
        memory_limit: Bytes that a pass may take; None takes three quarters of what is free.
        margin: Voxels around the brain's box that are run too.
        halo: Voxels that a tile reads beyond what it answers for.
        device: Where to run.
        backend: `"torch"`, `"openvino"`, `"onnxruntime"`, or `"auto"` for the fastest.
        precision: `"float32"`, `"bfloat16"`, or `"auto"` for the faster.
        store: Where the comparison of backends is remembered; None compares in every `Predictor`.
        window: Side of overlapping windows with Gaussian weights, which then take the place of the tiles.

    Attributes:
        backend: What runs the network; None until the first scan has decided it. All but torch in float32
            have to agree with it on that scan, see `medssl.inference.gate`.

    Raises:
        ConfigError: There is no such backend or precision, it is not installed, or the network cannot run such
            windows.
    """

    def __init__(  # noqa: PLR0913 (each may be left out)
        self,
        *,
        network: nn.Module,
        memory_limit: int | None = None,
        margin: int = MARGIN,
        halo: int = HALO,
        device: str | torch.device = "cpu",
        backend: str = "torch",
        precision: str = "float32",
        store: TrialStore | None = None,
        window: int | None = None,
    ) -> None:
        wish = Wish(backend, precision)
        self.reference = TorchBackend(network, device=device)
        self.wanted = candidates(wish, self.reference.device)
        self.named = wish.backend != "auto"
        self.backend: Backend | None = self.reference if self.wanted == [REFERENCE] else None
        self.store = store
        self.margin = margin
        self.halo = halo
        self.memory_limit = memory_limit
        multiple = getattr(network, "multiple", DEFAULT_MULTIPLE)
        self.window = None if window is None else require_window(window, multiple)

    @torch.inference_mode()
    def predict(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the probability of each label in each voxel.

        Args:
            image: Preprocessed contrasts.
            mask: The brain: outside it the answer is background with probability 1; inside it the
                network's answer stands, background included. None runs the whole volume.

        Shapes:
            image `(C, I, J, K)`, mask `(I, J, K)` bool; returns float32 `(L, I, J, K)` on the image's device.
        """
        return self.predict_box(image, mask).whole()

    @torch.inference_mode()
    def predict_box(self, image: Tensor, mask: Tensor | None = None) -> Prediction:
        """Return the same as `predict` for the brain's box alone.

        Args:
            image: Preprocessed contrasts.
            mask: See `predict`.

        Raises:
            TooLittleMemory: The memory limit is too small for any tile.
            MedsslError: The network answers NaN or infinity.

        Shapes:
            image `(C, I, J, K)`, mask `(I, J, K)` bool.
        """
        if self.backend is None:
            tile, brain = probe_tile(image, mask, self._tiling(1.0))  # no backend takes more
            self.backend = choose_backend(
                self.reference, tile, brain, self.wanted, self.store, named=self.named
            )
        try:
            return self._within_memory(self.backend, image, mask)
        except BackendFailure as failure:
            logger.warning("Backend %s dropped, torch in float32 is used: %s.", self.backend.name, failure)
            self.backend = self.reference
        return self._within_memory(self.reference, image, mask)

    def _within_memory(self, chosen: Backend, image: Tensor, mask: Tensor | None) -> Prediction:
        """Run a backend; torch where its tiles alone are small enough, exact ones of either before others.

        Raises:
            TooLittleMemory: The memory limit is too small for any tile; it names the smallest that works.
            BackendFailure: The backend raised something or answered NaN or infinity.
            MedsslError: torch in float32 answered NaN or infinity.
        """
        refused: dict[tuple[bool, float], TooLittleMemory] = {}
        exacts = (True,) if self._tiling(1.0).window is None else (True, False)
        for exact, backend in product(exacts, dict.fromkeys((chosen, self.reference))):
            try:
                found = self._run(backend, image, mask, exact)
            except TooLittleMemory as error:
                refused[exact, backend.memory_factor] = error
                continue
            if backend is not chosen:
                logger.warning(
                    "The memory limit is too small for the tiles of %s; torch in float32 ran this scan.",
                    chosen.name,
                )
            if exact:
                return found
            return replace(
                found, enough_memory=min(error.enough for (kept, _), error in refused.items() if kept)
            )
        raise refused[min(refused)]

    def _run(self, backend: Backend, image: Tensor, mask: Tensor | None, exact: bool) -> Prediction:
        forward = finite(self.reference) if backend is self.reference else checked(backend)
        tiling = self._tiling(backend.memory_factor)
        if self.window is not None:
            cost = bytes_per_voxel(tiling.peak_maps) * tiling.memory_factor
            forward = windowed(forward, self.window, tiling.memory_limit, cost)
            tiling = replace(tiling, memory_limit=sys.maxsize)
        tiles = tile_logits(forward, image, mask, tiling, exact=exact)
        parts = ((box, logits.softmax(dim=0).to(image.device)) for box, logits in tiles)
        shape: Triple = (image.shape[1], image.shape[2], image.shape[3])
        region = _region(image, mask, tiling).clipped(shape)
        probabilities = _join(parts, region, background=1.0, others=0.0)
        if mask is not None:
            brain = mask[region.slices]
            probabilities *= brain
            probabilities[0].masked_fill_(~brain, 1.0)
        return Prediction(probabilities, region, shape, (backend.name, backend.precision))

    def memory_now(self) -> int:
        """Return the bytes that a pass may take now."""
        return self._tiling(1.0).memory_limit

    def _tiling(self, memory_factor: float) -> Tiling:
        return tiling_for(
            self.reference.source,
            self.reference.device,
            margin=self.margin,
            halo=self.halo,
            memory_limit=self.memory_limit,
            memory_factor=memory_factor,
        )


class BrainBoxInferer(Inferer):
    """Run a network on the box of the nonzero voxels; the inferer of the bundles' configs.

    Preprocessing zeroes what lies outside the mask, so the box is the brain's. Outside it the logits say
    background. Same plan as `Predictor`, with the network used as it is.

    Args:
        memory_limit: Bytes that a pass may take; None takes three quarters of what is free.
        margin: Voxels around the brain's box that are run too.
        halo: Voxels that a tile reads beyond what it answers for.
    """

    def __init__(self, *, memory_limit: int | None = None, margin: int = MARGIN, halo: int = HALO) -> None:
        self.memory_limit = memory_limit
        self.margin = margin
        self.halo = halo

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return float32 logits of every voxel.

        Args:
            inputs: Preprocessed contrasts, zero outside the mask.
            network: Maps tiles to logits.
            args: Handed to the network after the tile.
            kwargs: Handed to the network by name.

        Shapes:
            `(B, C, I, J, K)` to `(B, L, I, J, K)`.
        """
        tiling = tiling_for(
            network, inputs.device, margin=self.margin, halo=self.halo, memory_limit=self.memory_limit
        )

        def forward(tile: Tensor) -> Tensor:
            return network(tile.contiguous(memory_format=torch.channels_last_3d), *args, **kwargs).float()

        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        everywhere = Box((0, 0, 0), (inputs.shape[2], inputs.shape[3], inputs.shape[4]))
        volumes = [
            _join(
                tile_logits(forward, image, image.ne(0).any(dim=0), tiling),
                everywhere,
                background=BACKGROUND_LOGIT,
                others=-BACKGROUND_LOGIT,
            )
            for image in images
        ]
        return convert_to_dst_type(torch.stack(volumes), inputs, dtype=torch.float32)[0]


def _join(parts: Iterable[tuple[Box, Tensor]], whole: Box, *, background: float, others: float) -> Tensor:
    """Write the parts into one volume `(L, i, j, k)` whose other voxels hold the two constants."""
    volume: Tensor | None = None
    for box, part in parts:
        if volume is None:
            volume = part.new_full((len(part), *whole.shape), others)
            volume[0] = background
        volume[(slice(None), *box.relative_to(whole).slices)] = part
    if volume is None:
        msg = "There is nothing to join: found no tiles, expected at least one."
        raise ValueError(msg)
    return volume


def _region(image: Tensor, mask: Tensor | None, tiling: Tiling) -> Box:
    """Return what has to be run: the brain's box and its margin; a corner where the mask is empty."""
    shape: Triple = (image.shape[1], image.shape[2], image.shape[3])
    box = Box((0, 0, 0), shape) if mask is None else box_of(mask) or Box((0, 0, 0), (1, 1, 1))
    return region_around(box, shape, margin=tiling.margin, multiple=tiling.multiple)


def _tiles(region: Box, shape: Triple, tiling: Tiling, cost: float, exact: bool) -> list[Tile]:
    """Cut a region into tiles, so that the network's own windows are those of the region: if possible, or exactly.

    Raises:
        TooLittleMemory: The memory limit is too small for any tile.
    """

    def plan(window: Triple | None) -> list[Tile]:
        return plan_tiles(
            region,
            shape,
            halo=tiling.halo,
            multiple=tiling.multiple,
            window=window,
            memory_limit=tiling.memory_limit,
            voxel_bytes=cost,
        )

    try:
        return plan(tiling.window)
    except TooLittleMemory:
        if exact or tiling.window is None:
            raise
        tiles = plan(None)
        logger.warning("The memory limit is small: the network's own windows lie elsewhere than in one pass.")
        return tiles


def _read(image: Tensor, box: Box) -> Tensor:
    """Cut a box out of `(C, I, J, K)`, with zeros where it reaches beyond the far ends."""
    shape: Triple = (image.shape[1], image.shape[2], image.shape[3])
    pads: list[int] = []
    for side, stop in zip(reversed(shape), reversed(box.stop), strict=True):
        pads += [0, max(0, stop - side)]
    return F.pad(image[(slice(None), *box.clipped(shape).slices)], pads)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()
