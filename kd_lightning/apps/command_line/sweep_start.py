"""A sweep begins: what would go wrong in silence is refused, and word of it is left in its folder."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.arguments import as_told, quoted, told_by
from kd_lightning.apps.command_line.foreseen import check_is_of_all, check_jobs
from kd_lightning.apps.command_line.going_on import is_search
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import choose_another, goes_on
from kd_lightning.apps.command_line.notes import NOTED, OF_A_SWEEP, begun_jobs
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.apps.command_line.studies import check_study, follow_trials
from kd_lightning.apps.command_line.sweeps import SWEEP, Sweep, begun, forget, on_cluster, release
from kd_lightning.apps.processes.preemption import LATE, started_before
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.settings.names import check_name
from kd_lightning.apps.settings.paths import check_folder
from kd_lightning.apps.settings.unused import check_own_folder
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import write_text

log = logging.getLogger(__name__)


class RecordSweep(Callback):
    """Let the command know of its sweep, and of its folder before anything is written: Hydra tells callbacks alone."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check what a single run would do to its folder before it has looked there."""
        with _refused(config):
            check_names(config)
            check_place("hydra.run.dir", config)
            check_output(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the sweep, and leave word of it in its folder, as Hydra's own sweeper does, of a search as well.

        Hydra makes a warning of what goes wrong in a callback, so this ends the command by itself.
        """
        with _refused(config):
            check_sweep(config)
            fix_folder(config)
            folder = Path(config.hydra.sweep.dir)
            sweep = Sweep(config, time.time(), is_new=own_seat().leads and not folder.exists())
            begun[:] = [sweep]
            folder.mkdir(parents=True, exist_ok=True)
            if own_seat().leads:
                sweep.lock = claim(folder)
                sweep.remove_notes(whose_ever=True)  # of an earlier launcher that was killed
            check_not_empty(told_by(config.hydra), sweep.planned)
            check_names(config, sweep.planned or [])
            check_jobs(config, sweep.planned, sweep.is_new)
            if is_search(config.hydra.sweeper):
                check_study(config)
            if own_seat().leads:
                write_text(folder / OF_A_SWEEP, OmegaConf.to_yaml(config))
            if is_search(config.hydra.sweeper):
                sweep.give_up = follow_trials(config.hydra.job.config_name)
            warn_of_early_signals(config.hydra.launcher)
            if on_cluster(config):
                from kd_lightning.apps.command_line.cluster_jobs import watch  # its packages are an extra

                watch(begun[0])


@contextmanager
def _refused(config: DictConfig) -> Iterator[None]:
    """End the command with one line and exit code 2 where the block refuses it."""
    try:
        HydraConfig.instance().set_config(config)  # as Hydra does next: a folder may be told by ${hydra:...}
        yield
    except Exception as error:
        forget()
        if not isinstance(error, OSError | UserError | OmegaConfBaseException | HydraException):
            sys.stderr = sys.__stderr__  # else this end is taken for one of Hydra's, which refuses with exit code 1
            traceback.print_exc()
            sys.exit(1)
        where = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) and error.full_key else ""
        why = os_error(error) if isinstance(error, OSError) else f"{where}{first_line(error)}"
        if where and "hydra.job.num" in why:
            why += "; jobs have numbers in hydra.sweep.subdir alone"
        print(f"kd-{config.hydra.job.config_name}: error: {why}", file=sys.__stderr__)
        sys.exit(2)


def fix_folder(config: DictConfig) -> None:
    """Give each job the folder of its sweep as the launching command has it: from a job's settings another may follow.

    Args:
        config: Of the launching command, with Hydra's part; Hydra composes jobs by it.
    """
    folder = str(config.hydra.sweep.dir)
    with read_write(config.hydra):
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")


def warn_of_early_signals(launcher: DictConfig) -> None:
    """Say where jobs are signalled as soon as they begin: they spend their time on beginning again."""
    delay, limit = launcher.get("signal_delay_s"), launcher.get("timeout_min")
    if isinstance(delay, int) and isinstance(limit, int) and 0 < 60 * limit <= 2 * delay:
        log.warning(
            "hydra.launcher.signal_delay_s is %d, of a time limit of %d seconds: jobs are told to end soon after they "
            "begin; a longer hydra.launcher.timeout_min, or a shorter delay, gives them time",
            delay,
            60 * limit,
        )


def claim(folder: Path) -> FileLock:
    """Return the lock of a sweep's folder, which is held.

    Args:
        folder: The sweep's.

    Raises:
        UserError: If another sweep goes on there, or a job: each would write over the other's results.
    """
    other = f"wait for its end, or {choose_another(in_sweep=True)}"
    lock = FileLock(folder / f".{SWEEP}.lock")
    try:
        lock.acquire(timeout=LATE if started_before() else 0.0)
    except Timeout:
        raise UserError(f"{folder} is of a sweep that still goes on: {other}") from None
    at_work = next((job for job in begun_jobs(folder) if goes_on(job)), None)
    if at_work is not None:
        release(lock)
        raise UserError(f"{at_work} still goes on: {other}")
    return lock


def check_sweep(config: DictConfig) -> None:
    """Check what would go wrong in a sweep in silence.

    Raises:
        UserError: If Hydra would write to its jobs' folders, if its own is a file, or told as a single run's, if each
            of several processes would search, or if a launcher or sweeper is told as a setting.
    """
    for part in ("launcher", "sweeper"):
        if isinstance(name := config.hydra.get(part), str):
            raise UserError(f"hydra.{part} is {name}, expected an option: hydra/{part}={name}")
    check_own_folder(as_told(config.hydra.overrides.hydra), in_sweep=True)
    check_is_of_all(config)
    check_names(config)
    check_place("hydra.sweep.dir", config)
    check_output(config)
    if own_seat().size > 1 and is_search(config.hydra.sweeper):
        raise UserError(
            f"a search was started by {own_seat().size} processes, which would draw each for itself: start one, with "
            "a launcher for its jobs"
        )


def check_not_empty(told: list[str], jobs: list[list[str]] | None) -> None:
    """Check that a sweep has a job.

    Args:
        told: What its command was told.
        jobs: What each job is told, if that is known.

    Raises:
        UserError: If it has none.
    """
    if jobs == []:
        empty = next((one for one in told if jobs_of_grid({}, [one]) == []), "its arguments")
        raise UserError(
            f"this sweep has no job: {empty} comes to no value (glob(...) chooses options of a config group; files and "
            "folders are told one by one, NAME=A,B)"
        )


def check_names(config: DictConfig, jobs: Sequence[list[str]] = ()) -> None:
    """Check the name of a run, and those that jobs of a sweep are told; commands that train have one.

    Args:
        config: Of the command.
        jobs: What each is told.
    """
    if "name" in config:
        check_name(OmegaConf.select(config, "name"))
    for told in dict.fromkeys(one for job in jobs for one in job if one.startswith("name=")):
        check_name(told.partition("=")[2].strip("'\""))


def check_place(name: str, config: DictConfig) -> None:
    """Check that a setting is where a folder is, or can be made; most often it follows from ``paths.output``."""
    if isinstance(output := OmegaConf.select(config, "paths.output"), str):
        check_folder("paths.output", output)
    check_folder(name, OmegaConf.select(config, name))


def check_output(config: DictConfig) -> None:
    """Check that Hydra leaves no word of its own in a folder, which it would write over before anyone has looked there.

    Raises:
        UserError: If it does.
    """
    if (told := config.hydra.output_subdir) is not None:
        raise UserError(f"hydra.output_subdir is {told}: a command leaves {NOTED} in its folder itself; leave it out")
