"""Students compared row by row: what a metric is the mean of, and whether it is another over other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Groups = Counts | None

SAMPLES, FLIPS = 10_000, 20_000
"""Samples of rows, and tosses of signs."""

CELLS = 2_000_000
"""Numbers that are drawn at once: memory does not grow with the rows."""

FEW = 32
"""Rows for each of their values from which on they are counted: of rows that are alike a draw is one number."""


def hits(found: Array, labels: Array, group: Groups) -> Array:
    """Return 100 where a class is right, else 0, ``[S, N]``."""
    return 100.0 * (found == labels)


def pearson(found: Array, labels: Array) -> Array:
    """Return Pearson's correlation, times 100, of predictions ``[..., N]``."""
    x, y = found - found.mean(-1, keepdims=True), labels - labels.mean(-1, keepdims=True)
    return 100 * (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def pearson_of_samples(found: Array, labels: Array, counts: Array) -> Array:
    """Return Pearson's correlation, times 100, of predictions ``[S, N]`` over samples of the rows, ``[S, B]``.

    Args:
        found: The predictions.
        labels: ``[N]``.
        counts: How often each row is in a sample, ``[B, N]``.
    """
    x, y = found - found.mean(-1, keepdims=True), labels[None] - labels.mean()
    parts = [x, x * x, x * y, y, y * y]
    means = (counts @ np.concatenate(parts).T / counts.sum(-1, keepdims=True)).T
    x, xx, xy, y, yy = np.split(means, np.cumsum([len(part) for part in parts])[:-1])
    return 100 * (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))


def ranked(scores: Array, labels: Array, group: Groups) -> pd.DataFrame:
    """Return the relevant candidates of each question: their places, from 1, and how many are up to there.

    Of equal scores the relevant candidates are below the others. Questions without a relevant one are left out.
    """
    assert group is not None
    order = np.lexsort((labels, -scores, group))
    table = pd.DataFrame({"group": group[order], "right": labels[order]})
    questions = table.groupby("group")
    table["place"], table["found"] = questions.cumcount() + 1, questions["right"].cumsum()
    return table[table["right"] == 1]


def average_precision(found: Array, labels: Array, group: Groups) -> Array:
    """Return the average precision, times 100, of each question that has a relevant candidate, ``[S, N]``."""
    tables = [ranked(scores, labels, group) for scores in found]
    return np.stack([100 * (t["found"] / t["place"]).groupby(t["group"]).mean().to_numpy() for t in tables])


def reciprocal_rank(found: Array, labels: Array, group: Groups) -> Array:
    """Return one over the place of the first relevant candidate, times 100, of each question that has one."""
    tables = [ranked(scores, labels, group) for scores in found]
    return np.stack([100 / t.groupby("group")["place"].min().to_numpy() for t in tables])


Values = Callable[[Array, Array, Groups], Array]

BY_ROW: dict[str, Values] = {"accuracy": hits, "map": average_precision, "mrr": reciprocal_rank}
"""Metrics that are means: what they are the means of, of students' predictions ``[S, N]``."""

OF_QUESTIONS = ("map", "mrr")


@dataclass(frozen=True)
class Metric:
    """A metric over the rows of one split.

    Args:
        name: Of ``BY_ROW``, or ``pearson``.
        labels: ``[N]``.
        group: The question of each row, ``[N]``, if it has one.
    """

    name: str
    labels: Array
    group: Groups

    def units(self, found: Array) -> Array:
        """Return what samples are drawn of: of means the values ``[S, U]`` of rows or questions, else predictions."""
        return BY_ROW[self.name](found, self.labels, self.group) if self.is_mean else found

    def score(self, units: Array) -> Array:
        """Return the scores of students by units ``[S, U]``."""
        return units.mean(-1) if self.is_mean else pearson(units, self.labels)

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean of its values for rows, or for questions."""
        return self.name in BY_ROW


def over_rows(metric: Metric, one: Array, other: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Return the interval of 95 % of the mean difference of students, by units ``[S, U]``, over samples of these."""
    if metric.is_mean:
        found = list(_means_of_samples((one - other).mean(0), rng))
    else:
        found = [
            np.subtract(*np.split(pearson_of_samples(np.concatenate([one, other]), metric.labels, counts), 2)).mean(0)
            for counts in _samples(one.shape[1], rng)
        ]
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return low, high


def sign_flips(one: Array, other: Array, rng: np.random.Generator) -> float:
    """Return the p of students that are as good, by values of rows or questions ``[S, U]``: these change sides.

    What was seen counts as one of the draws: no p is lower than they can tell.
    """
    rows = (one - other).mean(0)
    seen = abs(rows.mean()) - 1e-9
    drawn = np.abs(np.concatenate(list(_means_of_flips(rows, rng))))
    return float((1 + np.sum(drawn >= seen)) / (1 + len(drawn)))


def alike(rows: Array) -> tuple[Array, Counts] | None:
    """Return the values of rows ``[N]``, and how many rows have each; None where many values are to be drawn by row."""
    values, counts = np.unique(rows.round(9), return_counts=True)
    return (values, counts) if len(values) * FEW <= len(rows) else None


def _means_of_samples(rows: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the means of rows ``[N]`` that are drawn again; of rows that are alike, how many are drawn."""
    if (known := alike(rows)) is not None:
        values, counts = known
        for times in _blocks(SAMPLES, len(values)):
            yield rng.multinomial(len(rows), counts / len(rows), times) @ values / len(rows)
        return
    for times in _blocks(SAMPLES, len(rows)):
        yield rows[rng.integers(0, len(rows), (times, len(rows)))].mean(-1)


def _means_of_flips(rows: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the means of rows ``[N]`` of which each changes its sign or not; of rows that are alike, how many do."""
    values, counts = alike(rows) or (rows, np.ones(len(rows), np.int64))
    for times in _blocks(FLIPS, len(values)):
        shape = times, len(values)
        kept = rng.binomial(counts, 0.5, shape) if len(values) < len(rows) else rng.integers(0, 2, shape)
        yield (2 * (kept.astype(float) @ values) - counts @ values) / len(rows)


def _samples(rows: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield how often each row is drawn, ``[B, N]``, where as many are drawn as there are."""
    for times in _blocks(SAMPLES, rows):
        drawn = rng.integers(0, rows, (times, rows)) + rows * np.arange(times)[:, None]
        yield np.bincount(drawn.ravel(), minlength=times * rows).reshape(times, rows).astype(float)


def _blocks(times: int, width: int) -> Iterator[int]:
    """Yield how many of so many draws of a width are made at once."""
    size = max(1, CELLS // width)
    yield from (min(size, times - begun) for begun in range(0, times, size))
