"""Labeled-only training: cross-entropy plus Dice inside the mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.functional.supervised import masked_cross_entropy, masked_dice_loss


class SupervisedLoss(nn.Module):
    """Weigh cross-entropy and Dice loss over the voxels whose label is known.

    Args:
        dice_weight: Weight of the Dice term; the cross-entropy has weight 1.
        label_smoothing: Of the cross-entropy: share of the target that all classes divide equally.
        class_weight: Of the cross-entropy: one number a class; None for 1 each.
        log_prior: Of the cross-entropy: what is added to the scores of each class, see `masked_cross_entropy`; None: 0.

    Raises:
        ConfigError: The smoothing is outside [0, 1), a class weight is negative or no number, or a log prior is none.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        *,
        label_smoothing: float = 0.0,
        class_weight: Sequence[float] | None = None,
        log_prior: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            msg = f"Found label_smoothing {label_smoothing}; expected a share from 0 to below 1."
            raise ConfigError(msg)
        self.dice_weight = dice_weight
        self.label_smoothing = label_smoothing
        self.class_weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
        self.log_prior = None if log_prior is None else torch.tensor(log_prior, dtype=torch.float32)
        if self.class_weight is not None and not (self.class_weight >= 0).all():
            msg = f"Found class_weight {class_weight}; expected one number a class, none below 0."
            raise ConfigError(msg)
        if self.log_prior is not None and not self.log_prior.isfinite().all():
            msg = f"Found log_prior {log_prior}; expected one finite number a class."
            raise ConfigError(msg)

    def forward(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: Network scores.
            label: Channel numbers, 255 unknown.
            weight: Of each sample in the cross-entropy; None for 1 each.

        Raises:
            ConfigError: There are other class weights or log priors than classes.

        Shapes:
            logits: ``(B, K, I, J, K)``; label: ``(B, 1, I, J, K)``; weight: ``(B, 1)``
        """
        for name, numbers in (("class weights", self.class_weight), ("log priors", self.log_prior)):
            if numbers is not None and len(numbers) != logits.shape[1]:
                msg = f"Found {len(numbers)} {name} for {logits.shape[1]} classes."
                raise ConfigError(msg, "Give one for each class, in the order of the classes.")
        label = label[:, 0]
        loss = masked_cross_entropy(
            logits,
            label,
            label_smoothing=self.label_smoothing,
            class_weight=self.class_weight,
            weight=None if weight is None else weight[:, 0],
            log_prior=self.log_prior,
        )
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * masked_dice_loss(logits, label)
        return loss
