"""A folder that a command is told by name may hold the work of another job, which is not written over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.going_on import is_search
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import RUNNING, command_of, job_folders, number_of, overrides_of, state_of
from kd_lightning.apps.command_line.told import difference, told_settings
from kd_lightning.apps.processes.preemption import started_before
from kd_lightning.errors import UserError

BY_NUMBER = r"\$\{hydra[.:]job\.num\}(/[\w.-]+)?"
"""How the folders of a sweep's jobs are named, where a job's number alone tells which is whose."""


def check_run(config: DictConfig) -> None:
    """Check that the folder of a single run is free, or holds its own work.

    Args:
        config: Of the command, with Hydra's part.

    Raises:
        UserError: If another command is at work there, or has left the work of other settings.
    """
    folder = Path(config.hydra.run.dir)
    other = "choose another hydra.run.dir"
    if not started_before() and state_of(folder, unknown=False) == RUNNING:
        raise UserError(f"{folder} is of a command that still goes on: wait for its end, or {other}")
    if theirs := _told_otherwise(folder, config.hydra.job.config_name, list(config.hydra.overrides.task)):
        raise UserError(f"{folder} holds what {theirs} has made: {other}, or take it away")


def check_jobs(config: DictConfig) -> None:
    """Check that the jobs of a sweep write over no earlier job's work, which was told otherwise.

    Args:
        config: Of the launching command, with Hydra's part.

    Raises:
        UserError: If one does. The trials of a search write over any.
    """
    folder, hydra = Path(config.hydra.sweep.dir), config.hydra
    places = OmegaConf.to_container(hydra.sweep, resolve=False)
    if not (isinstance(places, dict) and re.fullmatch(BY_NUMBER, str(places.get("subdir")))):
        return
    planned = jobs_of_grid(hydra.sweeper, list(hydra.overrides.task))
    if planned is None and not is_search(hydra.sweeper):
        return
    for job in job_folders(folder, config.get("name", ""), 0.0):
        number = number_of(job)
        if planned is not None and number >= len(planned):
            continue
        told = None if planned is None else planned[number]
        if theirs := _told_otherwise(job, hydra.job.config_name, told):
            raise UserError(f"{job} holds what {theirs} has made: choose another hydra.sweep.dir, or take it away")


def _told_otherwise(folder: Path, command: str, told: Sequence[str] | None) -> str:
    """Return whose work a folder holds, if a job was told otherwise; nothing if it holds none, or no word of it.

    Args:
        folder: The job's.
        command: Of the one that is to write there.
        told: Its arguments; of None each differs.
    """
    if result_of_job(folder) != folder and not any(folder.glob("checkpoints/*.ckpt")):
        return ""
    try:
        theirs, other = told_settings(overrides_of(folder)), command_of(folder)
    except FileNotFoundError:
        return ""
    own = {} if told is None else told_settings(list(told))
    if told is not None and (other, theirs) == (command, own):
        return ""
    return " ".join(filter(None, [f"kd-{other}", difference(theirs, own)]))
