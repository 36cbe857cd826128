"""Further processes of a job on this machine, started by its first one with the same command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from kd_lightning.apps.arguments import as_told, quoted, told_by
from kd_lightning.apps.processes.seat import ADDRESS, RANK, SIZE
from kd_lightning.errors import UserError

LAST_WORDS = 10.0
"""Seconds that processes have to end by themselves before they are killed."""


def command_of_job() -> list[str]:
    """Return the command that does this job alone: its own overrides, also in a sweep, and no folder of its own.

    Lightning would start the user's whole command once more, which in a sweep is the whole sweep.
    """
    now = HydraConfig.get()
    own = [source.path for source in now.runtime.config_sources if source.provider == "command-line"]
    return [
        *(sys.executable, "-m", f"kd_lightning.{now.job.config_name}"),
        *(part for path in own for part in ("--config-dir", path.removeprefix("file://"))),
        *told_by(now),
        *(override for override in as_told(now.overrides.hydra) if override.startswith("hydra.searchpath=")),
        "skip_finished=false",  # the first has looked
        "hydra.mode=RUN",
        f"hydra.run.dir={quoted(now.runtime.output_dir)}",
        *([] if OmegaConf.is_missing(now.job, "num") else [f"hydra.job.num={now.job.num}"]),  # arguments may name it
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]


class Children:
    """The further processes, there as long as the block is; whatever ends it ends them.

    Args:
        processes: How many the job has, with this one.
        address: Where this one listens.
    """

    def __init__(self, processes: int, address: str) -> None:
        self.processes, self.address = processes, address
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Children:
        """Start them."""
        command, threads = command_of_job(), max(1, (os.cpu_count() or 1) // self.processes)
        for rank in range(1, self.processes):
            told = {ADDRESS: self.address, RANK: str(rank), SIZE: str(self.processes)}
            environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **told}
            self.started.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        return self

    def check(self) -> None:
        """Look whether one of them has ended before its time: nobody would come to train with.

        Raises:
            UserError: If so.
        """
        for rank, child in enumerate(self.started, 1):
            code = child.poll()
            if code is not None:
                raise UserError(f"process {rank} of {self.processes} has ended with exit code {code}, see above")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them, all at once."""
        if kind is not None:
            for child in self.started:
                child.terminate()
        until = time.monotonic() + LAST_WORDS
        for child in self.started:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
