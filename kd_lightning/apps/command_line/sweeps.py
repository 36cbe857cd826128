"""A sweep as the process that launches its jobs sees it: where they lie, which have not finished, how to go on."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import (
    FINISHED,
    INTERRUPTED,
    KILLED,
    QUEUED,
    REFUSED,
    RUNNING,
    error_of,
    job_folders,
    overrides_of,
    result_of_job,
    state_of,
)
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.errors import UserError
from kd_lightning.files import write_text

NOT_STARTED = "not started"

SHOWN = 8
"""At most so many jobs are named in the last line."""

MENDS_NOTHING = (KILLED, INTERRUPTED, QUEUED, RUNNING, NOT_STARTED)
"""Ends after which the same command is worth giving again as it is."""


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
    """

    config: DictConfig
    began: float
    stopped: str = ""
    ended: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its folder."""
        return Path(self.config.hydra.sweep.dir)

    def has_jobs(self) -> bool:
        """Tell whether a job has begun."""
        return bool(begun_jobs(self.folder, self.config.get("name", ""), self.began))

    def jobs(self) -> list[Job]:
        """Return the jobs as their folders tell them, then those that have none."""
        found = begun_jobs(self.folder, self.config.get("name", ""), self.began)
        jobs = [self._job_in(folder) for folder in found]
        started = {tuple(job.told) for job in jobs}
        grid = jobs_of_grid(self.config.hydra.sweeper, list(self.config.hydra.overrides.task)) or []
        planned = [(str(i), told) for i, told in enumerate(grid) if tuple(told) not in started]
        return jobs + [Job(name, told, NOT_STARTED, self.ended.get(tuple(told), "")) for name, told in planned]

    def _job_in(self, folder: Path) -> Job:
        told = overrides_of(folder)
        state, ended = state_of(folder), self.ended.get(tuple(told), "")
        if ended and state in (RUNNING, FINISHED) and result_of_job(folder) is None:
            state = KILLED  # before it could say that it runs, too
        inside = folder.is_relative_to(self.folder)  # not of another experiment's
        name = str(folder.relative_to(self.folder)) if inside else folder.name
        return Job(name, told, state, error_of(folder) or ended)

    def close(self) -> None:
        """Call what is to be done at the end, where the launcher has raised and Hydra does not."""
        for node in self.config.hydra.callbacks.values():
            try:
                instantiate(node).on_multirun_end(config=self.config)
            except Exception as error:  # as Hydra does
                warnings.warn(f"{node['_target_']} raised {type(error).__name__}: {error}", stacklevel=1)


begun: list[Sweep] = []
"""The sweep of this process, once it has begun."""


class RecordSweep(Callback):
    """Let the command know of its sweep: Hydra tells callbacks alone."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the sweep, and leave word of it in its folder, as Hydra's own sweeper does, of a search as well.

        Hydra makes a warning of what goes wrong in a callback, so this ends the command by itself.
        """
        try:
            check_sweep(config)
            folder = Path(config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            if own_seat().leads:
                write_text(folder / "multirun.yaml", OmegaConf.to_yaml(config))
            begun[:] = [Sweep(config, time.time())]
            if on_cluster(config):
                from kd_lightning.apps.command_line.cluster_jobs import watch  # its packages are an extra

                watch(begun[0])
        except Exception as error:
            why = os_error(error) if isinstance(error, OSError) else str(error)
            print(f"kd-{config.hydra.job.config_name}: error: {why}", file=sys.__stderr__)
            sys.exit(2)


def check_sweep(config: DictConfig) -> None:
    """Check what would go wrong in a sweep in silence.

    Raises:
        UserError: If its jobs leave no word of what they were told, or if each of several processes would search.
    """
    if config.hydra.output_subdir is None and own_seat().leads:  # who is led leaves no word of its own
        raise UserError("hydra.output_subdir is null: what each job of a sweep was told is read there; leave it out")
    if own_seat().size > 1 and is_search(config):
        raise UserError(
            f"a search was started by {own_seat().size} processes, which would draw each for itself: start one, with "
            "a launcher for its jobs"
        )


def is_search(config: DictConfig) -> bool:
    """Tell whether the jobs of a sweep follow from results."""
    return "n_trials" in config.hydra.sweeper


def on_cluster(config: DictConfig) -> bool:
    """Tell whether the jobs are a cluster's (or, rehearsed, of this machine), which keeps what they say in files."""
    return ".hydra_submitit_launcher." in config.hydra.launcher["_target_"]


def begun_jobs(folder: Path, name: str, began: float = 0.0) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, none of an earlier sweep into the same folder.

    Args:
        folder: The sweep's.
        name: The experiment's.
        began: When it began, if Hydra has left no file of it.
    """
    written = folder / "multirun.yaml"  # what Hydra's own sweeper writes first
    return job_folders(folder, name, written.stat().st_mtime if written.exists() else began)


def end_of_sweep(name: str) -> None:
    """Say which jobs of the sweep have not finished and how to go on, and leave with exit code 2; 1 if one crashed.

    Args:
        name: Of the command.
    """
    if not (begun and own_seat().leads):
        return
    sweep = begun[0]
    if sweep.stopped:
        print(f"kd-{name}: error: the sweep stopped: {sweep.stopped}", file=sys.stderr)
        sweep.close()
    jobs = sweep.jobs()
    missing = [job for job in jobs if job.state != FINISHED]
    if on_cluster(sweep.config):
        for job in missing:  # what they said stands in files of submitit's
            if job.error:
                print(f"kd-{name}: error: job {job.name}: {job.error}", file=sys.stderr)
    if missing:
        print(f"kd-{name}: error: {_last_line(name, jobs, missing, sweep)}", file=sys.stderr)
    if missing or sweep.stopped:
        refused = all(job.state == REFUSED for job in missing)
        sys.exit(2 if refused and (not sweep.stopped or is_search(sweep.config)) else 1)


def _last_line(name: str, jobs: Sequence[Job], missing: Sequence[Job], sweep: Sweep) -> str:
    common = set.intersection(*(set(job.told) for job in jobs))
    named = []
    for job in missing[:SHOWN]:
        own = " ".join(told for told in job.told if told not in common)
        named.append(f"{job.name} ({own}, {job.state})" if own else f"{job.name} ({job.state})")
    if len(missing) > SHOWN:
        named.append(f"and {len(missing) - SHOWN} more")
    deep = "/**" if any("/" in job.name for job in missing) else "/*"
    line = f"{len(missing)} of {len(jobs)} jobs did not finish: {', '.join(named)}; see {sweep.folder}{deep}/error.txt"
    if name not in ("train", "distill"):
        return line
    mend = "" if all(job.state in MENDS_NOTHING for job in missing) else "mend them, then "
    if is_search(sweep.config):
        return f"{line}; {mend}the same command adds trials to its study"
    goes_on = name == "train" and any(job.state in (KILLED, INTERRUPTED) for job in missing)
    more = "skip_finished=true ckpt_path=last" if goes_on else "skip_finished=true"
    return f"{line}; {mend}the same command with {more} runs only what is missing"
