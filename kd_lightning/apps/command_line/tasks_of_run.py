"""``task=NAME`` of a run's own task, which no option of the group describes: the run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.command_line.shipped_conf import options_of


def tasks_of_run(argv: list[str]) -> list[str]:
    """Return the arguments with a run's own tasks as ``+task.NAME={}``: what is not said of them is the run's.

    Args:
        argv: Of a command, with ``run=FOLDER`` and ``task=NAME`` or ``task=[NAME,NAME]``, or without.
    """
    told = {name: value for name, equals, value in (a.partition("=") for a in argv) if equals}
    asked = [name.strip() for name in told.get("task", "").strip("[]").split(",") if name.strip()]
    own = _tasks(Path(told["run"])) if asked and told.get("run") else set()
    if not own:
        return argv
    known = set(options_of(argv, "task"))
    named = [name for name in asked if name in own and name not in known]
    if not named:
        return argv
    rest = [name for name in asked if name not in named]
    spelled = [f"+task.{name}={{}}" for name in named] + [f"task=[{','.join(rest)}]"] * bool(rest)
    place = next(i for i, argument in enumerate(argv) if argument.startswith("task="))
    return [*argv[:place], *spelled, *argv[place + 1 :]]


def _tasks(run: Path) -> set[str]:
    """Return the names of a run's tasks; none if there is no such run, which is told elsewhere."""
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=False)
        return {str(name) for name in found["task"]}
    except (OSError, OmegaConfBaseException, ValueError, KeyError, TypeError):
        return set()
