"""FCDenseNet3D: an encoder and a decoder of dense blocks with skip connections."""

import torch
from torch import Tensor, nn

from medssl.networks.blocks import dense_block, initialize_convolutions, norm_relu, pad_to_multiple


class FCDenseNet3D(nn.Module):
    """Label every voxel with a U-shaped network of dense blocks.

    The default (4 levels of 3 dense layers) has 1,419,296 + 177 * `out_channels` parameters; the variant
    `levels=3, block_layers=4, reduction=2` has 1,363,344 + 225 * `out_channels`. One input channel takes
    864 off either.

    Args:
        in_channels: Contrasts.
        out_channels: Labels, background first.
        growth_rate: Maps added by a dense layer.
        dropout_prob: Dropout after each dense layer.
        norm: `"batch"`, or `"instance"` for batches of one or two; the same number of parameters.
        stem_channels: Maps at full resolution.
        block_layers: Dense layers in a block.
        levels: Scales below full resolution.
        reduction: What a transition divides the number of maps by.

    Shapes:
        `(B, in_channels, I, J, K)` to logits `(B, out_channels, I, J, K)`, for any size: the input is padded
        inside with zeros at its far ends, to multiples of `multiple`, and cropped at the end. In evaluation
        mode with instance norm, one side at least must be longer than `multiple`.

    Attributes:
        multiple: What the sides of the input are padded to multiples of.
        peak_maps: Full-resolution maps alive at the peak of an evaluation pass, without the input.

    Notes:
        The listing of the paper's network is not public; both variants are reconstructions that fit its
        60 convolutions and 1.4 million parameters. Under bfloat16 autocast on a CPU, torch 2.13 computes
        wrong weight gradients for 3^3 convolutions on 2^3 maps: train in float32 or with crops of at
        least 48^3.

    Source:
        Hashemi, Prabhu, Warfield, Gholipour: Exclusive independent probability estimation using deep 3D
        fully convolutional DenseNets, MIDL 2019, PMLR 102:260-274; arXiv 1809.08168.
    """

    def __init__(  # noqa: PLR0913 (the published network has this many numbers)
        self,
        in_channels: int,
        out_channels: int,
        *,
        growth_rate: int = 16,
        dropout_prob: float = 0.2,
        norm: str = "batch",
        stem_channels: int = 32,
        block_layers: int = 3,
        levels: int = 4,
        reduction: int = 1,
    ) -> None:
        super().__init__()
        self.multiple = 2**levels
        self.new_channels = block_layers * growth_rate
        self.stem = nn.Conv3d(in_channels, stem_channels, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels, skips = stem_channels, []
        for _ in range(levels):
            self.encoder.append(dense_block(channels, block_layers, growth_rate, dropout_prob, norm))
            skips.append(channels + self.new_channels)
            channels = skips[-1] // reduction
            self.downs.append(_transition(skips[-1], channels, norm))
        self.bottom = dense_block(channels, block_layers, growth_rate, dropout_prob, norm)
        for skip in reversed(skips):
            channels = self.new_channels + skip
            self.ups.append(_up(self.new_channels))
            self.decoder.append(dense_block(channels, block_layers, growth_rate, dropout_prob, norm))
        widest = channels + self.new_channels - growth_rate
        self.peak_maps = (
            channels + 2 * widest + 4 * growth_rate + self.new_channels
        )  # in the last dense layer
        self.classifier = nn.Conv3d(channels + self.new_channels, out_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the convolutions; the transposed ones keep torch's own start."""
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every voxel."""
        size = x.shape[2:]
        x = self.stem(pad_to_multiple(x, self.multiple, self.training))
        skips: list[Tensor] = []
        for block, down in zip(self.encoder, self.downs):  # noqa: B905 (TorchScript has no strict)
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, block in zip(self.ups, self.decoder):  # noqa: B905
            new_maps = x[:, -self.new_channels :]
            x = block(torch.cat([up(new_maps), skips.pop()], dim=1))
        return self.classifier(x)[:, :, : size[0], : size[1], : size[2]]


def _transition(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        *norm_relu(norm, in_channels),
        nn.Conv3d(in_channels, out_channels, 1, bias=False),
        nn.MaxPool3d(2),
    )


def _up(channels: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False)
