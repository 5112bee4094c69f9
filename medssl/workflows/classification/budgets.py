"""What a training of a classifier may cost, defined once: steps x images, teachers and students added up."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.errors import ConfigError

SECONDS_A_STEP = 0.09
"""Of SSLDEC with `vgg-small-64`, 64 color images of 64 x 64 pixels, two CPU cores (``benchmarks/training.py``)."""


@dataclass(frozen=True)
class ImageBudget:
    """The cost of one method, all its rounds, teachers and students added up.

    Args:
        name: "quick", "standard" or "full".
        steps: Optimizer steps.
        images: Images a step, labeled and unlabeled ones added up.
        rounds: Most rounds that its steps are shared out over; None for any number.
    """

    name: str
    steps: int
    images: int
    rounds: int | None = None

    def describe(self, steps: int | None = None) -> str:
        """Return one line for people, with other steps where they are given."""
        name = self.name if steps is None else f"{self.name} with other steps"
        steps = steps or self.steps
        minutes = steps * SECONDS_A_STEP / 60
        about = f"{minutes:.0f}" if minutes > 2 else f"{minutes:.1f}"
        return (
            f"{name}: {steps} steps x {self.images} images, about {about} minutes on two CPU cores with "
            "vgg-small-64 and 64 x 64 pixels"
        )


BUDGETS = {
    budget.name: budget
    for budget in (
        ImageBudget("quick", steps=400, images=64, rounds=2),
        ImageBudget("standard", steps=2000, images=64, rounds=2),
        ImageBudget("full", steps=10000, images=64),
    )
}


def require_steps_for_rounds(budget: ImageBudget, rounds: int, own_steps: int | None) -> None:
    """Refuse more rounds than a small budget has steps for; of a user's own number of steps nothing is known.

    Raises:
        ConfigError: With how many it has.
    """
    if budget.rounds is not None and rounds > budget.rounds and own_steps is None:
        msg = f"--rounds {rounds}: the steps of --budget {budget.name} are enough for {budget.rounds} rounds."
        raise ConfigError(msg, f"Give {budget.rounds} or fewer, --budget full, or --steps.")


def image_budget(name: str) -> ImageBudget:
    """Return a budget.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in BUDGETS:
        msg = f"There is no budget '{name}'. Choose one of: {', '.join(BUDGETS)}."
        raise ConfigError(msg)
    return BUDGETS[name]
