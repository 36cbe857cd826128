"""Paths in the settings, which stay what they were in any working directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.errors import UserError
from kd_lightning.files import from_here

FIT = "fit"
"""Gives the lock its name, in the folder of a run, of the command that trains there."""

EVALUATION = "evaluation.json"
"""Holds what ``kd-evaluate`` has found."""

PLACES = (
    "data.download",
    "data.unlabelled",
    "encoder.words.vectors_file",
    "teacher.encoder.words.vectors_file",
)
"""Where a path may stand, or paths by task."""


def check_folder(name: str, path: Any) -> None:
    """Check that a setting is a place where a folder is, or can be made.

    Args:
        name: The setting's.
        path: Its value.

    Raises:
        UserError: If it is no path, or if there is a file, or on the way to it.
    """
    if not isinstance(path, str) or not path:
        raise UserError(f"{name} is {'null' if path is None else repr(path)}, expected a folder")
    own = Path(path).absolute()
    there = next(place for place in (own, *own.parents) if os.path.exists(place))
    if not there.is_dir():
        raise UserError(f"{name} is {path}, expected a folder: {'it' if there == own else from_here(there)} is a file")


def make_absolute(cfg: DictConfig) -> None:
    """Make the paths of data and vectors absolute, so that a run's configuration holds in any working directory.

    Args:
        cfg: The run's configuration, resolved.

    Raises:
        UserError: If ``data.root`` is no folder.
    """
    _make_absolute(cfg)
    if isinstance(cfg.get("pretrain"), DictConfig):
        _make_absolute(cfg.pretrain, "pretrain.")


def _make_absolute(cfg: DictConfig, where: str = "") -> None:
    root = OmegaConf.select(cfg, "data.root")
    if root is not None:
        cfg.data.root = _absolute(root)
        if not Path(cfg.data.root).is_dir():
            raise UserError(
                f"{where}data.root is '{root}', expected a folder with TASK/SPLIT.parquet ({cfg.data.root})"
            )
    for place in PLACES:
        if isinstance(path := OmegaConf.select(cfg, place), str):
            OmegaConf.update(cfg, place, _absolute(path))
    for files in _files(cfg):
        for name, path in files.items():
            if isinstance(path, str):
                files[name] = _absolute(path)


def _files(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield what has paths by split or by task."""
    given = [member.get("scores") for member in _nodes_of(OmegaConf.select(cfg, "teacher.members"))]
    given.append(OmegaConf.select(cfg, "teacher.scores"))
    by_split = [node for scores in given for node in _nodes_of(scores)]
    named = [task.get("files") for task in _nodes_of(cfg.get("task"))]
    for node in (OmegaConf.select(cfg, "data.unlabelled"), *named, *given, *by_split):
        if isinstance(node, DictConfig):
            yield node


def _nodes_of(node: Any) -> list[DictConfig]:
    """Return the groups of settings in one; none of what is something else, which others say."""
    return [one for one in node.values() if isinstance(one, DictConfig)] if isinstance(node, DictConfig) else []


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
