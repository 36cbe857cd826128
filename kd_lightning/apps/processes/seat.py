"""Which of a job's processes this one is: started alone, by the job's first process, by SLURM, or by torchrun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

ADDRESS, RANK, SIZE = "KD_LIGHTNING_ADDRESS", "KD_LIGHTNING_RANK", "KD_LIGHTNING_SIZE"
"""What the first process tells the others that it starts: where it listens, who they are, how many there are."""


@dataclass(frozen=True)
class Seat:
    """The place of a process among those of its job.

    Args:
        rank: Its number among all, from 0, who leads.
        size: How many there are.
        local_rank: Its number among those of its machine.
        node: Number of its machine.
        started_by: ``nobody``, ``us`` (the job's first process), ``slurm`` or ``torchrun``.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0
    started_by: str = "nobody"

    @property
    def leads(self) -> bool:
        """Tell whether it is the first, which decides and writes."""
        return self.rank == 0


def own_seat(environment: Mapping[str, str] = os.environ) -> Seat:
    """Return the place of this process, from the environment that it was started in.

    Of SLURM's, only tasks that ``srun`` started count: a script of ``sbatch`` is one process, whatever it asked for.
    """
    if RANK in environment:
        rank = int(environment[RANK])
        return Seat(rank, int(environment[SIZE]), rank, 0, "us")
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
        rank, size, local, node = (int(environment[name]) for name in names)
        return Seat(rank, size, local, node, "torchrun")
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        rank, local, node = (int(environment[f"SLURM_{name}"]) for name in ("PROCID", "LOCALID", "NODEID"))
        return Seat(rank, tasks, local, node, "slurm")
    return Seat()
