"""A folder that a command is told by name may hold the work of another job, which is not written over."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.going_on import TOLD, is_search
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import RUNNING, command_of, overrides_of, state_of
from kd_lightning.apps.command_line.told import difference, told_settings
from kd_lightning.apps.processes.preemption import started_before
from kd_lightning.apps.settings.config_hash import counted_settings
from kd_lightning.errors import UserError

NUMBER = "${hydra.job.num}"

BY_NUMBER = re.escape(NUMBER) + r"(/[\w.-]+)?"
"""How the folders of a sweep's jobs are named, where a job's number alone tells which is whose."""


def check_run(config: DictConfig) -> None:
    """Check that the folder of a single run is free, or holds its own work.

    Args:
        config: Of the command, with Hydra's part.

    Raises:
        UserError: If another command is at work there, or has left the work of other settings.
    """
    hydra, folder = config.hydra, Path(config.hydra.run.dir)
    other = "choose another hydra.run.dir"
    if not started_before() and state_of(folder, unknown=False) == RUNNING:
        raise UserError(f"{folder} is of a command that still goes on: wait for its end, or {other}")
    if hydra.output_subdir is None and hydra.job.config_name not in TOLD:  # it writes over nothing
        return
    told = list(hydra.overrides.task)
    if theirs := _of_another(folder, hydra.job.config_name, told, lambda: config):
        raise UserError(f"{folder} holds what {theirs} has made: {other}, or take it away")


def check_jobs(config: DictConfig) -> None:
    """Check that the jobs of a sweep write over no earlier job's work, which was told otherwise.

    Args:
        config: Of the launching command, with Hydra's part.

    Raises:
        UserError: If one does. The trials of a search would write over any.
    """
    hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
    places: Any = OmegaConf.to_container(hydra.sweep, resolve=False)
    subdir = str(places.get("subdir"))
    if re.fullmatch(BY_NUMBER, subdir) is None:
        return
    if is_search(hydra.sweeper):
        trials = sorted(trial for trial in folder.glob(subdir.replace(NUMBER, "*")) if trial.is_dir())
        if found := next(filter(_holds_work, trials), None):
            raise UserError(
                f"{found} is of an earlier search, whose trials this one would write over: choose another "
                "hydra.sweep.dir (the study stays the same), or leave it out"
            )
        return
    compose = partial(GlobalHydra.instance().config_loader().load_sweep_config, config)
    for number, told in enumerate(jobs_of_grid(hydra.sweeper, list(hydra.overrides.task)) or []):
        job = folder / subdir.replace(NUMBER, str(number))
        if theirs := _of_another(job, hydra.job.config_name, told, partial(compose, told)):
            raise UserError(f"{job} holds what {theirs} has made: choose another hydra.sweep.dir, or take it away")


def _holds_work(folder: Path) -> bool:
    """Tell whether there are results in a folder, or a checkpoint."""
    return result_of_job(folder) == folder or any(folder.glob("checkpoints/*.ckpt"))


def _of_another(folder: Path, command: str, told: list[str], composed: Callable[[], DictConfig]) -> str:
    """Return whose work a folder holds, if not that of the same settings; nothing if there is none, or no word of it.

    Args:
        folder: The job's.
        command: Of the one that is to write there.
        told: Its arguments.
        composed: Returns its configuration.
    """
    if not _holds_work(folder):
        return ""
    try:
        if (other := command_of(folder)) != command:
            return f"kd-{other}"
        if _settings(OmegaConf.load(folder / ".hydra" / "config.yaml")) == _settings(composed()):
            return ""
        how = difference(told_settings(overrides_of(folder)), told_settings(told))
    except Exception:  # Hydra has left no word of it, or half of one
        return ""
    return f"kd-{other} {how or 'with other settings'}"


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings on which a result depends, as they are composed, wherever data lie."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return counted_settings({name: node for name, node in plain.items() if name != "hydra"})
