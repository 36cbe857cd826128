"""The settings of the distillation that comes first: those of the run, changed by ``pretrain``."""

from __future__ import annotations

import copy
from typing import Any

from kd_lightning.apps.settings.stages import Settings, member_settings, with_settings


def first_stage(cfg: Settings) -> dict[str, Any]:
    """Return the configuration of the distillation that comes first: that of the run with the changes of ``pretrain``.

    Tasks and who teaches what are its own, so is an option of ``data`` as a whole (settings of it change the run's);
    it has one student of all tasks, or one for each teacher.

    Args:
        cfg: The run's configuration.
    """
    changes = cfg["pretrain"]
    alone = {
        "pretrain": None,
        "baseline": False,
        "student": {"scope": "multi", "per_teacher": cfg["student"]["per_teacher"], "fine_tune": None},
        "teacher": {**cfg["teacher"], "tasks": "all", "fine_tune": None},
    }
    found: dict[str, Any] = with_settings({**cfg, **alone}, changes)
    found["teacher"] = {**found["teacher"], "members": _members_of_first(cfg, changes, found["teacher"]["members"])}
    whole = ["task", *["data"] * ("_target_" in changes.get("data", {}))]
    return {**found, **{name: copy.deepcopy(changes[name]) for name in whole if name in changes}}


def _members_of_first(cfg: Settings, changes: Settings, every: Settings | None) -> dict[str, Any]:
    """Return the members of the first stage: those of scores teach the tasks that they have scores of, or nobody.

    Args:
        cfg: The run's configuration.
        changes: The settings of its first stage.
        every: The members with these changes.
    """
    found = dict(every or {})
    tasks, own = changes.get("task", cfg["task"]), changes.get("teacher", {})
    for name, member in member_settings(cfg["teacher"]).items():
        if "scores" in member and name not in own.get("members", {}):
            known = {task: files for task, files in member["scores"].items() if task in tasks}
            found[name] = {**member, "scores": known} if known else None
    if "scores" in own:  # of teacher=scores_file: those of its member
        found["given"] = {"scores": copy.deepcopy(own["scores"])}
    return found
