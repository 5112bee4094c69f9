"""Changes of pose as matrices, one an image, and the one interpolation that applies their product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rotation(degrees: Tensor) -> Tensor:
    """Return matrices that turn images around their middle, counterclockwise.

    Shapes:
        degrees: ``(B,)``; return: ``(B, 3, 3)``
    """
    angle = torch.deg2rad(degrees)
    return matrices_of(angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def scaling(across: Tensor, down: Tensor) -> Tensor:
    """Return matrices that enlarge images by a factor along each axis; -1 mirrors.

    Shapes:
        across, down: ``(B,)``; return: ``(B, 3, 3)``
    """
    zero = torch.zeros_like(across)
    return matrices_of(1 / across, zero, zero, 1 / down)


def shear(across: Tensor, down: Tensor) -> Tensor:
    """Return matrices that slant images.

    Shapes:
        across, down: ``(B,)``; return: ``(B, 3, 3)``
    """
    one = torch.ones_like(across)
    return matrices_of(one, across, down, one)


def translation(across: Tensor, down: Tensor) -> Tensor:
    """Return matrices that move images by a share of their side, to the right and down.

    Shapes:
        across, down: ``(B,)``; return: ``(B, 3, 3)``
    """
    one, zero = torch.ones_like(across), torch.zeros_like(across)
    return matrices_of(one, zero, zero, one, -2 * across, -2 * down)


def warp(images: Tensor, matrices: Tensor, padding: str = "reflection") -> Tensor:
    """Resample images bilinearly where matrices send their pixels.

    Args:
        images: In [0, 1].
        matrices: From the place in the result to that in the image; the middle is 0, the edges are -1 and 1,
            x to the right and y down. Angles are right for any aspect ratio.
        padding: "reflection", "border" or "zeros".

    Shapes:
        images: ``(B, C, H, W)``; matrices: ``(B, 3, 3)``; return: ``(B, C, H, W)``
    """
    H, W = images.shape[2:]
    if torch.equal(matrices, torch.eye(3).expand_as(matrices)):
        return images
    matrices = matrices.to(images)
    x, y = (
        (2 * torch.arange(side, dtype=images.dtype, device=images.device) + 1) / side - 1 for side in (W, H)
    )
    a, b, c, d, e, f = matrices[:, :2].flatten(1).unbind(1)
    grid = images.new_empty(len(images), H, W, 2)
    for place, (of_x, of_y, shift) in enumerate(((a, b * H / W, c), (d * W / H, e, f))):
        along_rows, along_columns = torch.outer(of_x, x), torch.outer(of_y, y) + shift[:, None]
        torch.add(along_rows[:, None, :], along_columns[:, :, None], out=grid[..., place])
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False).clamp_(0, 1)


def matrices_of(
    a: Tensor, b: Tensor, d: Tensor, e: Tensor, c: Tensor | None = None, f: Tensor | None = None
) -> Tensor:
    """Return matrices with the rows (a, b, c), (d, e, f), (0, 0, 1); c and f are 0 where not given.

    Shapes:
        a, b, d, e, c, f: ``(B,)``; return: ``(B, 3, 3)``
    """
    zero = torch.zeros_like(a)
    rows = (a, b, zero if c is None else c, d, e, zero if f is None else f, zero, zero, zero + 1)
    return torch.stack(rows, -1).view(-1, 3, 3)
