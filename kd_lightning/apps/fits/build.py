"""From a resolved configuration to built objects; what a constructor refuses becomes one line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from hydra.utils import get_class, get_object, instantiate
from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.stages import with_settings
from kd_lightning.encoders import Encoder
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import Task


def build(node: Any, where: str, /, **values: Any) -> Any:
    """Return the object that a config node describes.

    Args:
        node: Its settings.
        where: Where they stand in the configuration, for errors.
        **values: What is no setting.

    Raises:
        UserError: If it has no ``_target_``, or its constructor refuses the values, in its own words.
    """
    if not node or "_target_" not in node:
        raise UserError(f"{where}: found the settings {node or 'none'} without a _target_, expected an option of it")
    return refused_by(where, node, instantiate, node, **values, _convert_="all")


def build_tasks(cfg: Config) -> list[Task]:
    """Return the tasks of a configuration, in order.

    Raises:
        UserError: If there is none, one is not described as a task, or a key is not its task's name.
    """
    nodes = cfg["task"]
    if not isinstance(nodes, dict) or not nodes:
        raise UserError(f"task is {nodes!r}, expected at least one: task=[rte,mrpc]")
    if "_target_" in nodes:
        raise UserError("a file of task/ begins with _target_, expected the task's name first and its fields below it")
    for key, node in nodes.items():
        if not isinstance(node, dict) or "_target_" not in node:
            raise UserError(f"task {key} has no _target_, expected `_target_: kd_lightning.tasks.Task` below `{key}:`")
        if node["_target_"] == "kd_lightning.tasks.Task":
            _check_fields(key, node)
    tasks = [build(node, f"task.{key}") for key, node in nodes.items()]
    for key, task in zip(nodes, tasks, strict=True):
        if key != task.name:
            raise UserError(f"task {key}: its name is '{task.name}', expected '{key}', the key that it stands under")
    return tasks


def _check_fields(key: str, node: Config) -> None:
    known = [field.name for field in fields(Task)]
    for name in node:
        if name not in known and not name.startswith("_"):
            hint = did_you_mean(name, known) or f", expected some of {', '.join(known)}"
            raise UserError(f"task {key}: there is no field '{name}'{hint}")


def system_class(cfg: Config) -> type[NLUSystem]:
    """Return the class of the configuration's system."""
    found: type[NLUSystem] = refused_by("system._target_", {}, get_class, cfg["system"]["_target_"])
    return found


def learns_from_teachers(cfg: Config) -> bool:
    """Tell whether the configuration's system needs soft targets."""
    return system_class(cfg).learns_from_teachers


def with_teacher_heads(cfg: Config, teachers: Mapping[str, int]) -> Config:
    """Return the configuration of a fit that says how many teachers each task has, if its system has heads for them.

    Args:
        cfg: Of the fit.
        teachers: Task -> number of its teachers.
    """
    if not system_class(cfg).has_teacher_heads:
        return cfg
    own = {task: count for task, count in teachers.items() if task in cfg["task"]}
    return {**cfg, "system": {**cfg["system"], "teachers": own}}


def with_task_heads(node: Config, tasks: Sequence[str]) -> Config:
    """Return a system's settings with whole heads under ``task_heads``: there they are what differs from ``head``.

    A head with a ``_target_`` of its own keeps those settings of ``head`` that it has, too.

    Args:
        node: The settings of a system.
        tasks: Of the fit; heads of others are left out.
    """
    if "_target_" in (node.get("head") or {}):
        node = node | {"head": {"_partial_": True, **node["head"]}}
    node = own_task_heads(node, tasks)
    if not node.get("task_heads"):
        return node
    return node | {"task_heads": {name: _kept(node["head"], head) | head for name, head in node["task_heads"].items()}}


def with_changes(cfg: Config, changes: Mapping[str, Any]) -> Config:
    """Return a fit's settings with some changed, at any depth; another head keeps those settings that it has, too."""
    found: Config = with_settings(cfg, changes)
    own = (changes.get("system") or {}).get("head")
    if own:
        head = cfg["system"].get("head") or {}
        found["system"] = found["system"] | {"head": (_kept(head, own) if head else {}) | own}
    return found


def _kept(head: Config, own: Config) -> Config:
    """Return the settings of a head that another one in its place keeps."""
    if own.get("_target_", head["_target_"]) == head["_target_"]:
        return head
    try:
        parameters = inspect.signature(get_object(own["_target_"])).parameters
    except (ImportError, TypeError, ValueError):  # told where the head is built
        return head
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return head
    return {name: value for name, value in head.items() if name.startswith("_") or name in parameters}


def own_task_heads(node: Config, tasks: Sequence[str]) -> Config:
    """Return a system's settings without the ``task_heads`` of other tasks, and without those that are null."""
    if "task_heads" not in node:
        return node
    heads = node["task_heads"] or {}
    return node | {"task_heads": {n: head for n, head in heads.items() if head is not None and n in tasks} or None}


def build_system(cfg: Config, tasks: Sequence[Task], encoder: Encoder) -> NLUSystem:
    """Return the system of a configuration around an encoder, with new heads."""
    node = with_task_heads(cfg["system"], [task.name for task in tasks])
    system: NLUSystem = refused_by(
        "system",
        node,
        build(node, "system"),
        encoder=encoder,
        tasks=tasks,
        optimizer=build(cfg["optimizer"], "optimizer"),
        scheduler=build(cfg["scheduler"], "scheduler"),
        seed=cfg["seed"],
        log_every_n_steps=cfg["trainer"]["log_every_n_steps"],
    )
    return system


def build_encoder(spec: Any, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """Return the encoder of a recipe, with its pre-trained or with new weights."""
    settings = asdict(spec) if is_dataclass(spec) and not isinstance(spec, type) else {}
    encoder: Encoder = refused_by("encoder", settings, spec.build, tokenizer)
    return encoder
