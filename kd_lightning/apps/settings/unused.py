"""Settings that are given and that nothing reads: of tasks that the run has not, of teachers that have their own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd_lightning.apps.arguments import name_of
from kd_lightning.errors import UserError, did_you_mean

log = logging.getLogger(__name__)


def check_unused(cfg: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Check that settings by task are of tasks of the run, where they might be meant for one of them.

    Args:
        cfg: The run's configuration.
        arguments: Of the command: what they name is told in any case, what a recipe names is not.

    Raises:
        UserError: If an argument names a task that is none, and nearly one of the run's.
    """
    for where, node in _by_task(cfg):
        for name in map(str, node):
            if name in cfg["task"]:
                continue
            hint = did_you_mean(name, [task for task in cfg["task"] if task not in node])
            given = any(_names(argument, where, name) for argument in arguments)
            if given and hint:
                raise UserError(f"{where}.{name}: {name} is no task of this run{hint}")
            if hint:
                log.warning("%s.%s: %s is no task of this run%s", where, name, name, hint)
            elif given:
                log.info("%s.%s: %s is no task of this run", where, name, name)


def check_launched(arguments: Sequence[str]) -> None:
    """Check that a command which is no sweep is not told of a launcher or a sweeper.

    Args:
        arguments: Those for Hydra.

    Raises:
        UserError: If it is: the command would train here, where people log in.
    """
    for argument in arguments:
        if re.match(r"[+~]*hydra[./](launcher|sweeper)\b", argument):
            raise UserError(f"{argument} is for sweeps: give -m, else the command runs here and now")


def check_own_folder(arguments: Sequence[str], in_sweep: bool) -> None:
    """Check that a sweep is not told the folder of a single run alone, nor a single run that of a sweep.

    Args:
        arguments: Those for Hydra.
        in_sweep: Which of both the command is.

    Raises:
        UserError: If it is: its results would lie elsewhere.
    """
    own, other = ("hydra.sweep.dir", "hydra.run.") if in_sweep else ("hydra.run.dir", "hydra.sweep.")
    names = [name_of(argument) for argument in arguments]
    found = next((argument for argument, name in zip(arguments, names, strict=True) if name.startswith(other)), "")
    if found and own not in names:
        whose, one = ("single runs", "a sweep") if in_sweep else ("sweeps (-m)", "a single run")
        raise UserError(f"{found} is for {whose}: the folder of {one} is {own}")


def warn_of_overridden(cfg: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Say so if the command gives all teachers what each of them has of its own.

    Args:
        cfg: The run's configuration.
        arguments: Of the command.
    """
    teacher = cfg.get("teacher") or {}
    members = {name: node for name, node in (teacher.get("members") or {}).items() if node is not None}
    for argument in arguments:
        first, *path = name_of(argument).split(".")
        own = [_value(node, path) for node in members.values()] if first == "teacher" and path else []
        if own and None not in own and _value(teacher, path) not in own:  # equal where it refers to it
            setting, name = ".".join(path), next(iter(members))
            log.warning(
                "%s changes nothing: each of teacher.members has its own, as teacher.members.%s.%s",
                argument, name, setting,
            )  # fmt: skip


def _value(node: Any, path: Sequence[str]) -> Any:
    """Return a single value at a path of names, None if there is none."""
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return None if isinstance(node, Mapping) else node


def _by_task(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the places of settings by task, and these."""
    teacher, student = cfg.get("teacher") or {}, cfg.get("student") or {}
    nodes = {"": cfg, "teacher.": teacher}
    nodes |= {f"teacher.members.{name}.": node for name, node in (teacher.get("members") or {}).items()}
    nodes |= {"teacher.fine_tune.": teacher.get("fine_tune"), "student.fine_tune.": student.get("fine_tune")}
    for where, node in nodes.items():
        heads = ((node or {}).get("system") or {}).get("task_heads")
        if isinstance(heads, Mapping):
            yield f"{where}system.task_heads", heads
    if isinstance(teacher.get("tasks"), Mapping):
        yield "teacher.tasks", teacher["tasks"]


def _names(argument: str, where: str, name: str) -> bool:
    """Tell whether an argument names a task among the settings of a place: in its key, or in a mapping."""
    key, _, value = argument.lstrip("+~").partition("=")
    if key.startswith(f"{where}."):
        return key.removeprefix(f"{where}.").partition(".")[0] == name
    return where.startswith(key) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])\s*:", value) is not None
