"""The folders of a sweep's jobs, as far as they can be foreseen: the sweep is refused before one is written over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.arguments import told_by
from kd_lightning.apps.command_line.going_on import is_search
from kd_lightning.apps.command_line.grids import swept
from kd_lightning.apps.command_line.jobs import choose_another
from kd_lightning.apps.command_line.notes import command_of_sweep, job_folders
from kd_lightning.apps.command_line.occupied import holds_work, occupied_by, of_another
from kd_lightning.errors import UserError, first_line

NUMBER = "${hydra.job.num}"

IS_NUMBER = r"\$\{hydra[.:]job\.num\}"
"""In how a job's folder is told."""

REFERENCE = r"\$\{([^{}]*)\}"
"""In how a folder is told: what stands for a value."""


def check_jobs(config: DictConfig, jobs: list[list[str]] | None, is_new: bool = False) -> None:
    """Check that the jobs of a sweep write over no earlier job's work, nor over each other's, before one begins.

    Where their folders are not known yet, each job looks for itself: ``check_is_ours``.

    Args:
        config: Of the launching command, with Hydra's part.
        jobs: What each is told, if that is known.
        is_new: Whether the sweep's folder was not there.

    Raises:
        UserError: If one does. The trials of a search would write over any.
    """
    hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
    named: Any = OmegaConf.to_container(hydra.sweep, resolve=False)
    subdir = str(named["subdir"])
    like = Path(subdir)
    if like.is_absolute() or ".." in like.parts or not like.parts:
        raise UserError(f"hydra.sweep.subdir is {subdir}, expected a folder below hydra.sweep.dir")
    if holds_work(folder):
        raise UserError(occupied_by("a single run", folder, in_sweep=True))
    if (other := command_of_sweep(folder)) not in ("", hydra.job.config_name):  # what is missing there would be lost
        raise UserError(occupied_by(f"a sweep of kd-{other}", folder, in_sweep=True))
    numbered = re.search(IS_NUMBER, subdir) is not None
    if jobs is not None:
        _check_places(config, str(like) if numbered else "", jobs[:1] if is_new and numbered else jobs)
    elif is_search(hydra.sweeper) and numbered and (found := _trial_like(str(like), folder)):
        other = f"{choose_another(in_sweep=True)} (the study stays the same), or leave it out"
        raise UserError(f"{found} is of an earlier sweep, and trials of this one would be written over it: {other}")


def _trial_like(subdir: str, folder: Path) -> Path | None:
    """Return an earlier job whose folder is called as trials of a search will be, with its work."""
    parts = (
        r"\d+" if re.fullmatch(IS_NUMBER, part) else ".*" if part[:2] == "${" else re.escape(part)
        for part in re.split(r"(\$\{[^}]*\})", subdir)
    )
    like = "".join(parts)
    jobs = (job for job in job_folders(folder) if re.fullmatch(like, str(job.relative_to(folder))))
    return next(filter(holds_work, jobs), None)


def check_is_of_all(config: DictConfig) -> None:
    """Check that the folder of a sweep does not follow from what differs between its jobs, but for their names.

    Args:
        config: Of the launching command, with Hydra's part.

    Raises:
        UserError: If it does.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    output = str((plain.get("paths") or {}).get("output"))
    told = str(plain["hydra"]["sweep"]["dir"]).replace("${paths.output}", output)
    differ = {"job.num", "job.id", *swept(config.hydra.sweeper, told_by(config.hydra))} - {"name"}
    if {"paths", "paths.output"} & differ:
        raise UserError("paths.output differs between jobs, expected one for the whole sweep")
    for name in (part for found in re.findall(REFERENCE, told) for part in re.split(r"[:,\s]", found)):
        setting = re.sub(r"^(hydra\.)?(runtime\.choices\.)?", "", name)
        if any(setting == one or setting.startswith(f"{one}.") for one in differ):
            raise UserError(
                f"hydra.sweep.dir is {told}, and {setting} differs between jobs, expected the folder of the whole "
                "sweep: those of its jobs are named by hydra.sweep.subdir"
            )


def _check_places(config: DictConfig, numbered: str, jobs: list[list[str]]) -> None:
    """Check the folders of a sweep's jobs: ``check_jobs``.

    Args:
        config: Of the launching command, with Hydra's part.
        numbered: How a job's folder is told, if by its number.
        jobs: What each is told.
    """
    simple = bool(numbered) and "$" not in re.sub(IS_NUMBER, "", numbered)
    folder = Path(config.hydra.sweep.dir)
    taken: dict[str, int] = {}
    for number, told in enumerate(jobs):
        if simple and not (folder / re.sub(IS_NUMBER, str(number), numbered)).exists():
            continue
        with suppress(HydraException), _composed(config, told, number) as job:  # it says so itself
            place = _place_of(job, number, folder)
            if (first := taken.setdefault(os.path.realpath(place), number)) != number:
                raise UserError(
                    f"jobs {first} and {number} would both write to {place}: with {NUMBER} in hydra.sweep.subdir each "
                    "has a folder of its own"
                )
            if theirs := _other_there(place, config.hydra.job.config_name, told, job):
                raise UserError(occupied_by(theirs, place, in_sweep=True))


def _place_of(job: DictConfig, number: int, folder: Path) -> Path:
    """Return where a job of a sweep will write.

    Args:
        job: Its configuration, with Hydra's part.
        number: Its number.
        folder: The sweep's.

    Raises:
        UserError: If that cannot be told, or is not below the sweep's.
    """
    try:
        place = folder / str(job.hydra.sweep.subdir)
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.sweep.subdir, of job {number}: {first_line(error)}") from error
    if Path(os.path.realpath(folder)) not in Path(os.path.realpath(place)).parents:
        raise UserError(f"hydra.sweep.subdir of job {number} is {place}, expected a folder below hydra.sweep.dir")
    return place


def _other_there(place: Path, command: str, told: list[str], job: DictConfig) -> str:
    """Return whose work a folder holds, if not that of the job; nothing if its settings are wrong: it says so."""
    with suppress(UserError):
        return of_another(place, command, told, job)
    return ""


@contextmanager
def _composed(config: DictConfig, told: list[str], number: int) -> Iterator[DictConfig]:
    """Give the configuration of a sweep's job, as its launcher composes it, but for what a scheduler calls it."""
    job = GlobalHydra.instance().config_loader().load_sweep_config(config, told)
    with open_dict(job):
        job.hydra.job.id = job.hydra.job.num = number
    HydraConfig.instance().set_config(job)  # its folder may be told by ${hydra:...}
    try:
        yield job
    finally:
        HydraConfig.instance().set_config(config)
