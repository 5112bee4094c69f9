"""Labeled-only training: cross-entropy plus Dice inside the mask."""

from __future__ import annotations

from torch import Tensor, nn

from medssl.functional.supervised import masked_cross_entropy, masked_dice_loss


class SupervisedLoss(nn.Module):
    """Weigh cross-entropy and Dice loss over the voxels whose label is known.

    Args:
        dice_weight: Weight of the Dice term; the cross-entropy has weight 1.
    """

    def __init__(self, dice_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Shapes:
            logits: ``(B, K, I, J, K)``; label: ``(B, 1, I, J, K)`` channel numbers, 255 unknown
        """
        label = label[:, 0]
        loss = masked_cross_entropy(logits, label)
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * masked_dice_loss(logits, label)
        return loss
