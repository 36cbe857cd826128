"""A folder that a command is told by name may hold the work of another job, which is not written over."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.arguments import told_by
from kd_lightning.apps.command_line.finished import read_summary
from kd_lightning.apps.command_line.jobs import ELSEWHERE, FINISHED, NotOursError, choose_another, refusing
from kd_lightning.apps.command_line.notes import (
    NOTED,
    OF_A_SWEEP,
    command_of,
    if_told,
    model_of,
    model_told,
    overrides_of,
)
from kd_lightning.apps.command_line.told import difference, told_settings
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.settings.config_hash import config_hash, counted_settings
from kd_lightning.apps.settings.early import resolve
from kd_lightning.apps.settings.paths import EVALUATION, make_absolute
from kd_lightning.files import from_here

PARTS = {
    *("fit.json", "heads.safetensors", "model.safetensors", "last.ckpt", "overrides.yaml"),
    *("identity", "manifest.json", "meta.json"),
}
"""Files of the parts of runs, and of what lies in the store and in the cache."""

MADE = (".csv", ".jsonl", ".json")
"""Ends of the names of files that are made of a model."""


def check_is_ours(config: DictConfig, folder: Path) -> None:
    """Check that a job's folder does not hold the work of another.

    Args:
        config: The job's, as it was composed.
        folder: Its own; who leads has its lock.

    Raises:
        NotOursError: If the folder holds what other settings have made (results, a checkpoint, an evaluation, a
            distillation that began), or another model's predictions, if it is a sweep's, or if a setting is wrong.
    """
    if own_seat().started_by == "us":  # the first has looked
        return
    now = HydraConfig.get()
    in_sweep = now.mode is RunMode.MULTIRUN
    with refusing():
        theirs = of_another(folder, str(now.job.config_name), told_by(now), config)
        if not in_sweep and (folder / OF_A_SWEEP).exists():
            theirs = "a sweep"
        if theirs := theirs or _of_another_model(folder, config):
            raise NotOursError(occupied_by(theirs, from_here(folder), in_sweep))


def occupied_by(theirs: str, folder: Path, in_sweep: bool) -> str:
    """Return that a folder holds what another has made, and what one does about it."""
    return f"{folder} holds what {theirs} has made: {choose_another(in_sweep)}, or take it away"


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
    with if_told():
        first_wave = any(told.lstrip("+").startswith("until=") for told in overrides_of(folder))
        return command_of(folder) == "distill" and not first_wave
    return False


def of_another(folder: Path, command: str, told: list[str], config: DictConfig) -> str:
    """Return whose work a folder holds, if not that of the same settings; nothing if there is none.

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
    with if_told():
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
    with if_told():
        return composed_settings(OmegaConf.load(folder / NOTED / "config.yaml")) == composed_settings(config)
    return False


def _of_another_model(folder: Path, config: DictConfig) -> str:
    """Return of which other model a folder holds predictions, or an evaluation; nothing if there is none."""
    with if_told():
        theirs = model_of(folder)
        made = (path.suffix in MADE or (path / "manifest.json").exists() for path in folder.iterdir())
        if theirs and any(made) and theirs != model_told(config):
            return f"kd-{command_of(folder)} with run={from_here(Path(theirs))}"
    return ""


def _hash(config: DictConfig) -> str:
    """Return the hash of a job's settings, as its summary has it."""
    own = copy.deepcopy(_without_hydra(config))
    resolve(own)
    make_absolute(own)
    plain: Any = OmegaConf.to_container(own, resolve=True)
    return config_hash(plain)


def composed_settings(config: Any) -> dict[str, Any]:
    """Return the settings on which a result depends, as they are composed, wherever data lie."""
    plain: Any = OmegaConf.to_container(_without_hydra(config), resolve=False)
    return counted_settings(plain)


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
