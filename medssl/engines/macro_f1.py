"""MacroF1: the measure by which a training of images chooses its best step."""

from __future__ import annotations

from ignite.metrics import ConfusionMatrix


class MacroF1(ConfusionMatrix):
    r"""Mean F1 of the classes that have validation images, as in every report.

    .. math:: \frac{1}{|C|} \sum_{c \in C} \frac{2 TP_c}{2 TP_c + FP_c + FN_c}, \quad C = \{c : TP_c + FN_c > 0\}

    Args:
        num_classes: K.
        kwargs: Of `ignite.metrics.ConfusionMatrix`, such as ``output_transform``.

    Notes:
        ignite's own F1 counts a class without validation images as 0, so that perfect answers get less than 1.
    """

    def compute(self) -> float:
        """Return the mean."""
        confusion = super().compute().double()
        found, images = 2 * confusion.diagonal(), confusion.sum(1)
        there = images > 0
        return float((found / (images + confusion.sum(0)))[there].mean())
