"""A folder that a command is told by name may hold the work of another job, which is not written over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.going_on import TOLD, is_search
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import (
    RUNNING,
    command_of,
    job_folders,
    let_go,
    overrides_of,
    reserve,
    state_of,
)
from kd_lightning.apps.command_line.told import difference, told_settings
from kd_lightning.apps.processes.preemption import started_before
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.settings.config_hash import counted_settings
from kd_lightning.apps.settings.paths import EVALUATION
from kd_lightning.errors import UserError

NUMBER = "${hydra.job.num}"

INTERPOLATION = r"(\$\{(?:[^{}]|\{[^{}]*\})*\})"
"""What stands in a setting for the value of another."""

APART = (NUMBER, "${hydra.job.id}")
"""No two jobs of a sweep have the same of these."""

BY_SETTINGS = "${hydra.job.override_dirname}"
"""Who has the same of this was told the same."""

ANOTHER = "choose another hydra.sweep.dir"

NEW = "%S"
"""In the name of a folder that nobody else has: the second in which it is made."""


def check_run(config: DictConfig) -> None:
    """Check that the folder of a single run is free, or holds its own work; if this process leads, it has it from now.

    Args:
        config: Of the command, with Hydra's part.

    Raises:
        UserError: If another command is at work there, or has left the work of other settings.
    """
    hydra, folder = config.hydra, Path(config.hydra.run.dir)
    other = "choose another hydra.run.dir"
    if own_seat().leads and not _is_ours(folder, hydra.job.config_name):
        raise UserError(f"{folder} is of a command that still goes on: wait for its end, or {other}")
    if hydra.output_subdir is None and hydra.job.config_name not in TOLD:  # it writes over nothing
        return
    theirs = _of_another(folder, hydra.job.config_name, list(hydra.overrides.task), config)
    if theirs or (folder / "multirun.yaml").exists():
        let_go(folder)
        raise UserError(f"{folder} holds what {theirs or 'a sweep'} has made: {other}, or take it away")


def _is_ours(folder: Path, command: str) -> bool:
    """Reserve the folder of a single run, unless another process is at work there; tell whether it is ours."""
    if started_before():  # a file server keeps the lock of a machine that is gone
        return True
    return state_of(folder, unknown=False) != RUNNING and (command not in TOLD or reserve(folder))


def check_jobs(config: DictConfig) -> None:
    """Check that the jobs of a sweep write over no earlier job's work, which was told otherwise, nor over each other's.

    Args:
        config: Of the launching command, with Hydra's part.

    Raises:
        UserError: If one does. The trials of a search would write over any.
    """
    hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
    if _holds_work(folder):
        raise UserError(f"{folder} holds what a single run has made: {ANOTHER}, or take it away")
    named: Any = OmegaConf.to_container(hydra.sweep, resolve=False)
    jobs = jobs_of_grid(hydra.sweeper, list(hydra.overrides.task))
    if jobs is None:
        _check_unknown(config, str(named["subdir"]))
        return
    may_hold_work = NEW not in named["dir"] and ("$" in named["dir"] or any(path.is_dir() for path in folder.glob("*")))
    if may_hold_work or not any(name in str(named["subdir"]) for name in APART):
        _check_places(config, jobs)


def _check_unknown(config: DictConfig, subdir: str) -> None:
    """Check the folders of jobs that only their sweeper knows: ``check_jobs``.

    Args:
        config: Of the launching command, with Hydra's part.
        subdir: How each is named, with what stands there for a job's number and settings.
    """
    found = None if BY_SETTINGS in subdir else _first_of_before(Path(config.hydra.sweep.dir), subdir)
    if found is not None and is_search(config.hydra.sweeper):
        raise UserError(
            f"{found} is of an earlier search, whose trials this one would write over: {ANOTHER} (the study stays the "
            "same), or leave it out"
        )
    if found is not None:
        raise UserError(f"{found} is of an earlier sweep, whose jobs this one would write over: {ANOTHER}")


def _first_of_before(folder: Path, subdir: str) -> Path | None:
    """Return the first folder of an earlier job that holds work, if there is one, and is named so."""
    parts = re.split(INTERPOLATION, subdir)
    named = "".join(r"\d+" if part == NUMBER else ".+" if "$" in part else re.escape(part) for part in parts)
    found = (job for job in job_folders(folder, "", 0.0) if re.fullmatch(named, str(job.relative_to(folder))))
    return next(filter(_holds_work, found), None)


def _check_places(config: DictConfig, jobs: Sequence[list[str]]) -> None:
    """Check the folders of a sweep's jobs: ``check_jobs``."""
    taken: dict[Path, int] = {}
    for number, told in enumerate(jobs):
        try:
            composed = _composed(config, told, number)
            job = Path(composed.hydra.sweep.dir, str(composed.hydra.sweep.subdir))
        except (HydraException, OmegaConfBaseException):  # it says so itself
            continue
        finally:
            HydraConfig.instance().set_config(config)
        if (first := taken.setdefault(job, number)) != number:
            raise UserError(
                f"jobs {first} and {number} would both write to {job}: with {NUMBER} in hydra.sweep.subdir each has "
                "a folder of its own"
            )
        if theirs := _of_another(job, config.hydra.job.config_name, told, composed):
            raise UserError(f"{job} holds what {theirs} has made: {ANOTHER}, or take it away")


def _composed(config: DictConfig, told: list[str], number: int) -> DictConfig:
    """Return the configuration of a sweep's job, as its launcher composes it."""
    job = GlobalHydra.instance().config_loader().load_sweep_config(config, told)
    with open_dict(job):
        job.hydra.job.id = job.hydra.job.num = number
    HydraConfig.instance().set_config(job)  # its folder may be told by ${hydra:...}
    return job


def _holds_work(folder: Path) -> bool:
    """Tell whether there are results in a folder, or a checkpoint."""
    evaluated = (folder / EVALUATION).exists()
    return evaluated or result_of_job(folder) == folder or any(folder.glob("checkpoints/*.ckpt"))


def _of_another(folder: Path, command: str, told: list[str], composed: DictConfig) -> str:
    """Return whose work a folder holds, if not that of the same settings; nothing if there is none, or no word of it.

    Args:
        folder: The job's.
        command: Of the one that is to write there.
        told: Its arguments.
        composed: Its configuration.
    """
    if not _holds_work(folder):
        return ""
    try:
        if (other := command_of(folder)) != command:
            return f"kd-{other}"
        if _settings(OmegaConf.load(folder / ".hydra" / "config.yaml")) == _settings(composed):
            return ""
        how = difference(told_settings(overrides_of(folder)), told_settings(told))
    except Exception:  # Hydra has left no word of it, or half of one
        return ""
    return f"kd-{other} {how or 'with other settings'}"


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings on which a result depends, as they are composed, wherever data lie."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return counted_settings({name: node for name, node in plain.items() if name != "hydra"})
