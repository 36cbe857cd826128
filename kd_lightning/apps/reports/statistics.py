"""Scores of groups over their seeds: medians, spreads, tests. The arithmetic is that of pandas and scipy.

A test that its number of seeds cannot support has no p: see ``FEWEST`` and ``FEWEST_DRAWN``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

FEWEST = 2
"""Seeds of which something can be told beside their mean."""

FEWEST_DRAWN = 6
"""Seeds that a bootstrap needs: of fewer, not even all gains with one sign would be rarer than 0.05 by chance."""

RESAMPLES = 9999
"""Of permutations and bootstraps; where fewer permutations than this exist, all of them are counted."""


def spread(values: Iterable[float]) -> pd.Series:
    """Return number, median, lowest, highest and standard deviation (with n - 1) of values, without those missing."""
    return pd.Series(values, dtype=float).agg(["count", "median", "min", "max", "std"])


def interval(differences: Array) -> tuple[float, float] | None:
    """Return the interval of 95 % of a mean ``[S]`` over seeds, by Student's t; None of fewer than two."""
    if len(differences) < FEWEST:
        return None
    error = stats.sem(differences) or np.finfo(float).tiny  # of equal ones, the interval is they
    low, high = stats.t.interval(0.95, len(differences) - 1, differences.mean(), error)
    return float(low), float(high)


def sign_flip(differences: Array) -> float | None:
    """Return the p of no difference, by paired differences ``[S]`` over seeds: each is as likely with the other sign.

    The lowest p of S seeds is 2 / 2^S: five seeds reach 0.0625. None of fewer than two.
    """
    if len(differences) < FEWEST:
        return None
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, rng=_rng()
    )
    return float(found.pvalue)


def mann_whitney(one: Array, other: Array) -> float | None:
    """Return the p of the Mann-Whitney U test of unpaired seeds ``[S]`` and ``[T]``, exact also where values are equal.

    None where one has fewer than two.
    """
    if min(len(one), len(other)) < FEWEST:
        return None
    equal = len({*one, *other}) < len(one) + len(other)
    method = stats.PermutationMethod(n_resamples=RESAMPLES, rng=_rng()) if equal else "exact"
    return float(stats.mannwhitneyu(one, other, method=method).pvalue)


def bootstrap(*samples: Array) -> float | None:
    """Return the p of a mean ``[S]`` that is zero, or of two means that are equal, over seeds that are drawn again.

    It is twice the share of means on the other side of zero. None where a sample has fewer than six.
    """
    if min(map(len, samples)) < FEWEST_DRAWN:
        return None
    found = stats.bootstrap(
        samples, _difference, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=_rng()
    ).bootstrap_distribution
    found = found.round(12)  # what is zero but for the computer's arithmetic is on both sides
    lower, upper = ((1 + np.sum(side)) / (1 + RESAMPLES) for side in (found <= 0, found >= 0))
    return float(min(1.0, 2 * min(lower, upper)))


def _difference(one: Array, other: Array | None = None, axis: int = -1) -> Array:
    return one.mean(axis) - (0.0 if other is None else other.mean(axis))


def _rng() -> np.random.Generator:
    """Return the same draws for each test: a report of the same runs is the same."""
    return np.random.default_rng(0)


def holm(found: Sequence[float | None]) -> list[float | None]:
    """Return the p of a family of tests after Holm's correction; those that are None are not of the family.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = pd.Series([np.nan if p is None else p for p in found], dtype=float)
    places = known.rank(method="first")
    raised = (known * (known.count() + 1 - places)).sort_index(key=lambda index: places[index])
    corrected = raised.cummax().clip(upper=1.0).sort_index()
    return [None if pd.isna(p) else float(p) for p in corrected]
