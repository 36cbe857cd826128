"""The settings of a distillation's stages that have no fixed keys: members, who teaches what, selection, fine-tuning.

They are read as they are written, by task and by teacher, so they are checked before anything heavy is imported.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.fields import is_whole

Settings = Mapping[str, Any]

OF_A_FIT = ("encoder", "system", "optimizer", "scheduler", "task_sampler", "batching", "trainer")
"""What a teacher may have of its own."""

WHERE_TUNED = ("teacher.fine_tune", "student.fine_tune")


def members(teacher: Settings) -> dict[str, Settings]:
    """Return name -> own settings of the members that are not null; of one without a name if there are none."""
    named = {str(name): changes for name, changes in (teacher["members"] or {}).items() if changes is not None}
    return named or {"": {}}


def teachers(teacher: Settings) -> dict[str, tuple[str, int]]:
    """Return name -> (member, seed) of the teachers: every member once per seed, one with a seed of its own once."""
    found = {}
    for member, changes in members(teacher).items():
        seeds = [changes["seed"]] if "seed" in changes else teacher["seeds"]
        for seed in seeds:
            found[" ".join([*[member] * bool(member), *[str(seed)] * (len(seeds) > 1)])] = member, seed
    return found


def who_teaches(cfg: Settings) -> dict[str, list[str]]:
    """Return task -> the names of its teachers, of the tasks that have some.

    Raises:
        UserError: If ``teacher.tasks`` is neither all, nor says of each task who teaches it, or if nobody teaches.
    """
    where, asked, tasks, known = "teacher.tasks", cfg["teacher"]["tasks"], list(cfg["task"]), teachers(cfg["teacher"])
    if asked == "all":
        return {name: list(known) for name in tasks}
    if not isinstance(asked, Mapping):
        example = f"{{{tasks[0]}: all, {tasks[-1]}: null}}"
        raise UserError(f"{where} is {asked!r}, expected all, or who teaches each task: {where}={example}")
    if silent := [name for name in tasks if name not in asked]:
        near = next((f"; {name} is no task of this run" for name in asked if name not in tasks), "")
        raise UserError(f"{where} says nothing of {silent[0]}: give it all, null, or a list of teachers{near}")
    found = {name: _of_task(f"{where}.{name}", asked[name], known) for name in tasks if asked[name] is not None}
    if not found:
        raise UserError(f"{where} leaves no task with a teacher, expected one for some of {_listed(tasks)}")
    return found


def _of_task(where: str, asked: Any, known: Mapping[str, tuple[str, int]]) -> list[str]:
    """Return the teachers of a task: all, or those that are named, a member with several seeds as a whole."""
    if asked == "all":
        return list(known)
    if not isinstance(asked, list) or not asked:
        raise UserError(f"{where} is {asked!r}, expected all, null, or a list of teachers")
    wanted = [str(name) for name in asked]
    names = [*known, *(member for member, _ in known.values())]
    for name in wanted:
        if name not in names:
            raise UserError(f"{where} names the teacher {name}, expected some of {_listed(known, name)}")
    return [name for name, (member, _) in known.items() if name in wanted or member in wanted]


def chosen_tasks(where: str, asked: Any, tasks: Sequence[str]) -> list[str]:
    """Return the tasks that a setting names: ``all``, or a list of them.

    Raises:
        UserError: If it names another; ``where`` is the setting.
    """
    if asked == "all":
        return list(tasks)
    if not isinstance(asked, list):
        raise UserError(f"{where} is {asked!r}, expected all, or a list of tasks: {where}=[{','.join(tasks[:2])}]")
    for name in asked:
        if name not in tasks:
            raise UserError(f"{where} names the task {name}, expected some of {_listed(tasks, name)}")
    return [name for name in tasks if name in asked]


def selection(cfg: Settings) -> dict[str, str | None]:
    """Return task -> the metric by which teachers are chosen, None for its main one; nothing if all of them teach.

    Raises:
        UserError: If ``teacher.select.by`` names what is no task of the run.
    """
    select = cfg["teacher"]["select"]
    if not select:
        return {}
    where, by, tasks = "teacher.select.by", select.get("by", "all"), list(cfg["task"])
    if by == "all":
        return dict.fromkeys(tasks)
    if not isinstance(by, list) or not by:
        raise UserError(f"{where} is {by!r}, expected all, or a list of TASK or TASK/METRIC")
    found: dict[str, str | None] = {}
    for entry in by:
        task, _, metric = str(entry).partition("/")
        chosen_tasks(where, [task], tasks)
        known = cfg["task"][task].get("metrics") or ()
        if metric and metric not in known:
            raise UserError(f"{where} names {entry}, expected a metric of {task}: {_listed(known, metric)}")
        found[task] = metric or None
    return found


def tuned_tasks(cfg: Settings, where: str) -> list[str]:
    """Return the tasks on which models are fine-tuned; none if they are not.

    Args:
        cfg: The run's configuration.
        where: ``teacher.fine_tune``, whose tasks have a teacher, or ``student.fine_tune``.

    Raises:
        UserError: If a task has no teacher, or is none of the run's.
    """
    node = _node(cfg, where)
    if node is None:
        return []
    of_teachers = where.startswith("teacher")
    tasks = [name for name in cfg["task"] if name in who_teaches(cfg)] if of_teachers else list(cfg["task"])
    asked = node.get("tasks", "all")
    if isinstance(asked, list) and of_teachers:
        for name in asked:
            if name in cfg["task"] and name not in tasks:
                raise UserError(f"{where}.tasks names {name}, which has no teacher: expected some of {_listed(tasks)}")
    found = chosen_tasks(f"{where}.tasks", asked, tasks)
    if not found:
        raise UserError(f"{where}.tasks is [], expected all or some tasks; {where}=null trains no further")
    return found


def with_settings(base: Any, changes: Any) -> Any:
    """Return settings with some of them changed, at any depth, as the command line changes them."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    return {**base, **{name: with_settings(base.get(name), value) for name, value in changes.items()}}


