"""A sweep as the process that launches its jobs sees it: where they lie, which have not finished, how to go on."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig

from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.going_on import ADDS, LEFT_AS_IT_IS, MEND, MEND_TRIALS, is_search, more_to_tell
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import (
    BUSY,
    FINISHED,
    GOES_ON,
    INTERRUPTED,
    KILLED,
    QUEUED,
    REFUSED,
    RUNNING,
    error_of,
    state_of,
)
from kd_lightning.apps.command_line.notes import OF_A_SWEEP, RefusedJob, begun_jobs, overrides_of, refused_jobs, told_by
from kd_lightning.apps.command_line.one_line import MAKE_ROOM
from kd_lightning.apps.command_line.search_space import drawn
from kd_lightning.apps.processes.seat import own_seat

NOT_STARTED = "not started"

TAKEN = "its folder is not its own"
"""Nothing is noted there of the job that did not get it."""

SWEEP = "sweep"
"""Gives the lock its name that the launching process holds in the sweep's folder."""

SHOWN = 8
"""At most so many jobs are named in the last line."""

NOTHING_TO_MEND = (KILLED, INTERRUPTED, QUEUED, BUSY, RUNNING, NOT_STARTED)
"""Ends after which the same command is worth giving again as it is."""

WITHOUT_WORD = (KILLED, RUNNING, NOT_STARTED, TAKEN)
"""Ends that leave no ``error.txt``."""


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
        return refused_jobs(self.folder, self.config.get("name", ""), self.planned)

    def _begun(self) -> list[Path]:
        return begun_jobs(self.folder, self.config.get("name", ""), self.planned, self.began)

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
        inside = folder.is_relative_to(self.folder)  # not of another experiment's
        name = str(folder.relative_to(self.folder)) if inside else folder.name
        return Job(name, told, state, error_of(folder) or ended)

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


def end_of_sweep(name: str) -> None:
    """Say which jobs of the sweep have not finished and how to go on, and leave with exit code 2; 1 if one crashed.

    Args:
        name: Of the command.
    """
    if not (begun and own_seat().leads):
        return
    sweep = begun[0]
    if sweep.stopped:
        sweep.close()
    jobs = sweep.jobs()
    sweep.remove_notes()
    release(sweep.lock)
    missing = [job for job in jobs if job.state != FINISHED]
    if sweep.stopped:
        more = "" if missing or not is_search(sweep.config.hydra.sweeper) else f"; {ADDS}"
        print(f"kd-{name}: error: the sweep stopped: {sweep.stopped}{more}", file=sys.stderr)
    if on_cluster(sweep.config):
        for job in missing:  # what they said stands in files of submitit's
            if job.error:
                print(f"kd-{name}: error: job {job.name}: {job.error}", file=sys.stderr)
    if missing:
        print(f"kd-{name}: error: {_last_line(name, jobs, missing, sweep)}", file=sys.stderr)
    if missing or sweep.stopped:
        refused = bool(missing) and all(job.state in (REFUSED, BUSY, TAKEN) for job in missing)
        sys.exit(2 if refused and (not sweep.stopped or is_search(sweep.config.hydra.sweeper)) else 1)


def _needs_no_mending(job: Job) -> bool:
    """Tell whether the same command is worth giving again as it is."""
    return job.state in NOTHING_TO_MEND or LEFT_AS_IT_IS in job.error or GOES_ON in job.error


def _named(missing: Sequence[Job], common: set[str], with_state: bool) -> str:
    """Return the names of jobs, with what the others were not told, and how they stand."""
    named = []
    for job in missing[:SHOWN]:
        own = " ".join(told for told in job.told if told not in common)
        in_brackets = ", ".join(filter(None, [own, job.state if with_state else ""]))
        named.append(f"{job.name} ({in_brackets})" if in_brackets else job.name)
    return ", ".join([*named, *([f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else [])])


def _last_line(name: str, jobs: Sequence[Job], missing: Sequence[Job], sweep: Sweep) -> str:
    common = set.intersection(*(set(job.told) for job in jobs))
    searches = is_search(sweep.config.hydra.sweeper)
    done_before = all(LEFT_AS_IT_IS in job.error for job in missing)
    if searches:  # two trials may have the same
        common -= drawn(sweep.config.hydra.sweeper, told_by(sweep.config.hydra), list(common))
    deep = "/*" * max(1 + job.name.count("/") for job in missing)
    tells = not done_before and any(job.state not in WITHOUT_WORD for job in missing)
    see = f"; see {sweep.folder}{deep}/error.txt" if tells else ""
    what = "had finished before" if done_before else "did not finish"
    line = f"{len(missing)} of {len(jobs)} jobs {what}: {_named(missing, common, not done_before)}{see}"
    if name not in ("train", "distill"):
        return line
    at_work = any(job.state in (BUSY, RUNNING) or GOES_ON in job.error for job in missing)
    mend = "wait for those that go on, then " if at_work else ""
    if not all(_needs_no_mending(job) for job in missing):
        mend = MEND_TRIALS if searches and sweep.config.hydra.sweeper.get("storage") else MEND
    if searches:
        return f"{line}; {mend}{ADDS}"
    goes_on = any(job.state in (KILLED, INTERRUPTED) or MAKE_ROOM in job.error for job in missing)
    more = more_to_tell(name if goes_on else "", in_sweep=True)
    return f"{line}; {mend}the same command with {more} runs only what is missing"
