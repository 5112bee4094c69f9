"""What a training run may cost, defined once: steps x crops, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.errors import ConfigError

PER_EPOCH = 25
"""Steps of an epoch, where they divide those of the budget."""


@dataclass(frozen=True)
class Budget:
    """The cost of one training run, all rounds, teachers and students added up.

    Args:
        name: "quick", "standard" or "full".
        steps: Optimizer steps.
        crops: Crops a step.
        crop_size: Side of a crop in voxels.
        minutes: Wall time of `DenseFCN` with two contrasts on two CPU cores.
        rounds: Most rounds of self-training that its steps are shared out over; None for any number.
    """

    name: str
    steps: int
    crops: int
    crop_size: int
    minutes: float
    rounds: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps between two looks at the validation scans."""
        return PER_EPOCH if self.steps % PER_EPOCH == 0 else 1

    def describe(self) -> str:
        """Return one line for people."""
        return (
            f"{self.name}: {self.steps} steps x {self.crops} crops of {self.crop_size}^3 voxels, "
            f"about {self.minutes:g} minutes on two CPU cores"
        )


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", steps=300, crops=4, crop_size=32, minutes=4, rounds=2),
        Budget("standard", steps=1200, crops=4, crop_size=48, minutes=50, rounds=2),
        Budget("full", steps=4000, crops=4, crop_size=64, minutes=360),
    )
}


def budget_named(name: str) -> Budget:
    """Return a budget.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in BUDGETS:
        msg = f"There is no budget '{name}'. Choose one of: {', '.join(BUDGETS)}."
        raise ConfigError(msg)
    return BUDGETS[name]
