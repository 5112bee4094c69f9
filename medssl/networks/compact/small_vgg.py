"""SmallVGG: plain 3 x 3 convolutions for small images, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = {
    "vgg-small-28": ((16, 16), (40, 40), (80, 80)),
    "vgg-small-64": ((16,), (32, 32), (48, 48), (96, 96)),
}
"""Name -> maps of each convolution, one group a scale."""


class SmallVGG(nn.Module):
    """Pool the maps of convolution, batch norm and ReLU blocks, with max pooling between the scales.

    Args:
        in_channels: Of the image.
        widths: Maps of each convolution, one group a scale.

    Shapes:
        `(B, in_channels, H, W)` to features `(B, widths[-1][-1])`; each side at least `2 ** (scales - 1)`.
    """

    def __init__(self, in_channels: int, widths: Sequence[Sequence[int]]) -> None:
        super().__init__()
        scales: list[nn.Module] = []
        channels = in_channels
        for maps in widths:
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if scales else []
            for width in maps:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            scales.append(nn.Sequential(*layers))
        self.scales = nn.Sequential(*scales)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions from He's normal distribution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        return self.pool(self.scales(x))
