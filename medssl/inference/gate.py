"""The accuracy gate: what is faster may be used only if it gives the same labels as torch in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_CHANGED = 0.001
"""Share of the brain's voxels whose label may differ."""

MOST_DICE_LOSS = 0.001
"""How far below 1 the Dice of any label against the reference may be."""


@dataclass(frozen=True)
class Agreement:
    """How far an answer is from the reference.

    Attributes:
        finite: No logit in the mask is NaN or infinite.
        changed: Share of the mask's voxels with another label.
        dice_loss: Largest 1 - Dice of the labels beside the background.
    """

    finite: bool
    changed: float
    dice_loss: float

    @property
    def accepted(self) -> bool:
        """Whether the answer may stand in for the reference."""
        return self.finite and self.changed < MOST_CHANGED and self.dice_loss < MOST_DICE_LOSS

    def __str__(self) -> str:
        if not self.finite:
            return "NaN or infinity in its answer"
        return (
            f"labels change in {100 * self.changed:.3f} % of the brain's voxels, Dice by {self.dice_loss:.5f}"
        )


def agreement(reference: Tensor, candidate: Tensor, mask: Tensor) -> Agreement:
    """Compare two answers inside a mask.

    Args:
        reference: Logits or probabilities of torch in float32.
        candidate: Those of another backend or precision.
        mask: The brain; an empty one counts as agreement.

    Shapes:
        both `(L, I, J, K)`, background first; mask `(I, J, K)` bool.
    """
    answer = candidate[:, mask]
    if not bool(torch.isfinite(answer).all()):
        return Agreement(finite=False, changed=1.0, dice_loss=1.0)
    expected, found = reference[:, mask].argmax(0), answer.argmax(0)
    changed = float((expected != found).double().mean()) if len(found) else 0.0
    losses = [_dice_loss(expected == label, found == label) for label in range(1, len(reference))]
    return Agreement(finite=True, changed=changed, dice_loss=max(losses, default=0.0))


def _dice_loss(expected: Tensor, found: Tensor) -> float:
    voxels = int(expected.sum()) + int(found.sum())
    return 1 - 2 * int((expected & found).sum()) / voxels if voxels else 0.0
