"""The tables of a report: medians, spreads, tests between student and baseline and between groups, sizes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kd_lightning.apps.reports.cells import Table, p_value, points, task_name, told_once, without_one_group
from kd_lightning.apps.reports.group import Group
from kd_lightning.apps.reports.scores import AVERAGE_ROWS, GAIN_NAMES, Case, array, averaged, cases, values
from kd_lightning.apps.reports.statistics import Array, bootstrap, holm, interval, mann_whitney, sign_flip, spread
from kd_lightning.apps.results.roles import MEASURED
from kd_lightning.apps.results.tables import GAINS, LABELS, gain, megabytes, percent

MANY = 8
"""Groups; of more, pairs are tested on their averages alone."""


def main_table(scores: pd.DataFrame) -> Table:
    """Return medians and deviations of all roles and gains, and whether the student is another than its baseline."""
    rows: list[list[str]] = []
    tests = _student_tests(scores)
    raised = _by_family([task for task, *_ in tests], [sign_flip(array(gains)) for gains in tests.values()])
    corrected = dict(zip(tests, raised, strict=True))
    for case in cases(scores):
        task, metric, group = case
        found = {name: values(scores, case, name) for name in map(str, scores)}
        count = max(len(each) for each in found.values())
        cells = [_median(each, GAIN_NAMES.values(), name) for name, each in found.items()]
        p = [p_value(corrected.get((*case, "student")))] * bool(tests)
        rows.append([task_name(task, metric), group, str(count), *cells, *p])
    header = [
        "task (metric)",
        "group",
        "seeds",
        *(LABELS.get(name, name) for name in map(str, scores)),
        *["p"] * bool(tests),
    ]
    notes = ["Medians over seeds, in percent, ± standard deviation; gains are differences of the same seed, in points."]
    if tests:
        notes.append(
            "p: student against baseline, sign-flip over seeds, after Holm's correction (averages by themselves)."
        )
        notes += _least(max(map(len, tests.values())))
    return without_one_group(scores, Table("Scores", header, told_once(rows), 2, notes))


def _median(found: pd.Series, gains: Any, name: str) -> str:
    if found.empty:
        return "-"
    of = spread(found)
    shown = gain(of["median"], 0.0) if name in gains else percent(of["median"])
    return shown if len(found) < 2 else f"{shown} ±{100 * of['std']:.1f}"


def spread_table(scores: pd.DataFrame) -> Table:
    """Return number, median, lowest, highest and deviation of each role and gain."""
    rows = []
    for case in cases(scores):
        task, metric, group = case
        for name in map(str, scores):
            found = values(scores, case, name)
            if len(found):
                of, form = spread(found), points if name in GAIN_NAMES.values() else percent
                shown = [form(of[key]) for key in ("median", "min", "max")]
                deviation = "-" if pd.isna(of["std"]) else f"{100 * of['std']:.2f}"
                rows.append(
                    [task_name(task, metric), group, LABELS.get(name, name), f"{of['count']:.0f}", *shown, deviation]
                )
    header = ["task (metric)", "group", "of", "seeds", "median", "min", "max", "sd"]
    return without_one_group(scores, Table("Spread over seeds", header, rows, 3))


def _student_tests(scores: pd.DataFrame) -> dict[tuple[str, str, str, str], pd.Series]:
    """Return (task, metric, group, student) -> gains by seed, where there are some."""
    found = {}
    for case in cases(scores):
        for student in GAINS:
            gains = values(scores, case, GAIN_NAMES[student])
            if len(gains):
                found[(*case, student)] = gains
    return found


def student_table(scores: pd.DataFrame) -> Table | None:
    """Return the tests of each student against its baseline; None without a baseline."""
    rows, tests = [], []
    for (task, metric, group, student), gains in _student_tests(scores).items():
        one, other = (array(values(scores, (task, metric, group), role)) for role in (student, GAINS[student]))
        differences = array(gains)
        tests.append((sign_flip(differences), mann_whitney(one, other), bootstrap(differences)))
        mean = gain(float(differences.mean()), 0.0)
        rows.append([task_name(task, metric), group, LABELS[student], str(len(gains)), mean, _interval(differences)])
    if not rows:
        return None
    header = ["task (metric)", "group", "who", "seeds", "mean gain", "95 %", *TESTS]
    if len({row[2] for row in rows}) == 1:
        header, rows = [*header[:2], *header[3:]], [[*row[:2], *row[3:]] for row in rows]
    rows = [[*row, *cells] for row, cells in zip(rows, _corrected([row[0] for row in rows], tests), strict=True)]
    words = header.index("seeds")
    return without_one_group(scores, Table("Student against baseline", header, told_once(rows), words, TEST_NOTES))


TESTS = ("sign-flip", "Mann-Whitney", "bootstrap")
TEST_NOTES = (
    "p of no difference, in brackets after Holm's correction over the column (averages by themselves); - where "
    "seeds are too few for any.",
    "Sign-flip: permutations of paired seeds. Mann-Whitney U: unpaired seeds, exact. Bootstrap: the mean over seeds "
    "drawn again, of at least 6. Intervals of 95 % are Student's t over seeds.",
    "They tell of other seeds of the student on the same evaluation rows, with teachers as these runs had them.",
)


def pairs_table(scores: pd.DataFrame, table: pd.DataFrame) -> Table | None:
    """Return the tests of the students of each two groups, in what both were evaluated on; None of one group.

    Args:
        scores: The main scores and gains.
        table: All scores, which say of what averages are the means.
    """
    rows, tests = [], []
    groups = list(dict.fromkeys(scores.index.get_level_values("group")))
    few = len(groups) <= MANY
    for task, metric in dict.fromkeys((task, metric) for task, metric, _ in cases(scores)):
        if not few and task not in AVERAGE_ROWS and len({task for task, _, _ in cases(scores)}) > 1:
            continue
        found = {group: _handed_over(scores, (task, metric, group)) for group in groups}
        of_group = {group: averaged(table, group, task) for group in groups} if task in AVERAGE_ROWS else {}
        for one, other in itertools.combinations([group for group in groups if len(found[group])], 2):
            if task in AVERAGE_ROWS and of_group[one] != of_group[other]:
                continue  # averages of other tasks, or of other metrics
            a, b = found[one], found[other]
            common = array((a - b).dropna())
            tests.append((sign_flip(common), mann_whitney(array(a), array(b)), bootstrap(array(a), array(b))))
            medians = gain(float(np.median(a)), float(np.median(b)))
            seeds = f"{len(a)}, {len(b)} ({len(common)})"
            rows.append([task_name(task, metric), f"{one} - {other}", seeds, medians])
    if not rows:
        return None
    header = ["task (metric)", "groups", "seeds (common)", "difference", *TESTS]
    rows = [[*row, *cells] for row, cells in zip(rows, _corrected([row[0] for row in rows], tests), strict=True)]
    notes = [
        "Of the medians of students, fine-tuned where they were; sign-flip over the seeds that both have.",
        TEST_NOTES[0],
    ]
    if not few:
        notes.append(f"Of more than {MANY} groups, averages alone are tested.")
    return Table("Groups against each other", header, told_once(rows), 2, notes)


def _handed_over(scores: pd.DataFrame, case: Case) -> pd.Series:
    tuned = values(scores, case, "student_fine_tuned")
    return tuned if len(tuned) else values(scores, case, "student")


def size_table(groups: Sequence[Group]) -> Table:
    """Return what the models cost: weights, size, and the median over seeds of the latency of one row."""
    rows = []
    for group in groups:
        parameters = group.runs[0].summary["parameters"]
        for role in MEASURED:
            if (count := parameters.get(role)) is not None:
                bare = parameters.get(f"{role}_without_embeddings")
                times = [run.summary["latency_ms"].get(role) for run in group.runs]
                known = spread(time for time in times if time is not None)["median"]
                cells = [f"{count / 1e6:.2f} M", "-" if bare is None else f"{bare / 1e6:.2f} M", megabytes(count)]
                rows.append([group.name, role, *cells, "-" if pd.isna(known) else f"{known:.1f} ms"])
    header = ["group", "model", "parameters", "without embeddings", "size", "latency, 1 row"]
    return Table("What they cost", header, rows, 2)


def _by_family(tasks: Sequence[str], found: Sequence[float | None]) -> list[float | None]:
    """Return p after Holm's correction: those of tasks are one family, those of averages over tasks another."""
    averages = [task in AVERAGE_ROWS for task in tasks]
    of_averages = holm([p if is_average else None for p, is_average in zip(found, averages, strict=True)])
    of_tasks = holm([None if is_average else p for p, is_average in zip(found, averages, strict=True)])
    return [
        one if is_average else other for one, other, is_average in zip(of_averages, of_tasks, averages, strict=True)
    ]


def _corrected(tasks: Sequence[str], tests: Sequence[Sequence[float | None]]) -> list[list[str]]:
    """Return the cells of several tests by row: the p, and that after the correction."""
    columns = [list(zip(column, _by_family(tasks, column), strict=True)) for column in zip(*tests, strict=True)]
    cells = [
        [p_value(p) if p is None else f"{p_value(p)} ({p_value(raised)})" for p, raised in column] for column in columns
    ]
    return [list(row) for row in zip(*cells, strict=True)]


def _interval(differences: Array) -> str:
    found = interval(differences)
    return "-" if found is None else " to ".join(points(end) for end in found)


def _least(seeds: int) -> list[str]:
    """Return a note on what so few seeds can tell; many can tell all that is shown."""
    if seeds < 2:
        return ["One seed tells nothing of chance: there is no p."]
    least = 2 / 2**seeds
    return [f"{seeds} seeds cannot give less than {p_value(least)} before the correction."] if least >= 0.001 else []
