"""A block that sees no more at once than it saw in training."""

import torch
from torch import Tensor, nn


class WindowedBlock(nn.Sequential):
    """Run modules one after the other; in evaluation mode in windows that stand side by side.

    A convolution pads with zeros. Where the crops of a training leave a block two or three voxels along an axis, it has
    hardly seen a voxel without zeros nearby; in windows of a crop's size it sees what it knows.

    Args:
        modules: Each keeps the size of its maps.
        window: Sides of the windows in voxels of the maps; None runs the maps as a whole.

    Shapes:
        `(B, C, I, J, K)` to `(B, C', I, J, K)`. Along a side that is no multiple the last window begins earlier and
        answers for what is left; along a side that is shorter than a window there is one.

    Notes:
        No branch on the size: tracing, scripting and exporting to ONNX hold for every size; `torch.export` with
        dynamic sizes does not take it (torch 2.13).
    """

    def __init__(self, *modules: nn.Module, window: tuple[int, int, int] | None = None) -> None:
        super().__init__(*modules)
        self.windowed = window is not None
        self.window = (1, 1, 1) if window is None else window

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps at every voxel."""
        if self.training or not self.windowed:
            return self._whole(x)
        B, C, I, J, K = x.shape  # noqa: E741
        i, j, k = _least(self.window[0], I), _least(self.window[1], J), _least(self.window[2], K)
        a, b, c = _count(I, i), _count(J, j), _count(K, k)
        x = (
            x.index_select(2, _places(I, i, x))
            .index_select(3, _places(J, j, x))
            .index_select(4, _places(K, k, x))
        )
        x = x.reshape(B, C, a, i, b, j, c, k).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = self._whole(x.reshape(B * a * b * c, C, i, j, k))
        x = x.reshape(B, a, b, c, x.shape[1], i, j, k).permute(0, 4, 1, 5, 2, 6, 3, 7)
        x = x.reshape(B, x.shape[1], a * i, b * j, c * k)
        return (
            x.index_select(2, _slots(I, i, x))
            .index_select(3, _slots(J, j, x))
            .index_select(4, _slots(K, k, x))
        )

    def _whole(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


def _count(size: int, side: int) -> int:
    """Return how many windows cover a side."""
    return (size + side - 1) // side


def _places(size: int, side: int, like: Tensor) -> Tensor:
    """Return where the voxels of all windows along a side lie, one window after the other."""
    slots = torch.arange(_count(size, side) * side, device=like.device)
    return slots - _shift(slots, side, size)


def _slots(size: int, side: int, like: Tensor) -> Tensor:
    """Return which of the windows' voxels answers for each place."""
    places = torch.arange(size, device=like.device)
    return places + _shift(places, side, size)


def _shift(at: Tensor, side: int, size: int) -> Tensor:
    """Return how much earlier a window begins than side by side: the last one, so that it fits."""
    begin = at // side * side
    return begin - begin.clamp(max=size - side)


def _least(a: int, b: int) -> int:
    """Return the smaller of two numbers, also where a trace stands for one of them."""
    return (a + b - abs(a - b)) // 2
