"""Settings that name files and folders, where a number is a name as well: ``run=0`` of a sweep's job."""

from __future__ import annotations

import os
import re
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

OTHERS = re.compile(
    r"(\w+\.)*(path|root|download|vectors_file)|(\w+\.)*files\.\w+|(data\.unlabelled|soft_targets)(\.\w+)*"
)
"""Further settings that are files, folders, or models of the hub."""

PART = r"('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\})|([^,]+)"
"""Of several values: one in quotes or brackets, or another."""


def names_quoted(argv: list[str]) -> list[str]:
    """Return the arguments of a command with quotes around names that Hydra would read otherwise.

    To it ``run=2026_11_30`` is the number 20261130, and ``name=1e3`` is 1000.0.

    Example:
        >>> names_quoted(["kd-evaluate", "run=1_2,12", "seed=1_2"])
        ['kd-evaluate', "run='1_2',12", 'seed=1_2']
    """
    found = []
    for argument in argv:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        if equals and (name in (*NAMES, *OF_HYDRA) or OTHERS.fullmatch(name)):
            argument = f"{key}={_all_quoted(value, name not in NAMES)}"
        found.append(argument)
    return found


def _all_quoted(value: str, as_text: bool) -> str:
    """Return a value, or several, with quotes: see ``_quoted``."""
    front, several, end = re.fullmatch(r"((?:choice|sort|shuffle)\(|)(.*?)(\)|)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    return front + re.sub(PART, lambda part: part[1] or _quoted(part[2], as_text), several) + end


def _quoted(text: str, as_text: bool) -> str:
    """Return a value in quotes if Hydra would read it otherwise, or if no number is one.

    Args:
        text: A value, maybe between blanks.
        as_text: Whether a number is none.
    """
    own = text.strip()
    try:
        value = OverridesParser.create().parse_override(f"x={own}").value()
    except HydraException:  # half of a list; what is none of Hydra's it says itself
        return text
    other = isinstance(value, bool) or (isinstance(value, int | float) and (as_text or str(value) != own))
    return text.replace(own, quoted(own)) if other else text


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
    output, runs = (Path(os.path.realpath(path)) for path in (cfg.paths.output, Path(cfg.paths.output, cfg.name)))
    for name in ("store", "cache"):
        place = Path(os.path.realpath(cfg.paths[name]))
        if place in (runs, *runs.parents) and place not in (output, *output.parents):
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
