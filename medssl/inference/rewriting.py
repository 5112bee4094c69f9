"""The same function in fewer steps: networks rewritten for inference, equal to the original up to rounding."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from medssl.networks.blocks import pad_to_multiple
from medssl.networks.clustering_head import ClusteringNetwork
from medssl.networks.dense_fcn import DenseFCN


class SubpixelUp(nn.Module):
    """A transposed convolution whose windows overlap by one voxel, as one matrix product and a rearrangement.

    Args:
        up: With cubic kernel `stride + 2` and padding 1, such as those of `DenseFCN`; it is left as it is.

    Shapes:
        `(B, C, I, J, K)` to `(B, L, I * stride, J * stride, K * stride)`, the channels last in memory.

    Notes:
        Every coarse voxel is multiplied with all `(stride + 2)^3` taps at once. The inner `stride^3` of them are
        the fine voxels it covers; the outer ones are added to its neighbors' along one axis after the other.
    """

    def __init__(self, up: nn.ConvTranspose3d) -> None:
        super().__init__()
        if not is_subpixel_up(up):
            msg = f"{up} is no transposed convolution of kernel stride + 2 and padding 1."
            raise ValueError(msg)
        self.stride = up.stride[0]
        self.groups = up.groups
        self.out_channels = up.out_channels
        taps = up.weight.detach().unflatten(0, (up.groups, -1)).flatten(3)  # group, in, out, taps
        self.register_buffer("taps", taps.permute(0, 2, 3, 1).flatten(1, 2).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps at full resolution."""
        B, _, I, J, K = x.shape  # noqa: E741
        side = self.stride + 2
        found = torch.matmul(self.taps, x.reshape(B, self.groups, -1, I * J * K))
        found = found.reshape(B, -1, side, side, side, I, J, K)
        for axis in (2, 3, 4):
            found = _overlapped(found, axis, self.stride)
        fine = found.permute(0, 5, 2, 6, 3, 7, 4, 1)
        fine = fine.reshape(B, I * self.stride, J * self.stride, K * self.stride, -1)
        return fine.permute(0, 4, 1, 2, 3)


def is_subpixel_up(module: nn.Module) -> bool:
    """Tell whether a module can be rewritten as a `SubpixelUp`."""
    if not isinstance(module, nn.ConvTranspose3d) or module.bias is not None:
        return False
    stride = module.stride[0]
    return (module.kernel_size, module.stride, module.padding, module.output_padding, module.dilation) == (
        (stride + 2,) * 3,
        (stride,) * 3,
        (1,) * 3,
        (0,) * 3,
        (1,) * 3,
    )


def _overlapped(taps: Tensor, axis: int, stride: int) -> Tensor:
    """Add the first and last tap along an axis to the neighbors they reach into, in place; return the others.

    Shapes:
        `(B, L, ti, tj, tk, I, J, K)`, `axis` is 2, 3 or 4; the places of that axis are three further on.
    """
    places = taps.shape[axis + 3]
    inner = taps.narrow(axis, 1, stride)
    first, last = taps.select(axis, 0), taps.select(axis, stride + 1)
    along = axis + 2  # one axis has been taken out
    inner.select(axis, stride - 1).narrow(along, 0, places - 1).add_(first.narrow(along, 1, places - 1))
    inner.select(axis, 0).narrow(along, 1, places - 1).add_(last.narrow(along, 0, places - 1))
    return inner


STEM_COPIES = 1.8
"""Maps alive at the peak of a `SlimDenseFCN`, over those of the stem. Default widths, 128 x 112 x 96, two threads, a
fresh process: the peak was 0.42 of what is forecast for the joined maps, as forecast with this number."""

STEM_COPIES_ALONE = 2.55
"""The same with one thread, with which torch unfolds a single image before it multiplies: 0.58 was measured."""


