"""A table of a report, and what stands in its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from kd_lightning.apps.reports.scores import AVERAGE_ROWS
from kd_lightning.apps.results.tables import Row, gain


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Args:
        title: What it shows.
        header: Names of the columns.
        rows: Cells.
        words: How many of the columns, the first, hold words.
        notes: What must be known to read it, a sentence each.
    """

    title: str
    header: Row
    rows: Sequence[Row]
    words: int = 1
    notes: Sequence[str] = field(default=())


def p_value(p: float | None) -> str:
    """Return a p with three digits, or a dash."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def points(value: float) -> str:
    """Return a difference in percentage points, with its sign."""
    return gain(value, 0.0)


def task_name(task: str, metric: str) -> str:
    """Return what a row of a task, or of an average, is called."""
    return task if task in AVERAGE_ROWS else f"{task} ({metric})"


def told_once(rows: Sequence[Row]) -> list[Row]:
    """Return rows of several groups with the task in the first of them alone."""
    return [["" if i and rows[i - 1][0] == row[0] else row[0], *row[1:]] for i, row in enumerate(rows)]


def without_one_group(scores: pd.DataFrame, table: Table) -> Table:
    """Return the table without its column of groups, if the report has one group; it is named above."""
    if len(set(scores.index.get_level_values("group"))) > 1:
        return table
    rows: list[Row] = [[row[0], *row[2:]] for row in table.rows]
    return Table(table.title, [table.header[0], *table.header[2:]], rows, table.words - 1, table.notes)
