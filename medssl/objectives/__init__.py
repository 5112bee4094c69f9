"""What a training step minimizes; one algorithm a file, none with parameters of its own."""

from medssl.objectives.supervised import SupervisedLoss

__all__ = ["SupervisedLoss"]
