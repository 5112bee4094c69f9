"""What the densely connected networks share: normalization, dense block, padding to a multiple."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import ConfigError

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d}
"""Normalizations by name; both carry one scale and one shift a channel."""


def norm_relu(norm: str, channels: int) -> list[nn.Module]:
    """Build the pair that stands before every convolution.

    Args:
        norm: `"batch"` or `"instance"` (for batches of one or two).
        channels: Maps that come in and go out.

    Raises:
        ConfigError: If the normalization has no such name.
    """
    if norm not in NORMS:
        msg = f"Unknown normalization: found norm={norm!r}, expected one of {sorted(NORMS)}; change `norm`."
        raise ConfigError(msg)
    return [NORMS[norm](channels, affine=True), nn.ReLU(inplace=True)]


class DenseLayer(nn.Module):
    """Append `growth_rate` new maps to the maps that come in.

    Norm-ReLU-Conv 1^3 to `4 * growth_rate` maps, Norm-ReLU-Conv 3^3 to `growth_rate` maps, dropout.

    Args:
        in_channels: Maps that come in.
        growth_rate: Maps added.
        dropout_prob: Probability with which a value of the new maps is zeroed in training.
        norm: `"batch"` or `"instance"`.

    Shapes:
        `(B, in_channels, I, J, K)` to `(B, in_channels + growth_rate, I, J, K)`.
    """

    def __init__(self, in_channels: int, growth_rate: int, dropout_prob: float, norm: str) -> None:
        super().__init__()
        width = 4 * growth_rate
        self.layers = nn.Sequential(
            *norm_relu(norm, in_channels),
            nn.Conv3d(in_channels, width, 1, bias=False),
            *norm_relu(norm, width),
            nn.Conv3d(width, growth_rate, 3, padding=1, bias=False),
            nn.Dropout(dropout_prob),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the old maps followed by the new ones."""
        return torch.cat([x, self.layers(x)], dim=1)


def dense_block(
    in_channels: int, layers: int, growth_rate: int, dropout_prob: float, norm: str
) -> nn.Sequential:
    """Stack dense layers; the block ends with `in_channels + layers * growth_rate` maps."""
    widths = range(in_channels, in_channels + layers * growth_rate, growth_rate)
    return nn.Sequential(*(DenseLayer(width, growth_rate, dropout_prob, norm) for width in widths))


def initialize_convolutions(network: nn.Module) -> None:
    """Draw the weights of all (not transposed) convolutions from He's normal distribution."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def pad_to_multiple(x: Tensor, multiple: int, training: bool) -> Tensor:
    """Append zeros at the far end of each axis until all sides are multiples.

    Nothing moves: voxel `(0, 0, 0)` stays where it is. In training each side becomes at least two
    multiples long, so that the deepest maps hold 2^3 values and a batch of one can be normalized.

    Args:
        x: Maps of any size.
        multiple: What the sides shall be divisible by.
        training: Whether the network is in training mode.

    Shapes:
        `(B, C, I, J, K)` to `(B, C, I', J', K')` with `I' >= I` and so on.

    Notes:
        Zero is what preprocessing writes outside the mask, and what the convolutions pad with. In
        evaluation mode there is no branch on the size, so that tracing and exporting hold for every size.
    """
    pads: list[int] = []
    for axis in (4, 3, 2):
        side = x.shape[axis]
        least = max(side, 2 * multiple) if training else side
        pads += [0, (least + multiple - 1) // multiple * multiple - side]
    return F.pad(x, pads)
