"""What a comparison compares, and how."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.errors import ConfigError
from medssl.evaluation.ranks import DROP_BLOCK, MISSING
from medssl.workflows.classification.results_table import SCORES

NETWORKS = "networks"
PAIRS = "pairs"
METHODS = "methods"
TWO = "two"
ANALYSES = (NETWORKS, PAIRS, METHODS, TWO)
"""What can be compared: networks under one method, all pairs, methods over networks, or two named pairs."""

BASE = "base"
FAILED = ("value", "missing")
BETWEEN = " + "
"""Between network and method in the name of a pair."""

_IDLE = {
    NETWORKS: ("methods",),
    PAIRS: ("method",),
    METHODS: ("method",),
    TWO: ("control", "methods", "networks", "families", "method"),
}
"""Options that an analysis would pass over."""

_ON_COMMAND_LINE = {
    "control": "--control",
    "families": "--family",
    "method": "--under",
    "methods": "--method",
    "networks": "--network",
}
"""What these are called there."""


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and how.

    Args:
        analysis: One of `ANALYSES`.
        metric: A column of the table, higher is better.
        method: The method of "networks".
        pair: Two "NETWORK + METHOD" for "two", the second being the control.
        networks: Only these; empty for all.
        families: Only networks of these families; empty for all.
        methods: Only these, for "pairs" and "methods"; empty for all.
        control: The treatment to hold the others against; None for "base" among methods, else for the one with
            the best mean rank.
        missing: What to do where a treatment has no value for a data set: "drop_block", "worst_rank", "error".
        failed: Whether rows whose precision, recall and F1 are 0 count as a "value" or as "missing".
        alpha: Level of significance.

    Raises:
        ConfigError: A word or number is not allowed, or the analysis would pass over what is given.
    """

    analysis: str = NETWORKS
    metric: str = "f1"
    method: str = BASE
    pair: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    control: str | None = None
    missing: str = DROP_BLOCK
    failed: str = "value"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        allowed = {"analysis": ANALYSES, "metric": SCORES, "missing": MISSING, "failed": FAILED}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                msg = f"{name} is '{getattr(self, name)}'; expected one of {', '.join(words)}."
                raise ConfigError(msg)
        if (self.analysis == TWO) != (len(self.pair) == 2):
            msg = f"The analysis '{self.analysis}' was given {len(self.pair)} pairs; 'two' needs two, others none."
            raise ConfigError(msg, f"Name two of the form 'NETWORK{BETWEEN}METHOD'.")
        idle = [
            _ON_COMMAND_LINE[name]
            for name in _IDLE[self.analysis]
            if getattr(self, name) != getattr(CompareOptions, name)
        ]
        if idle:
            msg = f"The analysis '{self.analysis}' has no use for {', '.join(idle)}."
            raise ConfigError(msg, "Leave it out, or choose another analysis.")
        if not 0 < self.alpha < 1:
            msg = f"alpha is {self.alpha}; expected a number between 0 and 1."
            raise ConfigError(msg)
