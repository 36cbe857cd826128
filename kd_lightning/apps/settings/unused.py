"""Settings by task of tasks that the run has not: a recipe's, which are many, or a misspelt name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    teacher = cfg.get("teacher", {})
    nodes = {
        "system.task_heads": cfg["system"].get("task_heads"),
        "teacher.system.task_heads": teacher.get("system", {}).get("task_heads"),
        "teacher.tasks": teacher.get("tasks"),
    }
    for where, node in nodes.items():
        for name in node if isinstance(node, Mapping) else ():
            if name in cfg["task"]:
                continue
            hint = did_you_mean(str(name), [task for task in cfg["task"] if task not in node])
            given = any(re.search(rf"(?<!\w){re.escape(str(name))}(?!\w)", argument) for argument in arguments)
            if given and hint:
                raise UserError(f"{where}.{name}: {name} is no task of this run{hint}")
            if hint:
                log.warning("%s.%s: %s is no task of this run%s", where, name, name, hint)
            elif given:
                log.info("%s.%s: %s is no task of this run", where, name, name)
