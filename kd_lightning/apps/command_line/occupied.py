"""A folder that a command is told by name may hold the work of another job, which is not written over."""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.finished import read_summary
from kd_lightning.apps.command_line.jobs import ELSEWHERE, FINISHED, NotOursError, another
from kd_lightning.apps.command_line.notes import NOTED, command_of, model_of, note_told, overrides_of, told_by
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.apps.command_line.told import difference, told_settings
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.settings.config_hash import config_hash, counted_settings
from kd_lightning.apps.settings.early import check_early
from kd_lightning.apps.settings.paths import EVALUATION
from kd_lightning.errors import UserError
from kd_lightning.files import from_here

PARTS = ("fit.json", "heads.safetensors", "model.safetensors", "identity", "manifest.json", "meta.json")
"""Files of the parts of runs, and of what lies in the store and in the cache."""

MADE = (".csv", ".jsonl", ".json")
"""Ends of the names of files that are made of a model."""


def take_folder(config: DictConfig, folder: Path) -> None:
    """Leave word in a job's folder of what it is told, unless that holds the work of another.

    Args:
        config: The job's, as it was composed.
        folder: Its own; who leads has its lock.

    Raises:
        NotOursError: If the folder holds what other settings have made (results, a checkpoint, an evaluation, a
            distillation that began), or another model's predictions, if it is a sweep's, or cannot be written.
    """
    seat = own_seat()
    if seat.started_by == "us":  # the first has looked
        return
    now = HydraConfig.get()
    in_sweep = now.mode is RunMode.MULTIRUN
    try:
        theirs = of_another(folder, str(now.job.config_name), told_by(now), config)
        if not in_sweep and (folder / "multirun.yaml").exists():
            theirs = "a sweep"
        theirs = theirs or _of_another_model(folder, config)
        if seat.leads and not theirs:
            note_told(folder, config)
    except UserError as error:
        raise NotOursError(str(error)) from error
    except OSError as error:
        raise NotOursError(os_error(error)) from error
    if theirs:
        other = another(in_sweep)
        raise NotOursError(f"{from_here(folder)} holds what {theirs} has made: {other}, or take it away")


def holds_work(folder: Path) -> bool:
    """Tell whether there are results in a folder, a checkpoint, or a distillation that began."""
    found = read_summary(folder / "summary.json")
    if found.get("status") in ("running", "interrupted"):
        work = not (folder / ELSEWHERE).exists() and _makes_a_student(folder)
    else:
        work = found.get("status") == FINISHED and "until" not in found
    parts = not found and any((folder / name).exists() for name in PARTS)
    return work or parts or (folder / EVALUATION).exists() or any(folder.glob("checkpoints/*.ckpt"))


def _makes_a_student(folder: Path) -> bool:
    """Tell whether a folder is of a distillation, and not of a first wave, which leaves nothing there."""
    with suppress(Exception):  # there is no word of it, or half of one
        first_wave = any(told.lstrip("+").startswith("until=") for told in overrides_of(folder))
        return command_of(folder) == "distill" and not first_wave
    return False


def of_another(folder: Path, command: str, told: list[str], config: DictConfig) -> str:
    """Return whose work a folder holds, if not that of the same settings; nothing if there is none, or no word of it.

    Args:
        folder: The job's.
        command: Of the one that is to write there.
        told: Its arguments.
        config: Its configuration.

    Raises:
        UserError: If that is wrong.
    """
    if not holds_work(folder) or _is_same(folder, config):
        return ""
    other, how = "", ""
    with suppress(Exception):  # there is no word of it, or half of one
        other = command_of(folder)
        how = difference(told_settings(overrides_of(folder)), told_settings(told))
    if other != command:
        return f"kd-{other}" if other else "another command"
    return f"kd-{other} {how or 'with other settings or data'}"


def _is_same(folder: Path, config: DictConfig) -> bool:
    """Tell whether the work of a folder is that of a configuration.

    By the hash of its resolved settings; where the result is damaged, or older than such hashes, as they were composed.
    """
    found = read_summary(folder / "summary.json") or read_summary(folder / EVALUATION)
    if "config_hash" in found:
        return bool(found["config_hash"] == _hash(config))
    with suppress(Exception):  # there is no word of it, or half of one
        return _composed_settings(OmegaConf.load(folder / NOTED / "config.yaml")) == _composed_settings(config)
    return False


def _of_another_model(folder: Path, config: DictConfig) -> str:
    """Return of which other model a folder holds predictions, or an evaluation; nothing if there is none."""
    with suppress(Exception):  # there is no word of it, or half of one
        theirs = model_of(folder)
        made = (path.suffix in MADE or (path / "manifest.json").exists() for path in folder.iterdir())
        if theirs and any(made) and theirs != os.path.realpath(config.get("run", "")):
            return f"kd-{command_of(folder)} with run={from_here(Path(theirs))}"
    return ""


def _hash(config: DictConfig) -> str:
    """Return the hash of a job's settings, as its summary has it."""
    own = copy.deepcopy(_without_hydra(config))
    check_early(own)
    plain: Any = OmegaConf.to_container(own, resolve=True)
    return config_hash(plain)


def _composed_settings(config: Any) -> dict[str, Any]:
    """Return the settings on which a result depends, as they are composed, wherever data lie."""
    plain: Any = OmegaConf.to_container(_without_hydra(config), resolve=False)
    return counted_settings(plain)


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
