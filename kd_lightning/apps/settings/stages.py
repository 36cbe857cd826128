"""The settings of a distillation's stages that have no fixed keys: members, who teaches what, selection, fine-tuning.

They are read as they are written, by task and by teacher; ``stage_checks`` finds what is wrong with them.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_lightning.errors import UserError, did_you_mean

Settings = Mapping[str, Any]

OF_A_FIT = ("encoder", "system", "optimizer", "scheduler", "task_sampler", "batching", "trainer")
"""What a teacher may have of its own."""

WHERE_TUNED = ("teacher.fine_tune", "student.fine_tune")


def member_settings(teacher: Settings) -> dict[str, Settings]:
    """Return name -> own settings of the members that are not null; of one without a name if none is given."""
    given = {str(name): changes for name, changes in (teacher["members"] or {}).items()}
    return {name: changes for name, changes in given.items() if changes is not None} if given else {"": {}}


def named_teachers(teacher: Settings) -> dict[str, tuple[str, int]]:
    """Return name -> (member, seed) of the teachers: every member once per seed, one with a seed of its own once.

    A member of given scores is there once, too; its seed means nothing.
    """
    found = {}
    for member, changes in member_settings(teacher).items():
        seeds = [changes.get("seed", 0)] if "seed" in changes or "scores" in changes else teacher["seeds"]
        for seed in seeds:
            found[" ".join([*[member] * bool(member), *[str(seed)] * (len(seeds) > 1)])] = member, seed
    return found


def score_files(teacher: Settings) -> dict[str, dict[tuple[str, str], str]]:
    """Return name -> (task, split) -> file of the members whose scores are given; a file alone is of ``train``."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for name, changes in member_settings(teacher).items():
        for task, files in changes.get("scores", {}).items():
            for split, file in ({"train": files} if isinstance(files, str) else files).items():
                found.setdefault(name, {})[task, split] = file
    return found


def who_teaches(cfg: Settings) -> dict[str, list[str]]:
    """Return task -> the names of its teachers, of the tasks that have some.

    Raises:
        UserError: If ``teacher.tasks`` is neither all, nor says of each task who teaches it, or if nobody teaches.
    """
    where, asked, tasks, known = (
        "teacher.tasks",
        cfg["teacher"]["tasks"],
        list(cfg["task"]),
        named_teachers(cfg["teacher"]),
    )
    given = {name: {task for task, _ in files} for name, files in score_files(cfg["teacher"]).items()}
    able = {task: {n: of for n, of in known.items() if task in given.get(of[0], {task})} for task in tasks}
    if asked == "all":
        if (idle := next((task for task in tasks if not able[task]), None)) is not None:
            raise UserError(
                f"{where} is all, but there are no scores of {idle}: give some, or say who teaches: {where}.{idle}=null"
            )
        return {task: list(names) for task, names in able.items()}
    if not isinstance(asked, Mapping):
        example = f"{{{tasks[0]}: all, {tasks[-1]}: null}}"
        raise UserError(f"{where} is {asked!r}, expected all, or who teaches each task: {where}={example}")
    if silent := [name for name in tasks if name not in asked]:
        unknown = [str(name) for name in asked if name not in tasks]
        near = difflib.get_close_matches(silent[0], unknown, n=1) or unknown[: len(unknown) == 1]
        hint = "".join(f"; {name} is no task of this run" for name in near)
        raise UserError(f"{where} says nothing of {silent[0]}: give it all, null, or a list of teachers{hint}")
    found = {name: _of_task(f"{where}.{name}", asked[name], able[name]) for name in tasks if asked[name] is not None}
    if not found:
        raise UserError(f"{where} leaves no task with a teacher, expected one for some of {listed(tasks)}")
    return found


def teachers_heard(cfg: Settings) -> dict[str, int]:
    """Return task -> how many teachers a student with a head for each of them has: all that teach, or one, their mean.

    Args:
        cfg: The run's configuration.
    """
    apart = cfg["teacher"]["ensemble"]["mean"] is None and not cfg["student"]["per_teacher"]
    return {task: count if apart else 1 for task, count in _teaching(cfg).items()}


def students(cfg: Settings) -> int:
    """Return how many students a task has: one, or one for each of its teachers."""
    return max(_teaching(cfg).values()) if cfg["student"]["per_teacher"] else 1


def _teaching(cfg: Settings) -> dict[str, int]:
    """Return task -> number of the teachers that are chosen for it."""
    select = cfg["teacher"]["select"]
    return {task: len(names[: select["best"] if select else None]) for task, names in who_teaches(cfg).items()}


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
            raise UserError(f"{where} names the teacher {name}, expected some of {listed(known, name)}")
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
            raise UserError(f"{where} names the task {name}, expected some of {listed(tasks, name)}")
    return [name for name in tasks if name in asked]


def selection(cfg: Settings) -> list[tuple[str, str | None]]:
    """Return the tasks and metrics by which teachers are chosen, None for a main one; nothing if all of them teach.

    Raises:
        UserError: If ``teacher.select.by`` names what is no task of the run, or the same twice.
    """
    select = cfg["teacher"]["select"]
    if not select:
        return []
    where, by, tasks = "teacher.select.by", select.get("by", "all"), list(cfg["task"])
    if by == "all":
        return [(task, None) for task in tasks]
    if not isinstance(by, list) or not by:
        raise UserError(f"{where} is {by!r}, expected all, or a list of TASK or TASK/METRIC")
    found: list[tuple[str, str | None]] = []
    for entry in by:
        task, _, metric = str(entry).partition("/")
        chosen_tasks(where, [task], tasks)
        known = cfg["task"][task].get("metrics") or ()
        if metric and metric not in known:
            raise UserError(f"{where} names {entry}, expected a metric of {task}: {listed(known, metric)}")
        if (task, metric or None) in found:
            raise UserError(f"{where} names {entry} twice, expected each once: all count the same")
        found.append((task, metric or None))
    return found


def tuned_tasks(cfg: Settings, where: str) -> list[str]:
    """Return the tasks on which models are fine-tuned; none if they are not.

    Args:
        cfg: The run's configuration.
        where: ``teacher.fine_tune``, whose tasks have a teacher, or ``student.fine_tune``.

    Raises:
        UserError: If a task has no teacher, or is none of the run's.
    """
    node = node_at(cfg, where)
    if node is None:
        return []
    of_teachers = where.startswith("teacher")
    tasks = [name for name in cfg["task"] if name in who_teaches(cfg)] if of_teachers else list(cfg["task"])
    asked = node.get("tasks", "all")
    if isinstance(asked, list) and of_teachers:
        for name in asked:
            if name in cfg["task"] and name not in tasks:
                raise UserError(f"{where}.tasks names {name}, which has no teacher: expected some of {listed(tasks)}")
    found = chosen_tasks(f"{where}.tasks", asked, tasks)
    if not found:
        raise UserError(f"{where}.tasks is [], expected all or some tasks; {where}=null trains no further")
    return found


def with_settings(base: Any, changes: Any) -> Any:
    """Return settings with some of them changed, at any depth, as the command line changes them."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    return {**base, **{name: with_settings(base.get(name), value) for name, value in changes.items()}}


def listed(known: Iterable[str], word: str = "") -> str:
    """Return names in a row, with the one nearest to a word."""
    names = list(known)
    return ", ".join(names) + did_you_mean(word, names)


def node_at(cfg: Settings, where: str) -> Any:
    """Return the settings under a dotted name."""
    node: Any = cfg
    for name in where.split("."):
        node = node[name]
    return node
