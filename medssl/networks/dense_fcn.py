"""DenseFCN: dense blocks on four scales, each brought straight to full resolution."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.networks.blocks import dense_block, initialize_convolutions, norm_relu, pad_to_multiple
from medssl.networks.windowed import WindowedBlock

UP_CHANNELS = 4
"""Maps that each scale hands to the classifier; also the groups of the transposed convolutions."""

AXES = 3


class DenseFCN(nn.Module):
    """Label every voxel from four scales of densely connected maps.

    The default has 1,552,060 + 49 * `out_channels` parameters (864 fewer with one input channel).
    Every scale is upsampled in one step by a grouped transposed convolution and joined with the maps of
    the stem; a 1^3 convolution makes the logits. `out_channels` is the number of labels, or the number
    of features when a clustering head follows.

    Args:
        in_channels: Contrasts.
        out_channels: Labels, background first.
        growth_rate: Maps added by a dense layer.
        dropout_prob: Dropout after each dense layer.
        norm: `"batch"`, or `"instance"` for batches of one or two; the same number of parameters.
        stem_channels: Maps at full resolution.
        block_layers: Dense layers in a block.
        levels: Scales below full resolution.
        deep_window: Sides of the training's crops in voxels. In evaluation mode the block of the deepest scale runs
            in windows of that size; None runs it on all of its maps at once.

    Shapes:
        `(B, in_channels, I, J, K)` to logits `(B, out_channels, I, J, K)`, for any size: the input is padded
        inside with zeros at its far ends, to multiples of `multiple`, and cropped at the end. In evaluation
        mode with instance norm, one side at least must be longer than `multiple`.

    Attributes:
        multiple: What the sides of the input are padded to multiples of.
        deep_window: Sides in voxels of the windows of the deepest scale, multiples of `multiple`; None without windows.
        peak_maps: Full-resolution maps alive at the peak of an evaluation pass, without the input.

    Raises:
        ConfigError: If a block ends with a number of maps that four groups cannot share, or the window has no three
            sides.

    Notes:
        With `levels=4` the theoretical receptive field is 278 voxels wide. Under bfloat16 autocast on a
        CPU, torch 2.13 computes wrong weight gradients for 3^3 convolutions on 2^3 maps, which is what
        the deepest block sees for 32^3 crops: train in float32 or with crops of at least 48^3.

        `deep_window` is ours: in a crop of 48^3 the deepest maps are 3^3, and all but one voxel of them have the zeros
        of the padding beside them, most on two or three sides. In a brain's box about half have, nearly all on one
        side only, and one pass over it gave .5 to 1 Dice point less than windows of a crop's size
        (docs/performance.md).

    Source:
        Bui, Shin, Moon: Skip-connected 3D DenseNet for volumetric infant brain MRI segmentation,
        Biomed. Signal Process. Control 54:101613, 2019; arXiv 1709.03199.
    """

    def __init__(  # noqa: PLR0913 (each may be left out)
        self,
        in_channels: int,
        out_channels: int,
        *,
        growth_rate: int = 16,
        dropout_prob: float = 0.2,
        norm: str = "batch",
        stem_channels: int = 32,
        block_layers: int = 4,
        levels: int = 4,
        deep_window: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.multiple = 2**levels
        window = None if deep_window is None else _in_deep_voxels(deep_window, self.multiple)
        self.deep_window = None if window is None else tuple(side * self.multiple for side in window)
        self.stem = _stem(in_channels, stem_channels, norm)
        self.downs = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        channels = stem_channels
        for level in range(1, levels + 1):
            if level == 1:
                self.downs.append(_first_down(channels, norm))
            else:
                self.downs.append(_transition(channels, _half(channels), norm))
                channels = _half(channels)
            block = dense_block(channels, block_layers, growth_rate, dropout_prob, norm)
            self.blocks.append(WindowedBlock(*block, window=window) if level == levels else block)
            channels += block_layers * growth_rate
            self.ups.append(_up(channels, stride=2**level))
        channels = levels * UP_CHANNELS + stem_channels
        self.peak_maps = 3 * channels + out_channels  # the maps, joined, normalized; the logits
        self.classifier = nn.Sequential(*norm_relu(norm, channels), nn.Conv3d(channels, out_channels, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions; the transposed ones keep torch's own start."""
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every voxel."""
        size = x.shape[2:]
        skip = self.stem(pad_to_multiple(x, self.multiple, self.training))
        maps: list[Tensor] = []
        x = skip
        for down, block, up in zip(self.downs, self.blocks, self.ups):  # noqa: B905 (TorchScript has no strict)
            x = block(down(x))
            maps.append(up(x))
        maps.append(skip)
        logits = self.classifier(torch.cat(maps, dim=1))
        return logits[:, :, : size[0], : size[1], : size[2]]


def _in_deep_voxels(crop: Sequence[int], multiple: int) -> tuple[int, int, int]:
    """Return what training makes of a crop on the deepest scale, see `pad_to_multiple`."""
    if isinstance(crop, int) or len(crop) != AXES or min(crop) < 1:
        msg = f"DenseFCN cannot be built: found deep_window={crop!r}, expected three sides in voxels."
        raise ConfigError(msg, "Give the training's crop_size, such as [48, 48, 48], or null for no windows.")
    i, j, k = (max(2, ceil(side / multiple)) for side in crop)
    return i, j, k


def _stem(in_channels: int, channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, 3, padding=1, bias=False),
        *norm_relu(norm, channels),
        nn.Conv3d(channels, channels, 3, padding=1, bias=False),
        *norm_relu(norm, channels),
        nn.Conv3d(channels, channels, 3, padding=1, bias=False),
    )


def _first_down(channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(*norm_relu(norm, channels), nn.Conv3d(channels, channels, 2, stride=2, bias=False))


def _half(channels: int) -> int:
    """Halve, rounded up to what the groups of the transposed convolutions can share."""
    return -(-channels // (2 * UP_CHANNELS)) * UP_CHANNELS


def _transition(channels: int, half: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        *norm_relu(norm, channels),
        nn.Conv3d(channels, half, 1, bias=False),
        *norm_relu(norm, half),
        nn.Conv3d(half, half, 2, stride=2),
    )


def _up(channels: int, stride: int) -> nn.ConvTranspose3d:
    if channels % UP_CHANNELS:
        msg = (
            f"DenseFCN cannot be built: found a block that ends with {channels} maps, expected a multiple "
            f"of {UP_CHANNELS}; change `stem_channels`, `growth_rate` or `block_layers`."
        )
        raise ConfigError(msg)
    return nn.ConvTranspose3d(
        channels, UP_CHANNELS, stride + 2, stride=stride, padding=1, groups=UP_CHANNELS, bias=False
    )
