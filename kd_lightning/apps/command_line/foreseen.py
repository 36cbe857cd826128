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

from kd_lightning.apps.command_line.going_on import is_search
from kd_lightning.apps.command_line.jobs import choose_another
from kd_lightning.apps.command_line.notes import command_of_sweep, job_folders
from kd_lightning.apps.command_line.occupied import holds_work, occupied_by, of_another
from kd_lightning.errors import UserError, first_line

NUMBER = "${hydra.job.num}"

NEW = "%S"
"""In the name of a folder that nobody else has: the second in which it is made."""

SAME = r"\$\{(?:name|paths\.output|\w+:%[^}]*)\}"
"""What jobs have in common in the name of their sweep's folder, or, of experiments, what their names are."""


def check_jobs(config: DictConfig, jobs: list[list[str]] | None) -> None:
    """Check that the jobs of a sweep write over no earlier job's work, nor over each other's, before one begins.

    Where their folders are not known yet, each job looks for itself: ``check_is_ours``.

    Args:
        config: Of the launching command, with Hydra's part.
        jobs: What each is told, if that is known.

    Raises:
        UserError: If one does. The trials of a search would write over any.
    """
    hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
    named: Any = OmegaConf.to_container(hydra.sweep, resolve=False)
    subdir = Path(named["subdir"])
    if subdir.is_absolute() or ".." in subdir.parts or not subdir.parts:
        raise UserError(f"hydra.sweep.subdir is {named['subdir']}, expected a folder below hydra.sweep.dir")
    if holds_work(folder):
        raise UserError(occupied_by("a single run", folder, in_sweep=True))
    if (other := command_of_sweep(folder)) not in ("", hydra.job.config_name):  # what is missing there would be lost
        raise UserError(occupied_by(f"a sweep of kd-{other}", folder, in_sweep=True))
    if jobs is not None:
        _check_places(config, named, jobs)
    elif is_search(hydra.sweeper) and NUMBER in named["subdir"]:
        parts = re.split(r"(\$\{[^}]*\})", named["subdir"])
        like = "".join(r"\d+" if part == NUMBER else ".*" if part[:2] == "${" else re.escape(part) for part in parts)
        trials = (job for job in job_folders(folder, "", 0.0) if re.fullmatch(like, str(job.relative_to(folder))))
        if found := next(filter(holds_work, trials), None):
            other = f"{choose_another(in_sweep=True)} (the study stays the same), or leave it out"
            raise UserError(f"{found} is of an earlier sweep, and trials of this one would be written over it: {other}")


def _check_places(config: DictConfig, named: dict[str, str], jobs: list[list[str]]) -> None:
    """Check the folders of a sweep's jobs: ``check_jobs``.

    Args:
        config: Of the launching command, with Hydra's part.
        named: How folders are told: the sweep's, and below it a job's.
        jobs: What each is told.
    """
    numbered = NUMBER in named["subdir"]
    plain: Any = OmegaConf.to_container(config, resolve=False)
    told_how = re.sub(SAME, "", named["dir"]) + str(plain.get("paths", {}).get("output"))
    is_new = NEW in named["dir"] and "$" not in told_how
    if is_new and named["subdir"] == NUMBER:
        return
    if is_new and numbered:
        jobs = jobs[:1]  # shows whether its place can be told
    simple = numbered and "$" not in named["dir"] + named["subdir"].replace(NUMBER, "")
    taken: dict[str, int] = {}
    for number, told in enumerate(jobs):
        if simple and not Path(named["dir"], named["subdir"].replace(NUMBER, str(number))).exists():
            continue
        with suppress(HydraException), _composed(config, told, number) as job:  # it says so itself
            try:
                place = Path(job.hydra.sweep.dir, str(job.hydra.sweep.subdir))
            except OmegaConfBaseException as error:
                raise UserError(f"hydra.sweep.dir, hydra.sweep.subdir, of job {number}: {first_line(error)}") from error
            if not _is_of_sweep(Path(job.hydra.sweep.dir), job.get("name", ""), config):
                raise UserError(
                    f"hydra.sweep.dir of job {number} is {job.hydra.sweep.dir}, expected {config.hydra.sweep.dir}, as "
                    "of the whole sweep: what differs between jobs stands in hydra.sweep.subdir"
                )
            if Path(os.path.realpath(job.hydra.sweep.dir)) not in Path(os.path.realpath(place)).parents:
                raise UserError(
                    f"hydra.sweep.subdir of job {number} is {place}, expected a folder below hydra.sweep.dir"
                )
            if (first := taken.setdefault(os.path.realpath(place), number)) != number:
                raise UserError(
                    f"jobs {first} and {number} would both write to {place}: with {NUMBER} in hydra.sweep.subdir each "
                    "has a folder of its own"
                )
            if theirs := _other_there(place, config.hydra.job.config_name, told, job):
                raise UserError(occupied_by(theirs, place, in_sweep=True))


def _is_of_sweep(folder: Path, name: str, config: DictConfig) -> bool:
    """Tell whether a job's folder of its sweep is the sweep's, or lies beside it under the job's own name.

    Args:
        folder: The job's.
        name: Of the job's experiment.
        config: Of the launching command.
    """
    sweep = Path(config.hydra.sweep.dir)
    beside = sweep.parent.name == config.get("name") and sweep.parent.parent / name / sweep.name
    return os.path.realpath(folder) == os.path.realpath(sweep) or folder == beside


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
