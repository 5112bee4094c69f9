"""The first steps of a network with pretrained weights: only what is new learns."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn

from medssl.networks.compact import freeze_backbone


class FrozenStart:
    """Keep the backbone of a classifier as it is for some steps, then let all of it learn.

    A head with random weights would otherwise send large gradients into features that are good already.

    Args:
        network: A `medssl.networks.compact.Classifier`, or a network that holds one.
        steps: Steps at the beginning of training; 0: none.

    Notes:
        Which steps are frozen depends on their number alone, so a resumed run goes on as it was.
    """

    def __init__(self, network: nn.Module, steps: int = 0) -> None:
        self.network = getattr(network, "module", network)
        self.steps = steps
        self._frozen = False

    def attach(self, engine: Engine) -> None:
        """Register before every step."""
        if self.steps > 0:
            engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze or let go where the step's number asks for it."""
        frozen = engine.state.iteration <= self.steps
        if frozen is not self._frozen:
            freeze_backbone(self.network, frozen)
            self._frozen = frozen
