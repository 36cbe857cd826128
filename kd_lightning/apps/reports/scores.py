"""All scores of all groups as one table, a row per run, task, metric and role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kd_lightning.apps.reports.collect import Run
from kd_lightning.apps.reports.group import Group
from kd_lightning.apps.reports.statistics import Array
from kd_lightning.apps.results.roles import GROUPS, ROLES
from kd_lightning.apps.results.tables import AVERAGES, GAINS
from kd_lightning.apps.settings.config import Config

COSTS = ("parameters", "latency_ms")
"""Of the model that has a role."""

COLUMNS = ("run", "group", "experiment", "system", "seed", "task", "metric", "main", "role", "value", *COSTS)
GAIN_NAMES = {"student": "gain", "student_fine_tuned": "gain, fine-tuned"}
AVERAGE_ROWS = ("average", *AVERAGES)
"""What is no task, but a mean of several."""

Case = tuple[str, str, str]
"""Task or average, its metric, and a group."""


def long_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Return the scores as they come (in [-1, 1]); ``main`` marks a task's main metric, and averages.

    Averages are those of each run's summary, GLUE's; of a run with one task there is none.
    """
    rows = [row for group in groups for run in group.runs for row in _rows(group, run)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(group: Group, run: Run) -> Iterator[dict[str, Any]]:
    summary = run.summary
    told = {"run": str(run.folder), "group": group.name} | {
        key: summary[key] for key in ("experiment", "system", "seed")
    }
    for task, metric, role, value in _values(summary):
        main = task in AVERAGE_ROWS or metric == summary["tasks"][task]["metric"]
        size = {key: summary[key].get(role.removesuffix("_fine_tuned")) for key in COSTS}  # of an ensemble none
        yield told | {"task": task, "metric": metric, "main": main, "role": role, "value": value} | size


def _values(summary: Config) -> Iterator[tuple[str, str, str, float]]:
    """Yield (task, metric, role, value) of a summary, then its averages."""
    for task, scores in summary["tasks"].items():
        for role in ROLES:
            if scores.get(role) is not None:
                metrics = (scores.get("metrics") or {}).get(role) or {}
                for metric, value in {scores["metric"]: scores[role], **metrics}.items():
                    yield task, metric, role, value
    if len(summary["tasks"]) > 1:
        averages = {f"average {name}": (summary.get("averages") or {}).get(name) for name in GROUPS}
        for name, of_role in {**averages, "average": summary["average"]}.items():
            for role in ROLES:
                if of_role and of_role.get(role) is not None:
                    yield name, "mean", role, of_role[role]


def main_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return the main scores, a row per group, task and seed, a column per role and gain.

    The index is (task, metric, group, seed): tasks in the order in which they come, averages last.
    """
    wide = table[table["main"]].pivot_table(
        index=["task", "metric", "group", "seed"], columns="role", values="value", sort=False, aggfunc="first"
    )
    for student, baseline in GAINS.items():
        if {student, baseline} <= {*wide}:
            wide[GAIN_NAMES[student]] = wide[student] - wide[baseline]
    order = [name for role in ROLES for name in (role, GAIN_NAMES.get(role, "")) if name in wide]
    tasks = dict.fromkeys(wide.index.get_level_values("task"))
    places = {
        task: i for i, task in enumerate(sorted(tasks, key=lambda task: (task in AVERAGE_ROWS, task == "average")))
    }
    groups = {name: i for i, name in enumerate(dict.fromkeys(table["group"]))}
    keys = {"task": places, "group": groups}
    by_place = sorted(wide.index, key=lambda key: (keys["task"][key[0]], key[1], keys["group"][key[2]], key[3]))
    return wide.loc[by_place, order]


def values(scores: pd.DataFrame, case: Case, role: str) -> pd.Series:
    """Return a group's scores in a task by seed, without those missing; none if there are none.

    Args:
        scores: As ``main_scores`` returns them.
        case: The task, or an average, by which metric, and the group.
        role: A role, or a gain.
    """
    if role not in scores:
        return pd.Series(dtype=float)
    task, metric, group = case
    level = scores.index.get_level_values
    rows = (level("task") == task) & (level("metric") == metric) & (level("group") == group)
    return scores.loc[rows, role].dropna().droplevel(["task", "metric", "group"])


def array(found: pd.Series) -> Array:
    """Return the values of a series, in the order of their seeds."""
    return np.asarray(found.sort_index(), dtype=float)


def cases(scores: pd.DataFrame) -> list[Case]:
    """Return (task, metric, group) of all rows of a table of groups, in their order."""
    return list(dict.fromkeys((task, metric, group) for task, metric, group, _ in scores.index))


def averaged(table: pd.DataFrame, group: str, average: str = "average") -> frozenset[tuple[str, str]]:
    """Return the tasks and metrics, not the main ones alone, of which an average of a group is the mean.

    Args:
        table: As ``long_table`` returns it.
        group: Its name.
        average: Of all tasks, of those with a teacher, or of those without.
    """
    found = table[(table["group"] == group) & ~table["task"].isin(AVERAGE_ROWS)]
    if average in AVERAGES:
        taught = found["task"].isin(found.loc[found["role"] == "teacher", "task"])
        found = found[taught if average == AVERAGES[0] else ~taught]
    return frozenset(zip(found["task"], found["metric"], strict=True))
