"""A sweep as the process that launches its jobs sees it: where they lie, and how each stands."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig

from kd_lightning.apps.arguments import told_by
from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import FINISHED, KILLED, REFUSED, RUNNING, error_of, state_of
from kd_lightning.apps.command_line.notes import OF_A_SWEEP, RefusedJob, begun_jobs, overrides_of, refused_jobs

NOT_STARTED = "not started"

TAKEN = "its folder is not its own"
"""Nothing is noted there of the job that did not get it."""

SWEEP = "sweep"
"""Gives the lock its name that the launching process holds in the sweep's folder."""


@dataclass
class Job:
    """A job of a sweep.

    Args:
        name: Its number, or what else its folder is called.
        told: What it was told.
        state: How it stands.
        error: How it ended, if it has not finished.
    """

    name: str
    told: Sequence[str]
    state: str
    error: str = ""


@dataclass
class Sweep:
    """A sweep that this process has begun.

    Args:
        config: Of the launching command, with Hydra's part.
        began: In seconds, by the clock of this machine.
        stopped: Why the launcher (or the sweeper) stopped, if it did.
        ended: What a job was told -> how it ended, of those that could not say so.
        is_new: Whether its folder was not there.
        give_up: Notes of the jobs that still run that they have no result; called where the process leaves at once.
        lock: Of its folder, until it is closed; of several processes of a command the first has it.
    """

    config: DictConfig
    began: float
    stopped: str = ""
    ended: dict[tuple[str, ...], str] = field(default_factory=dict)
    is_new: bool = False
    give_up: Callable[[], None] = lambda: None
    lock: FileLock | None = None

    @property
    def folder(self) -> Path:
        """Its folder."""
        return Path(self.config.hydra.sweep.dir)

    def has_jobs(self) -> bool:
        """Tell whether a job has begun, or would have, in a folder of its own."""
        return bool(self._begun() or self._refused_jobs())

    def _refused_jobs(self) -> list[RefusedJob]:
        return refused_jobs(self.folder, self.planned)

    def _begun(self) -> list[Path]:
        return begun_jobs(self.folder, self.planned, self.began)

    @cached_property
    def planned(self) -> list[list[str]] | None:
        """What each of its jobs is told, if that is known; of ``glob(*)`` only while Hydra knows the options."""
        return jobs_of_grid(self.config.hydra.sweeper, told_by(self.config.hydra))

    def jobs(self) -> list[Job]:
        """Return the jobs as their folders tell them, then those that have none."""
        jobs = [self._job_in(folder) for folder in self._begun()]
        started = {tuple(job.told) for job in jobs}
        refused = self._refused_jobs()
        if self.planned is not None:  # each is told something else, so another command has begun it since
            refused = [job for job in refused if tuple(job.told) not in started]
        jobs += [Job(job.number, job.told, TAKEN, f"{REFUSED}: {job.error}") for job in refused]
        started |= {tuple(job.told) for job in refused}
        waiting = [(str(i), told) for i, told in enumerate(self.planned or []) if tuple(told) not in started]
        return jobs + [Job(name, told, NOT_STARTED, self.ended.get(tuple(told), "")) for name, told in waiting]

    def _job_in(self, folder: Path) -> Job:
        told = overrides_of(folder)
        state, ended = state_of(folder), self.ended.get(tuple(told), "")
        if ended and state in (RUNNING, FINISHED) and result_of_job(folder) is None:
            state = KILLED  # before it could say that it runs, too
        return Job(str(folder.relative_to(self.folder)), told, state, error_of(folder) or ended)

    def remove_notes(self, whose_ever: bool = False) -> None:
        """Take the notes away of jobs that were refused their folders.

        Args:
            whose_ever: Whether those of other sweeps in its folder go, too.
        """
        for job in [*self._refused_jobs(), *(refused_jobs(self.folder) if whose_ever else ())]:
            job.note.unlink(missing_ok=True)

    def close(self) -> None:
        """Call what is to be done at the end, where the launcher has raised and Hydra does not."""
        for node in self.config.hydra.callbacks.values():
            try:
                instantiate(node).on_multirun_end(config=self.config)
            except Exception as error:  # as Hydra does
                warnings.warn(f"{node['_target_']} raised {type(error).__name__}: {error}", stacklevel=1)


def release(lock: FileLock | None) -> None:
    """Let others have the folder of a sweep."""
    if lock is not None:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


begun: list[Sweep] = []
"""The sweep of this process, once it has begun."""


def forget() -> None:
    """Take away the folders, made for them, of sweeps of which no job has begun: what was refused is not missing."""
    for sweep in begun:
        if sweep.lock is None:
            continue
        with suppress(OSError):
            made = {OF_A_SWEEP, ".submitit", f".{SWEEP}.lock"}
            if sweep.is_new and {path.name for path in sweep.folder.iterdir()} <= made:
                shutil.rmtree(sweep.folder)
        release(sweep.lock)


def on_cluster(config: DictConfig) -> bool:
    """Tell whether the jobs are a cluster's (or, rehearsed, of this machine), which keeps what they say in files."""
    return ".hydra_submitit_launcher." in config.hydra.launcher["_target_"]