def check_stages(cfg: Settings) -> None:
    """Check the settings of ``kd-distill`` that have no fixed keys.

    Raises:
        UserError: If one names what there is not, or is of the wrong kind.
    """
    for role in ("teacher", "student"):
        if cfg[role]["scope"] not in ("single", "multi"):
            expected = "single (one model per task) or multi (one of all tasks)"
            raise UserError(f"{role}.scope is {cfg[role]['scope']!r}, expected {expected}")
    _check_members(cfg, cfg["teacher"]["members"])
    taught = who_teaches(cfg)
    _check_idle(cfg, taught)
    for where in ("system", "teacher.system"):
        _check_heads(f"{where}.task_heads", _node(cfg, where).get("task_heads"))
    for where in WHERE_TUNED:
        node = _node(cfg, where)
        if node is not None:
            _check_changes(cfg, where, node, ("tasks", "heads", *OF_A_FIT[1:]))
            if node.get("heads", "kept") not in ("kept", "new"):
                raise UserError(f"{where}.heads is '{node['heads']}', expected kept (they go on) or new")
            tuned_tasks(cfg, where)
    _check_selection(cfg, taught)
    _check_ensemble(cfg)


def _check_members(cfg: Settings, named: Any) -> None:
    if named is not None and not isinstance(named, Mapping):
        raise UserError(f"teacher.members is {named!r}, expected {{NAME: {{encoder: {{dropout: 0.2}}}}, ...}}")
    for name, changes in (named or {}).items():
        where = f"teacher.members.{name}"
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise UserError(f"{where}: expected a name of letters, digits, _ and -")
        if changes is not None:
            _check_changes(cfg, where, changes, (*OF_A_FIT, "seed"))
            if "seed" in changes and not is_whole(changes["seed"], 0):
                raise UserError(f"{where}.seed is {changes['seed']!r}, expected a whole number of at least 0")


def _check_idle(cfg: Settings, taught: Mapping[str, Sequence[str]]) -> None:
    """Check that every teacher has something to teach."""
    for name in teachers(cfg["teacher"]):
        if not any(name in names for names in taught.values()):
            raise UserError(f"teacher.tasks gives the teacher {name} no task: name it there, or leave it out")


