"""Students compared row by row: what a metric is the mean of, and whether it is another over other rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Groups = NDArray[np.int64] | None

SAMPLES, FLIPS, BLOCK = 10_000, 20_000, 500
"""Samples of rows, tosses of signs, and how many of them at once."""


def hits(found: Array, labels: Array, group: Groups) -> Array:
    """Return 100 where a class is right, else 0, ``[S, N]``."""
    return 100.0 * (found == labels)


def pearson(found: Array, labels: Array) -> Array:
    """Return Pearson's correlation, times 100, of predictions ``[..., N]``."""
    x, y = found - found.mean(-1, keepdims=True), labels - labels.mean(-1, keepdims=True)
    return 100 * (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


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

    def score(self, units: Array, drawn: NDArray[np.int64] | slice = slice(None)) -> Array:
        """Return the scores of students ``[S, U]`` over all units, or over samples of them."""
        return units[..., drawn].mean(-1) if self.is_mean else pearson(units[..., drawn], self.labels[drawn])

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean of its values for rows, or for questions."""
        return self.name in BY_ROW


def over_rows(metric: Metric, one: Array, other: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Return the interval of 95 % of the mean difference of students, by units ``[S, U]``, over samples of these."""
    found, count = [], one.shape[1]
    for _ in range(SAMPLES // BLOCK):
        drawn = rng.integers(0, count, (BLOCK, count))
        students = zip(one, other, strict=True)
        found.append(np.mean([metric.score(a, drawn) - metric.score(b, drawn) for a, b in students], 0))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return low, high


def sign_flips(one: Array, other: Array, rng: np.random.Generator) -> float:
    """Return the p of students that are as good, by values of rows or questions ``[S, U]``: these change sides."""
    rows = one.mean(0) - other.mean(0)
    seen = abs(rows.mean()) - 1e-9
    blocks = (np.abs(rng.choice([-1.0, 1.0], (BLOCK, len(rows))) @ rows) / len(rows) for _ in range(FLIPS // BLOCK))
    return float(np.mean([block >= seen for block in blocks]))
