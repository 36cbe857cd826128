"""What Hydra has noted of a run: what it was told, which command it was, and where that was called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_lightning.apps.command_line.notes import command_of, overrides_of
from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError, first_line


def read_yaml(file: Path) -> Config:
    """Return a YAML file's content, not resolved.

    Raises:
        UserError: If it is not there, or holds no mapping; one line that names it.
    """
    if not file.is_file():
        raise UserError(f"{file} is not there, expected beside summary.json")
    found = _loaded(file)
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no settings")
    return {str(name): value for name, value in found.items()}


def _loaded(file: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:  # of YAML's parser, of the encoding
        raise UserError(f"{file} cannot be read ({first_line(error)})") from error


def runtime_of(folder: Path) -> Config:
    """Return what Hydra notes of how the command of a folder was run; nothing if it has noted nothing.

    Raises:
        UserError: If the file is damaged.
    """
    file = folder / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return {}
    told: Any = read_yaml(file).get("hydra")
    found = told.get("runtime") if isinstance(told, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{file} has no hydra.runtime, expected what Hydra notes of a run")
    return found


def began_in(folder: Path) -> Path:
    """Return the working directory of the command that wrote a folder, from which its paths are told.

    Raises:
        UserError: If what Hydra notes of it cannot be read.
    """
    return cwd_of(runtime_of(folder))


def cwd_of(runtime: Config) -> Path:
    """Return the working directory that Hydra has noted, this one if it has none."""
    return Path(runtime["cwd"]) if runtime.get("cwd") else Path.cwd()


def arguments_of(folder: Path) -> frozenset[str] | None:
    """Return what the job of a folder was told on the command line; None if Hydra has left no list of it."""
    try:
        return frozenset(overrides_of(folder))
    except Exception:  # there is none, or half of one
        return None


def known_command(folder: Path) -> str | None:
    """Return the command of the job of a folder, ``distill`` or ``train``; None if that is not known."""
    try:
        return command_of(folder)
    except Exception:  # there is no word of it, or half of one
        return None
