"""The table of tests over rows: students and baselines, and students of two groups, that predicted the same rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from kd_lightning.apps.reports.cells import Table, p_value, points, told_once
from kd_lightning.apps.reports.paired_rows import FLIPS, Metric, over_rows, sign_flips
from kd_lightning.apps.reports.predictions import Predictions
from kd_lightning.apps.reports.statistics import holm

BySeed = Mapping[int, pd.DataFrame]
NOTES = (
    f"From the tables of kd-predict, joined by row id. p: sign-flip over rows ({FLIPS:,} draws), of the mean over the "
    "seeds that both have; in brackets after Holm's correction over the table. Intervals of 95 %: rows drawn again.",
    "They tell of other rows with these very models, and nothing of other seeds or teachers. Of Pearson's correlation, "
    "which is no mean over rows, the interval alone.",
)


def rows_table(found: Predictions, groups: Sequence[str]) -> Table | None:
    """Return the tests over rows; None where no two models predicted the same rows.

    Args:
        found: Who predicted what.
        groups: Their names, in the order of the report.
    """
    rows, tests = [], []
    for split, models in found.items():
        for name, one, other in _pairs(models, groups):
            if (told := _compared(one, other)) is not None:
                metric, cells, p = told
                rows.append([f"{split.task} ({split.name}, {metric})", name, *cells])
                tests.append(p)
    if not rows:
        return None
    corrected = zip(tests, holm(tests), strict=True)
    cells = ["-" if p is None else f"{p_value(p)} ({p_value(raised)})" for p, raised in corrected]
    header = ["task (split, metric)", "compared", "seeds", "rows", "difference", "95 %", "sign-flip"]
    rows = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    return Table("Row by row", header, told_once(rows), 2, NOTES)


def _pairs(models: Mapping[tuple[str, str], BySeed], groups: Sequence[str]) -> Iterator[tuple[str, BySeed, BySeed]]:
    """Yield name and both sides of each comparison: students and their baselines, then students of two groups."""
    for group in groups:
        if {(group, "student"), (group, "baseline")} <= models.keys():
            name = "student - baseline" if len(groups) == 1 else f"{group}: student - baseline"
            yield name, models[group, "student"], models[group, "baseline"]
    for one, other in itertools.combinations([group for group in groups if (group, "student") in models], 2):
        yield f"{one} - {other}", models[one, "student"], models[other, "student"]


def _compared(one: BySeed, other: BySeed) -> tuple[str, list[str], float | None] | None:
    """Return the metric, the cells of a row, and its p; None if no seed of both has the same rows and labels."""
    tables = [(one[seed], other[seed]) for seed in sorted({*one} & {*other})]
    first = tables[0][0] if tables else pd.DataFrame()
    same = [pair for pair in tables if all(_same_rows(table, first) for table in pair)]
    if not same:
        return None
    a, b = (
        np.stack([table["prediction"].loc[first.index].to_numpy() for table in side])
        for side in zip(*same, strict=True)
    )
    labels = first["label"].to_numpy()
    metric = Metric("pearson", labels, None)
    if labels.dtype == object:  # names of classes
        a, b = (np.asarray(side == labels, dtype=float) for side in (a, b))
        metric = Metric("accuracy", np.ones(len(labels)), None)
    units = metric.units(a), metric.units(b)
    rng = np.random.default_rng(0)
    low, high = over_rows(metric, *units, rng)
    p = sign_flips(*units, rng) if metric.is_mean else None
    mean = float(np.mean(metric.score(units[0]) - metric.score(units[1])))
    shown = [points(value / 100) for value in (mean, low, high)]
    return metric.name, [str(len(same)), f"{len(labels):,}", shown[0], " to ".join(shown[1:])], p


def _same_rows(table: pd.DataFrame, first: pd.DataFrame) -> bool:
    return len(table) == len(first) and table["label"].reindex(first.index).equals(first["label"])
