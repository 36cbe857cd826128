"""The configurations that ship with the package: where they are, which settings and options they have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.shorthands import is_swept


def config_dir() -> str:
    """Return where the shipped configs live: in the installed package, or beside it in a bare checkout."""
    if find_spec("kd_lightning.conf") is not None:
        return "pkg://kd_lightning.conf"
    return str(Path(__file__).parents[3] / "conf")


def setting_names(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the config groups of the command ``kd-NAME``, and its settings under the options that it was given.

    Hydra's are among them.
    """
    with _composing():
        loader = GlobalHydra.instance().config_loader()
        groups = [*loader.list_groups(""), *(f"hydra/{group}" for group in loader.list_groups("hydra"))]
        options = [a for a in arguments if re.split("[@=]", a)[0] in groups and not is_swept(a.partition("=")[2])]
        try:
            cfg = hydra.compose(name, overrides=[*_own_folder(arguments), *options], return_hydra_config=True)
        except HydraException:
            cfg = hydra.compose(name, return_hydra_config=True)
        return [*groups, *_names(cfg)]


def options_with(name: str, setting: str) -> list[str]:
    """Return which options of its group have a setting of the command ``kd-NAME``, as ``GROUP=OPTION``."""
    group = setting.partition(".")[0]
    found: list[str] = []
    with _composing():
        loader = GlobalHydra.instance().config_loader()
        for option in loader.get_group_options(group) if group in loader.list_groups("") else ():
            with suppress(HydraException):
                if setting in _names(hydra.compose(name, overrides=[f"{group}={option}"])):
                    found.append(f"{group}={option}")
    return found


def options_of(name: str, arguments: Sequence[str], group: str) -> list[str]:
    """Return the options of a group of the command ``kd-NAME``, with those of folders of one's own."""
    with _composing():
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, config_name=name, overrides=_own_folder(arguments))


@contextmanager
def _composing() -> Iterator[None]:
    """Let Hydra compose the shipped configurations."""
    GlobalHydra.instance().clear()
    where = config_dir()
    start = hydra.initialize_config_module if where.startswith("pkg://") else hydra.initialize_config_dir
    with start(where.removeprefix("pkg://"), version_base="1.3"):
        yield


def _own_folder(arguments: Sequence[str]) -> list[str]:
    """Return what lets Hydra find the options of ``--config-dir FOLDER``."""
    for i, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = value or "".join(arguments[i + 1 : i + 2])
            return [f"hydra.searchpath=['file://{Path(folder).absolute()}']"]
    return [argument for argument in arguments if argument.startswith("hydra.searchpath=")]


def _names(cfg: DictConfig) -> list[str]:
    """Return the dotted names of all settings, those of groups too."""

    def inside(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield prefix + str(key)
            yield from inside(value, f"{prefix}{key}.")

    return list(inside(OmegaConf.to_container(cfg, resolve=False), ""))
