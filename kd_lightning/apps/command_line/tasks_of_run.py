"""``task=NAME`` of a task that the run has: no option of the group describes it, the run does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

NAMES = re.compile(r"['\"]?([\w-]+)['\"]?|\[\s*([\w-]+(?:\s*,\s*[\w-]+)*)\s*\]")
"""One name, or several in brackets; what else Hydra takes for ``task=`` is left to it."""


def tasks_of_run(argv: list[str]) -> list[str]:
    """Return the arguments of a command with ``run=FOLDER`` with the run's tasks as ``+task.NAME={}``.

    What is not said of such a task is the run's; what is said of it (``task.NAME.files.test=FILE``) may be new. With
    ``--config-dir`` the tasks are those of the folder.

    Args:
        argv: Of a command.
    """
    told = {name: value for name, equals, value in (a.partition("=") for a in argv) if equals}
    own_options = {"--config-dir", "-cd", "hydra.searchpath"} & {*argv, *told}
    found = NAMES.fullmatch(told.get("task", ""))
    if found is None or "run" not in told or own_options:
        return argv
    asked = re.split(r"\s*,\s*", found[1] or found[2])
    known = _tasks(Path(told["run"].strip("'\"")))
    named = [name for name in asked if name in known]
    rest = [f"task=[{','.join(name for name in asked if name not in known)}]"] * (len(named) < len(asked))
    spelled = []
    for argument in argv:
        if named and argument.startswith("task="):
            spelled += [*(f"+task.{name}={{}}" for name in named), *rest]
        elif argument.startswith(tuple(f"task.{name}." for name in named)):
            spelled.append(f"++{argument}")
        else:
            spelled.append(argument)
    return spelled


def _tasks(run: Path) -> set[str]:
    """Return the names of a run's tasks; none if its configuration cannot be read, which is told elsewhere."""
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=False)
        return {str(name) for name in found["task"]}
    except Exception:  # of files, of YAML, of another content
        return set()
