"""What torchrun and batch systems tell a process through the environment."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from datetime import timedelta

from medssl.errors import ConfigError

logger = logging.getLogger(__name__)

_DONE = "medssl/done"
_POLL_S = 1.0
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this one is.

    Args:
        rank: Its number, from 0.
        ranks: How many they are.
        local_rank: Its number on this machine.
        local_ranks: How many run on this machine.
        torchrun: Whether torchrun started them; it ends all when one fails.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    torchrun: bool = False

    def wait_for_the_others(self) -> None:
        """Wait until every process has come here, so that none is ended by torchrun while it works.

        torchrun's own store counts them; no process group is made. Where it cannot be reached nobody waits.
        """
        if not self.torchrun:
            return
        from torch import distributed

        try:
            meeting = distributed.rendezvous("env://", self.rank, self.ranks, timeout=_PATIENCE)
            store = next(meeting)[0]
            there = store.add(_DONE, 1)
            while there < self.ranks:
                time.sleep(_POLL_S)
                there = store.add(_DONE, 0)
        except (RuntimeError, ValueError, StopIteration) as error:
            logger.info("The other processes are not waited for: %s", error)


def ranks_of_environment() -> Ranks:
    """Return what RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE say; one process where they are not set.

    Raises:
        ConfigError: One of them is no number.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    return Ranks(
        rank=_number("RANK", 0),
        ranks=_number("WORLD_SIZE", 1),
        local_rank=_number("LOCAL_RANK", 0),
        local_ranks=_number("LOCAL_WORLD_SIZE", 1),
        torchrun="TORCHELASTIC_RUN_ID" in os.environ,
    )


def job_of_environment() -> str:
    """Return what Slurm calls this process: job or array task, step, and number there; empty without Slurm.

    A job that Slurm starts again, elsewhere perhaps, is called the same.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return ""
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")
    return " ".join(os.environ.get(name, "") for name in names)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        msg = f"{name} is '{text}' in the environment; expected a number."
        raise ConfigError(msg, "Unset RANK and WORLD_SIZE, or start the processes with torchrun.")
    return int(text)
