"""What is noted in the folder of a job: what it was told, and by that, which jobs are of a sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.files import files_named, last_change, read_json, write_json, write_text

MODEL = "model.txt"
"""Beside it, of a command that reads a trained model: the folder of that."""

REFUSED_ITS_FOLDER = "refused"
"""Ends the name of the file, in a sweep's folder, that tells of a job whose own folder is another's."""

NOTED = ".hydra"
"""The folder, in a job's, that says what it was told."""


def begun_jobs(folder: Path, name: str = "", planned: list[list[str]] | None = None, began: float = 0.0) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, none of an earlier sweep into the same folder.

    Args:
        folder: The sweep's.
        name: The experiment's.
        planned: What each job is told, if that is known: jobs of an earlier command, which waited in a queue, are told
            otherwise.
        began: When it began, if Hydra has left no file of it.
    """
    written = folder / "multirun.yaml"  # what Hydra's own sweeper writes first
    since = written.stat().st_mtime if written.exists() else began
    found = job_folders(folder, name, since, planned)
    return [job for job in found if planned is None or is_planned(job, planned)]


def job_folders(sweep: Path, name: str, since: float, planned: Sequence[list[str]] | None = None) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, in their order.

    Args:
        sweep: The sweep's folder. If it is ``OUTPUT/NAME/SWEEP``, jobs of other experiments lie under their own names.
        name: The experiment's.
        since: When the sweep began; jobs of an earlier one into the same folder do not count.
        planned: What each job is told, by which those of other experiments are known, if that is known.
    """
    found = _told_in(sweep, since)
    for folder in _beside(sweep, name):
        if planned is not None:
            found += [job for job in _told_in(folder, since) if is_planned(job, planned)]
        elif not (folder / "multirun.yaml").exists():  # else it is of another sweep
            found += _told_in(folder, since)
    return sorted(found, key=lambda folder: [counting(part) for part in (folder.name, *folder.parts)])


def _beside(sweep: Path, name: str) -> list[Path]:
    """Return where jobs of other experiments lie: see ``job_folders``."""
    if not name or sweep.parent.name != name:
        return []
    return [folder for folder in sweep.parent.parent.glob(f"*/{sweep.name}") if folder != sweep]


def _told_in(folder: Path, since: float) -> list[Path]:
    """Return the jobs below a folder of which there is word, if it is not older."""
    told = (path for path in files_named("overrides.yaml", folder) if path.parent.name == NOTED)
    return [path.parents[1] for path in told if last_change(path) >= since]


def is_planned(job: Path, planned: Sequence[list[str]]) -> bool:
    """Tell whether a job was told what one of a sweep is; it may vanish while one looks.

    Args:
        job: Its folder.
        planned: What each of the sweep is told.
    """
    with suppress(Exception):  # there is no word of it, or half of one
        return overrides_of(job) in planned
    return False


def counting(name: str) -> list[tuple[int, str]]:
    """Return a key by which ten comes after nine, and letters are as in a dictionary.

    Example:
        >>> sorted(["10", "9", "tmkd", "bam_large", "bam2"], key=counting)
        ['9', '10', 'bam2', 'bam_large', 'tmkd']
    """
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def note_told(folder: Path, config: DictConfig) -> None:
    """Leave word in a job's folder of its settings and of what it was told, as Hydra does.

    Args:
        folder: The job's.
        config: Its settings, as they were composed.
    """
    hydra: Any = HydraConfig.instance().cfg
    (folder / NOTED).mkdir(exist_ok=True)
    for name, node in (("config", config), ("hydra", hydra), ("overrides", hydra.hydra.overrides.task)):
        write_text(folder / NOTED / f"{name}.yaml", OmegaConf.to_yaml(node))
    if "run" in config:
        write_text(folder / NOTED / MODEL, os.path.realpath(config.run))


def model_of(folder: Path) -> str:
    """Return the folder of the model that a job was told to read, as it was found then; nothing of one that trains."""
    try:
        return (folder / NOTED / MODEL).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def told_by(hydra: Any) -> list[str]:
    """Return what a job or a command was told, as it was told, from its settings of Hydra."""
    told: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return list(told)


def note_refused(error: Exception) -> None:
    """Note in the folder of a sweep that this job of it was refused its own: the launching process may be another."""
    now: Any = HydraConfig.get()
    with suppress(OSError):
        write_json(
            Path(now.sweep.dir, f".{now.job.num}.{REFUSED_ITS_FOLDER}"), {"told": told_by(now), "error": str(error)}
        )


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


def refused_jobs(sweep: Path, name: str = "", planned: Sequence[list[str]] | None = None) -> list[RefusedJob]:
    """Return the jobs of a sweep that were refused their folders, in their order.

    Args:
        sweep: The sweep's folder.
        name: The experiment's; jobs of others note it beside: see ``job_folders``.
        planned: What each job is told, if that is known.
    """
    notes = [note for folder in (sweep, *_beside(sweep, name)) for note in folder.glob(f".*.{REFUSED_ITS_FOLDER}")]
    found = [RefusedJob(note, **read_json(note)) for note in sorted(notes, key=lambda note: counting(note.name))]
    return [job for job in found if planned is None or job.told in planned]


def overrides_of(folder: Path) -> list[str]:
    """Return what a job was told."""
    told: Any = OmegaConf.to_container(OmegaConf.load(folder / NOTED / "overrides.yaml"), resolve=False)
    return [str(override) for override in told]


def command_of(folder: Path) -> str:
    """Return the command of a job, ``distill`` or ``train``."""
    return str(OmegaConf.load(folder / NOTED / "hydra.yaml").hydra.job.config_name)