def _check_heads(where: str, heads: Any) -> None:
    if not isinstance(heads, Mapping | None):
        raise UserError(f"{where} is {heads!r}, expected settings by task: {{TASK: {{dropout: 0.3}}}}")
    for name, head in (heads or {}).items():
        if not isinstance(head, Mapping | None):
            raise UserError(f"{where}.{name} is {head!r}, expected settings, as {{dropout: 0.3}}, or null")


def _check_selection(cfg: Settings, taught: Mapping[str, Sequence[str]]) -> None:
    own, select, count = cfg["teacher"], cfg["teacher"]["select"], len(teachers(cfg["teacher"]))
    if select is None:
        return
    _check_keys("teacher.select", select, ("best", "by"))
    if own["scope"] != "multi":
        raise UserError("teacher.select chooses among models of all tasks: add teacher.scope=multi")
    if not is_whole(select.get("best"), 1) or select["best"] > count:
        raise UserError(f"teacher.select.best is {select.get('best')}, expected 1 to {count}, the number of teachers")
    if select["best"] < count and any(len(names) < count for names in taught.values()):
        raise UserError("teacher.tasks names teachers that teacher.select may not choose: expected all for each task")
    selection(cfg)


def _check_ensemble(cfg: Settings) -> None:
    own, names = cfg["teacher"], list(teachers(cfg["teacher"]))
    _check_keys("teacher.ensemble", own["ensemble"], ("mean", "weights"))
    mean, weights, where = own["ensemble"]["mean"], own["ensemble"]["weights"], "teacher.ensemble.weights"
    if mean not in ("probabilities", "logits"):
        raise UserError(f"teacher.ensemble.mean is {mean!r}, expected probabilities or logits")
    if not isinstance(weights, Mapping):
        if weights not in ("equal", "score"):
            raise UserError(f"{where} is {weights!r}, expected equal, score, or {{TEACHER: WEIGHT}}")
        return
    told = {str(name): weight for name, weight in weights.items()}
    if set(told) != set(names):
        raise UserError(f"{where} has {', '.join(told)}, expected one for each teacher: {_listed(names)}")
    for name, weight in told.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UserError(f"{where}.{name} is {weight!r}, expected a number above 0")
    if own["select"] and own["select"]["best"] < len(names):
        raise UserError(f"{where} names teachers that teacher.select may not choose: use equal or score")


def _check_changes(cfg: Settings, where: str, changes: Any, known: Sequence[str]) -> None:
    """Check that settings are some of a fit's."""
    if not isinstance(changes, Mapping):
        raise UserError(f"{where} is {changes!r}, expected settings, as {{trainer: {{max_epochs: 3}}}}")
    _check_keys(where, changes, known)
    for group in OF_A_FIT:
        if group in changes and not isinstance(changes[group], Mapping):
            example = "{path: OWNER/MODEL}" if group == "encoder" else "{NAME: VALUE}"
            raise UserError(f"{where}.{group} is {changes[group]!r}, expected its settings, as {example}")
    of_a_fit = [name for name in cfg["batching"] if name != "unlabelled"]  # it needs a teacher
    _check_keys(f"{where}.batching", changes.get("batching", {}), of_a_fit)
    _check_heads(f"{where}.system.task_heads", changes.get("system", {}).get("task_heads"))


def _check_keys(where: str, node: Any, known: Iterable[str]) -> None:
    if not isinstance(node, Mapping):
        raise UserError(f"{where} is {node!r}, expected settings: {', '.join(known)}")
    for name in node:
        if name not in known:
            raise UserError(f"{where} has {name}, expected some of {_listed(known, str(name))}")


def _listed(known: Iterable[str], word: str = "") -> str:
    """Return names in a row, with the one nearest to a word."""
    names = list(known)
    return ", ".join(names) + did_you_mean(word, names)


def _node(cfg: Settings, where: str) -> Any:
    node: Any = cfg
    for name in where.split("."):
        node = node[name]
    return node
