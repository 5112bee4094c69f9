"""Class probabilities of images: the mean over networks and views, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.networks.modes import evaluating

View = Callable[[Tensor], Tensor]
"""Images `(B, C, H, W)` in [0, 1] to images."""


def predict_probabilities(
    networks: nn.Module | Sequence[nn.Module],
    images: Tensor | Iterable[Tensor],
    *,
    views: Sequence[View] | Mapping[str, View] = (),
    temperatures: Sequence[float] | None = None,
    batch_size: int = 64,
    each: bool = False,
) -> Tensor:
    r"""Return the class probabilities of images, averaged over m networks and t + 1 views.

    .. math:: \bar p(x) = \frac{1}{m(t+1)} \sum_{i=1}^{m} \sum_{j=0}^{t} \mathrm{softmax}(f_i(T_j(x)) / \tau_i)

    The networks run in evaluation mode (batch norms with their running statistics, so that an image's probabilities
    do not depend on its batch) and get their modes back. Only the sum is kept, not the passes.

    Args:
        networks: Images in [0, 1] to scores; one or several with the same classes.
        images: All of them, or batches in turn.
        views: What is done to a batch before the networks see it, the identity among them; none: the identity only.
        temperatures: One a network; None: 1.
        batch_size: Images a pass.
        each: Return every pass instead of the mean.

    Returns:
        float32 on the CPU; rows sum to 1.

    Shapes:
        images `(N, C, H, W)` uint8 or float in [0, 1]; return `(N, K)`, with `each` `(m * (t + 1), N, K)`,
        the views of the first network first.

    Raises:
        ConfigError: No network, or another number of temperatures, or one that is not positive.
    """
    members = [networks] if isinstance(networks, nn.Module) else list(networks)
    tempered = list(temperatures) if temperatures is not None else [1.0] * len(members)
    _require(members, tempered)
    transforms = list(views.values() if isinstance(views, Mapping) else views) or [_identity]
    found: list[Tensor] = []
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(evaluating(member))
        stack.enter_context(torch.inference_mode())
        for batch in _batches(images, batch_size):
            passes = _passes(members, tempered, transforms, batch)
            found.append(torch.stack(list(passes)) if each else _mean(passes))
    return torch.cat(found, dim=1 if each else 0) if found else torch.zeros(0, 0)


def _passes(
    members: Sequence[nn.Module], temperatures: Sequence[float], views: Sequence[View], batch: Tensor
) -> Iterator[Tensor]:
    """Yield the probabilities of a batch, one network and view after the other."""
    for member, temperature in zip(members, temperatures, strict=True):
        first = next(member.parameters(), None)
        images = batch if first is None else batch.to(first.device)
        for view in views:
            yield (member(view(images)).float() / temperature).softmax(1).cpu()


def _mean(passes: Iterable[Tensor]) -> Tensor:
    """Return the mean of tensors of which one at a time is held, summed in float64."""
    total, count = torch.zeros(()).double(), 0
    for one in passes:
        total, count = total + one.double(), count + 1
    return (total / count).float()


def _batches(images: Tensor | Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Yield float batches of at most `batch_size` images in [0, 1]."""
    for block in [images] if isinstance(images, Tensor) else images:
        for batch in block.split(batch_size):
            if len(batch):
                yield batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()


def _identity(images: Tensor) -> Tensor:
    return images


def _require(members: Sequence[nn.Module], temperatures: Sequence[float]) -> None:
    if not members or len(members) != len(temperatures) or min(temperatures) <= 0:
        msg = (
            f"Probabilities need networks and a positive temperature for each: found {len(members)} networks "
            f"and the temperatures {list(temperatures)}."
        )
        raise ConfigError(msg)
