"""What can be wrong with the settings of a distillation's stages: names that are not there, values of another kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_lightning.apps.settings.stages import (
    OF_A_FIT,
    WHERE_TUNED,
    Settings,
    listed,
    named_teachers,
    node_at,
    selection,
    tuned_tasks,
    who_teaches,
)
from kd_lightning.errors import UserError
from kd_lightning.fields import is_whole


def check_stages(cfg: Settings) -> None:
    """Check the settings of ``kd-distill`` that have no fixed keys.

    Raises:
        UserError: If one names what there is not, or is of the wrong kind.
    """
    if cfg.get("until") not in (None, "soft_targets"):
        raise UserError(f"until is {cfg['until']!r}, expected soft_targets (no student is trained) or null")
    for role in ("teacher", "student"):
        if cfg[role]["scope"] not in ("single", "multi"):
            expected = "single (one model per task) or multi (one of all tasks)"
            raise UserError(f"{role}.scope is {cfg[role]['scope']!r}, expected {expected}")
    _check_groups(cfg["teacher"])
    _check_members(cfg, cfg["teacher"]["members"])
    taught = who_teaches(cfg)
    _check_idle(cfg, taught)
    for where in ("system", "teacher.system"):
        _check_heads(f"{where}.task_heads", node_at(cfg, where).get("task_heads"))
    for where in WHERE_TUNED:
        node = node_at(cfg, where)
        if node is not None:
            check_changes(cfg, where, node, ("tasks", "heads", *OF_A_FIT[1:]))
            if node.get("heads", "kept") not in ("kept", "new"):
                raise UserError(f"{where}.heads is '{node['heads']}', expected kept (they go on) or new")
            tuned_tasks(cfg, where)
    _check_selection(cfg, taught)
    _check_ensemble(cfg)
    if cfg["student"]["per_teacher"]:
        _check_per_teacher(cfg, taught)


def _check_groups(teacher: Settings) -> None:
    """Check that what a teacher has of its own are settings, not names of options."""
    for name in OF_A_FIT:
        node = teacher.get(name, {})
        if not isinstance(node, Mapping):
            chosen = f"; an option is chosen by {name}@teacher.{name}={node}" if name != "batching" else ""
            raise UserError(f"teacher.{name} is {node!r}, expected its settings{chosen}")


def _check_per_teacher(cfg: Settings, taught: Mapping[str, Sequence[str]]) -> None:
    known = named_teachers(cfg["teacher"])
    if cfg["student"]["fine_tune"] is not None:
        raise UserError(
            "student.per_teacher trains several students, student.fine_tune goes on from one: set it to null"
        )
    if cfg["teacher"]["ensemble"]["weights"] != "equal":
        raise UserError("student.per_teacher: its students count the same, expected teacher.ensemble.weights=equal")
    for task, names in taught.items():
        if len(names) < len(known):
            raise UserError(f"teacher.tasks.{task}: student.per_teacher needs all teachers, expected all (or null)")


def _check_members(cfg: Settings, named: Any) -> None:
    if named is not None and not isinstance(named, Mapping):
        raise UserError(f"teacher.members is {named!r}, expected {{NAME: {{encoder: {{dropout: 0.2}}}}, ...}}")
    for name, changes in (named or {}).items():
        where = f"teacher.members.{name}"
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise UserError(f"{where}: expected a name of letters, digits, _ and -")
        if isinstance(changes, Mapping) and "scores" in changes:
            _check_scores(cfg, where, changes)
        elif changes is not None:
            check_changes(cfg, where, changes, (*OF_A_FIT, "seed"))
            if "seed" in changes and not is_whole(changes["seed"], 0):
                raise UserError(f"{where}.seed is {changes['seed']!r}, expected a whole number of at least 0")
    if named and all(changes is None for changes in named.values()):
        raise UserError(f"teacher.members leaves out all of {listed(named)}: keep one, or name another")


def _check_scores(cfg: Settings, where: str, changes: Mapping[str, Any]) -> None:
    """Check the settings of a member whose scores are given."""
    check_keys(where, changes, ("scores",))
    where = "teacher.scores" if changes["scores"] == cfg["teacher"].get("scores") else f"{where}.scores"
    if not isinstance(changes["scores"], Mapping) or not changes["scores"]:
        raise UserError(f"{where} is {changes['scores']!r}, expected {{TASK: FILE}}, or {{TASK: {{SPLIT: FILE}}}}")
    for task, files in changes["scores"].items():
        if task not in cfg["task"]:
            raise UserError(f"{where} names the task {task}, expected some of {listed(cfg['task'], str(task))}")
        each = list(files.values()) if isinstance(files, Mapping) else [files]
        if not each or not all(isinstance(file, str) for file in each):
            raise UserError(f"{where}.{task} is {files!r}, expected a file, or {{SPLIT: FILE}}")


def _check_idle(cfg: Settings, taught: Mapping[str, Sequence[str]]) -> None:
    """Check that every teacher has something to teach."""
    for name in named_teachers(cfg["teacher"]):
        if not any(name in names for names in taught.values()):
            raise UserError(f"teacher.tasks gives the teacher {name} no task: name it there, or leave it out")


def _check_heads(where: str, heads: Any) -> None:
    if not isinstance(heads, Mapping | None):
        raise UserError(f"{where} is {heads!r}, expected settings by task: {{TASK: {{dropout: 0.3}}}}")
    for name, head in (heads or {}).items():
        if not isinstance(head, Mapping | None):
            raise UserError(f"{where}.{name} is {head!r}, expected settings, as {{dropout: 0.3}}, or null")


def _check_selection(cfg: Settings, taught: Mapping[str, Sequence[str]]) -> None:
    own, select, count = cfg["teacher"], cfg["teacher"]["select"], len(named_teachers(cfg["teacher"]))
    if select is None:
        return
    check_keys("teacher.select", select, ("best", "by"))
    if own["scope"] != "multi" and select.get("by", "all") != "all":
        raise UserError(
            "teacher.select.by is for models of all tasks (teacher.scope=multi); those of a single task are chosen by "
            "its main metric: leave it out"
        )
    if not is_whole(select.get("best"), 1) or select["best"] > count:
        raise UserError(f"teacher.select.best is {select.get('best')}, expected 1 to {count}, the number of teachers")
    if select["best"] < count and own["scope"] == "multi" and any(len(names) < count for names in taught.values()):
        raise UserError("teacher.tasks names teachers that teacher.select may not choose: expected all for each task")
    selection(cfg)


def _check_ensemble(cfg: Settings) -> None:
    own, names = cfg["teacher"], list(named_teachers(cfg["teacher"]))
    check_keys("teacher.ensemble", own["ensemble"], ("mean", "weights"))
    mean, weights, where = own["ensemble"]["mean"], own["ensemble"]["weights"], "teacher.ensemble.weights"
    if mean not in ("probabilities", "logits", None):
        heads = "null, by which each teacher has a head of its own (system=tmkd)"
        raise UserError(f"teacher.ensemble.mean is {mean!r}, expected probabilities, logits, or {heads}")
    if mean is None and weights != "equal":
        raise UserError(
            f"{where} is {weights!r}, but teacher.ensemble.mean is null: what is not averaged has no weights"
        )
    if not isinstance(weights, Mapping):
        if weights not in ("equal", "score"):
            raise UserError(f"{where} is {weights!r}, expected equal, score, or {{TEACHER: WEIGHT}}")
        return
    told = {str(name): weight for name, weight in weights.items()}
    if names == [""]:
        several = "several are teacher.members, or teacher.seeds, each with a weight"
        raise UserError(f"{where} has {', '.join(told)}, there is one teacher: {several}")
    if set(told) != set(names):
        raise UserError(f"{where} has {', '.join(told)}, expected one for each teacher: {listed(names)}")
    for name, weight in told.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UserError(f"{where}.{name} is {weight!r}, expected a number above 0")
    if own["select"] and own["select"]["best"] < len(names):
        raise UserError(f"{where} names teachers that teacher.select may not choose: use equal or score")


def check_changes(cfg: Settings, where: str, changes: Any, known: Sequence[str]) -> None:
    """Check that settings are some of a fit's.

    Args:
        cfg: The run's configuration.
        where: The settings' place in it.
        changes: The settings.
        known: The groups that they may be of.

    Raises:
        UserError: If there are others, or of another kind.
    """
    if not isinstance(changes, Mapping):
        raise UserError(f"{where} is {changes!r}, expected settings, as {{trainer: {{max_epochs: 3}}}}")
    check_keys(where, changes, known)
    for group in OF_A_FIT:
        if group in changes and not isinstance(changes[group], Mapping):
            own = (cfg["teacher"] if where.startswith("teacher.") else cfg).get(group) or {}
            example = "{path: OWNER/MODEL}" if "path" in own else "{NAME: VALUE}"
            raise UserError(f"{where}.{group} is {changes[group]!r}, expected its settings, as {example}")
    of_a_fit = [name for name in cfg["batching"] if name != "unlabelled" or where == "pretrain"]  # it needs a teacher
    check_keys(f"{where}.batching", changes.get("batching", {}), of_a_fit)
    _check_heads(f"{where}.system.task_heads", changes.get("system", {}).get("task_heads"))


def check_keys(where: str, node: Any, known: Iterable[str]) -> None:
    """Check that settings are some of those that are known.

    Raises:
        UserError: If there are others, or of another kind.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"{where} is {node!r}, expected settings: {', '.join(known)}")
    for name in node:
        if name not in known:
            raise UserError(f"{where} has {name}, expected some of {listed(known, str(name))}")
