"""What is noted in the folder of a job: what it was told, and by that, which jobs are of a sweep."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.arguments import as_told, told_by
from kd_lightning.apps.settings.names import as_name
from kd_lightning.files import files_named, last_change, read_json, write_json, write_text

NOTED = ".hydra"
"""The folder, in a job's, that says what it was told."""

MODEL = "model.txt"
"""There, of a command that reads a trained model: the folder of that."""

OF_A_SWEEP = "multirun.yaml"
"""In the folder of a sweep: what its command was told, which Hydra's own sweeper writes first."""

REFUSED_ITS_FOLDER = "refused"
"""Ends the name of the file, in a sweep's folder, that tells of a job whose own folder is another's."""


def if_told() -> suppress:
    """Return what passes over a folder without word of its job, or half of one: others write and take away."""
    return suppress(Exception)


def begun_jobs(folder: Path, planned: list[list[str]] | None = None, began: float = 0.0) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, none of an earlier sweep into the same folder.

    Args:
        folder: The sweep's.
        planned: What each job is told, if that is known: jobs of an earlier command, which waited in a queue, are told
            otherwise.
        began: When it began, if Hydra has left no file of it.
    """
    written = folder / OF_A_SWEEP
    found = job_folders(folder, written.stat().st_mtime if written.exists() else began)
    return [job for job in found if planned is None or is_planned(job, planned)]


def job_folders(sweep: Path, since: float = 0.0) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, in their order.

    Args:
        sweep: The sweep's folder.
        since: When the sweep began; jobs of an earlier one into the same folder do not count.
    """
    told = (path for path in files_named("overrides.yaml", sweep) if path.parent.name == NOTED)
    found = [path.parents[1] for path in told if last_change(path) >= since]
    return sorted(found, key=lambda folder: [counting(part) for part in (folder.name, *folder.parts)])


def is_planned(job: Path, planned: Sequence[list[str]]) -> bool:
    """Tell whether a job was told what one of a sweep is; it may vanish while one looks.

    Args:
        job: Its folder.
        planned: What each of the sweep is told.
    """
    with if_told():
        return overrides_of(job) in planned
    return False


def counting(name: str) -> list[tuple[int, str]]:
    """Return a key by which ten comes after nine, and letters are as in a dictionary.

    Example:
        >>> sorted(["10", "9", "tmkd", "bam_large", "bam2"], key=counting)
        ['9', '10', 'bam2', 'bam_large', 'tmkd']
    """
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def note_told(config: DictConfig, folder: Path) -> None:
    """Leave word in a job's folder of its settings and of what it was told, as Hydra does, and begin its log.

    Args:
        config: Its settings, as they were composed.
        folder: The job's.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and handler.delay:  # else what cannot be written is told late
            Path(handler.baseFilename).open("a").close()
    hydra: Any = HydraConfig.instance().cfg
    (folder / NOTED).mkdir(exist_ok=True)
    if model := model_told(config):
        write_text(folder / NOTED / MODEL, model)
    else:  # of an evaluation that was refused
        (folder / NOTED / MODEL).unlink(missing_ok=True)
    # the last is that by which jobs are found
    for name, node in (("config", config), ("hydra", hydra), ("overrides", hydra.hydra.overrides.task)):
        write_text(folder / NOTED / f"{name}.yaml", OmegaConf.to_yaml(node))


def model_told(config: DictConfig) -> str:
    """Return the folder of the model that a job is told to read, without links; nothing of one that trains."""
    told = as_name(config.get("run"))
    return told and os.path.realpath(told)


def model_of(folder: Path) -> str:
    """Return the folder of the model that a job was told to read, as it was found then; nothing of one that trains."""
    try:
        return (folder / NOTED / MODEL).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def note_refused(error: Exception) -> None:
    """Note in the folder of a sweep that this job of it was refused its own: the launching process may be another."""
    now: Any = HydraConfig.get()
    note = Path(now.runtime.cwd, now.sweep.dir, f".{now.job.num}.{REFUSED_ITS_FOLDER}")  # hydra.job.chdir may be true
    with suppress(OSError):
        write_json(note, {"told": told_by(now), "error": str(error)})


@dataclass(frozen=True)
class RefusedJob:
    """A job of a sweep that was refused its folder.

    Args:
        note: The file that tells of it.
        told: What it was told.
        error: Why.
    """

    note: Path
    told: list[str]
    error: str

    @property
    def number(self) -> str:
        """Its number in the sweep."""
        return self.note.name.split(".")[1]


def refused_jobs(sweep: Path, planned: Sequence[list[str]] | None = None) -> list[RefusedJob]:
    """Return the jobs of a sweep that were refused their folders, in their order.

    Args:
        sweep: The sweep's folder.
        planned: What each job is told, if that is known.
    """
    found = []
    for note in sorted(sweep.glob(f".*.{REFUSED_ITS_FOLDER}"), key=_by_name):
        with if_told():
            found.append(RefusedJob(note, **read_json(note)))
    return [job for job in found if planned is None or job.told in planned]


def _by_name(note: Path) -> list[tuple[int, str]]:
    return counting(note.name)


def overrides_of(folder: Path) -> list[str]:
    """Return what a job was told."""
    told: Any = OmegaConf.load(folder / NOTED / "overrides.yaml")
    return as_told(told)


def command_of(folder: Path) -> str:
    """Return the command of a job, such as ``distill``."""
    return _command_in(folder / NOTED / "hydra.yaml")


def command_of_sweep(folder: Path) -> str:
    """Return the command whose sweep has a folder; nothing where none has, or there is no word of it."""
    with if_told():
        return _command_in(folder / OF_A_SWEEP)
    return ""


def _command_in(noted: Path) -> str:
    return str(OmegaConf.load(noted).hydra.job.config_name)