class SlimDenseFCN(nn.Module):
    """A `DenseFCN` that adds up its logits scale by scale instead of joining all maps at full resolution.

    The last two steps, norm-ReLU and the 1^3 convolution, treat every map for itself until the sum, so each scale
    is brought to logits where it is made: the maps of the stem need not be kept, and no joined copy exists.

    Args:
        network: In evaluation mode, with batch norm; it is left as it is but shares its modules.

    Shapes:
        As those of `DenseFCN`.

    Attributes:
        multiple, deep_window: As those of `DenseFCN`.
        peak_maps: Full-resolution maps alive at the peak, in the stem.

    Notes:
        Hooks of the network itself are not carried over, those of its parts are.
    """

    def __init__(self, network: DenseFCN) -> None:
        super().__init__()
        self.multiple, self.deep_window = network.multiple, network.deep_window
        self.stem, self.downs, self.blocks, self.ups = (
            network.stem,
            network.downs,
            network.blocks,
            network.ups,
        )
        norm, _, convolution = network.classifier
        widths = [up.out_channels for up in network.ups]
        widths.append(convolution.in_channels - sum(widths))
        starts = [sum(widths[:index]) for index in range(len(widths))]
        heads = [_head(norm, convolution, start, width) for start, width in zip(starts, widths, strict=True)]
        self.last_head = heads.pop()  # of the stem; it brings the bias
        self.last_head[2].bias = convolution.bias
        self.heads = nn.ModuleList(heads)
        copies = STEM_COPIES if torch.get_num_threads() > 1 else STEM_COPIES_ALONE
        self.peak_maps = copies * widths[-1] + convolution.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every voxel."""
        size = x.shape[2:]
        x = self.stem(pad_to_multiple(x, self.multiple, self.training))
        logits = self.last_head(x)
        for down, block, up, head in zip(self.downs, self.blocks, self.ups, self.heads, strict=True):
            x = down(x)  # frees the maps above before the block makes its own
            x = block(x)
            logits += head(up(x))
        return logits[:, :, : size[0], : size[1], : size[2]]


def _head(norm: nn.BatchNorm3d, convolution: nn.Conv3d, start: int, width: int) -> nn.Sequential:
    """Return norm, ReLU and convolution for some of the maps."""
    part = slice(start, start + width)
    own = nn.BatchNorm3d(width, eps=norm.eps)
    own.load_state_dict({
        name: value[part] if value.ndim else value for name, value in norm.state_dict().items()
    })  # fmt: skip
    last = nn.Conv3d(width, convolution.out_channels, 1, bias=False)
    last.weight = nn.Parameter(convolution.weight.detach()[:, part].clone(), requires_grad=False)
    return nn.Sequential(own, nn.ReLU(inplace=True), last).eval()


def has_split_logits(network: nn.Module) -> bool:
    """Tell whether a network can be made a `SlimDenseFCN`: a `DenseFCN` with batch norm."""
    return type(network) is DenseFCN and isinstance(network.classifier[0], nn.BatchNorm3d)


def slim(network: nn.Module) -> nn.Module:
    """Return a `DenseFCN` with batch norm as a `SlimDenseFCN`, also under a clustering head; others as they are."""
    if has_split_logits(network):
        return SlimDenseFCN(network).eval()
    if type(network) is ClusteringNetwork and has_split_logits(network.backbone):
        return with_backbone(network, SlimDenseFCN(network.backbone))
    return network


def with_backbone(network: ClusteringNetwork, backbone: SlimDenseFCN) -> ClusteringNetwork:
    """Return a copy of a network with a clustering head above another backbone, in evaluation mode."""
    other = copy.deepcopy(network)
    other.backbone = backbone
    other.peak_maps = max(backbone.peak_maps, network.head.peak_maps)
    return other.eval()


def replace_ups(network: nn.Module) -> None:
    """Put a `SubpixelUp` in the place of every transposed convolution that can be one, in place."""
    for name, module in list(network.named_modules()):
        if name and is_subpixel_up(module):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], SubpixelUp(module))
