"""Settings that name files and folders, where a number is a name as well: ``run=0`` of a sweep's job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.arguments import quoted
from kd_lightning.errors import UserError

NAMES = ("name", "run", "output", "file", "ckpt_path", "paths.output", "paths.store", "paths.cache", "data.root")
"""Ours."""

OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
"""Hydra's, which it makes texts of itself."""


def names_quoted(argv: list[str]) -> list[str]:
    """Return the arguments of a command with quotes around names that Hydra would read otherwise.

    To it ``run=2026_11_30`` is the number 20261130, and ``name=1e3`` is 1000.0.

    Example:
        >>> names_quoted(["kd-evaluate", "run=1_2,12", "seed=1_2"])
        ['kd-evaluate', "run='1_2',12", 'seed=1_2']
    """
    found = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        is_name = equals and name.lstrip("+") in (*NAMES, *OF_HYDRA)
        parts = (quoted(part) if _is_read_otherwise(part) else part for part in value.split(","))
        found.append(f"{name}={','.join(parts)}" if is_name else argument)
    return found


def _is_read_otherwise(text: str) -> bool:
    """Tell whether Hydra takes a text for a value that is written otherwise."""
    try:
        value = OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException:  # half of a list; what is none of Hydra's it says itself
        return False
    return isinstance(value, bool | int | float) and str(value) != text


def as_name(value: Any) -> str:
    """Return a setting that names a file or a folder, as text; nothing where it names none."""
    return "" if value is None else str(value)


def numbers_to_names(cfg: DictConfig) -> None:
    """Make texts of the numbers that name files and folders.

    Args:
        cfg: A configuration; what refers to one of them in it finds the text.

    Raises:
        UserError: If such a setting is neither a text nor a number.
    """
    for name in NAMES:
        value = OmegaConf.select(cfg, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            OmegaConf.update(cfg, name, str(value))
        elif value is not None and not isinstance(value, str):
            raise UserError(f"{name} is {value}, expected the name of a file or a folder")


def check_apart(cfg: DictConfig) -> None:
    """Check that the runs of a name do not lie where trained models and tokens do, which may be deleted.

    Args:
        cfg: A configuration, resolved.

    Raises:
        UserError: If they do.
    """
    runs = Path(os.path.realpath(Path(cfg.paths.output, cfg.name)))
    for name in ("store", "cache"):
        place = Path(os.path.realpath(cfg.paths[name]))
        if place in (runs, *runs.parents):
            raise UserError(f"name is {cfg.name}: runs would lie in {cfg.paths[name]}, which is paths.{name}")


def check_name(name: Any) -> None:
    """Check the name of a run: its folder is called so, and its log.

    Raises:
        UserError: If no folder can be.
    """
    is_text = isinstance(name, str | int | float) and not isinstance(name, bool)
    if not is_text or name in ("", ".", "..") or Path(str(name)).name != str(name):
        shown = "null" if name is None else repr(name)
        raise UserError(f"name is {shown}, expected the name of a folder (no path): runs lie in it")
