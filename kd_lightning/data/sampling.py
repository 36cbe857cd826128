"""Whose turn is it: how often each task is drawn, as a pure function of the tasks' sizes and the training progress.

Each takes ``sizes`` (training rows per task, float64 ``[tasks]``) and ``progress`` in [0, 1], and returns positive
weights of the same shape; the stream normalises them to probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Counts = NDArray[np.int64]
TaskSampler = Callable[[Weights, float], Weights]


def proportional(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw tasks by their size: every example equally often (MT-DNN, arXiv:1901.11504, algorithm 1)."""
    return sizes


def uniform(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw all tasks equally often."""
    return np.ones_like(sizes)


def size_power(sizes: Weights, progress: float = 0.0, *, exponent: float = 0.75) -> Weights:
    """Draw tasks by ``size ** exponent``; BAM (arXiv:1907.04829, section 3) uses 0.75.

    Args:
        sizes: Training rows of each task.
        progress: Not used.
        exponent: From 0 (uniform) to 1 (proportional).

    Raises:
        ValueError: If the exponent is outside; above 1, large tasks would drown the others, below 0, small ones.

    Example:
        >>> size_power(np.array([1.0, 16.0]), exponent=0.5)
        array([1., 4.])
    """
    if not 0 <= exponent <= 1:
        raise ValueError(f"exponent is {exponent}, expected a number from 0 (uniform) to 1 (proportional)")
    return sizes**exponent


def sqrt(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw tasks by the square root of their size (Stickland and Murray 2019, arXiv:1902.02671, section 4.1)."""
    return np.sqrt(sizes)


def annealed(sizes: Weights, progress: float = 0.0, *, decay: float = 0.8) -> Weights:
    """Draw tasks by ``size ** (1 - decay * progress)``: proportional first, nearly uniform at the end.

    Args:
        sizes: Training rows of each task.
        progress: Share of the run that is done, from 0 to 1.
        decay: From 0 (proportional throughout) to 1 (uniform at the end).

    Raises:
        ValueError: If the decay is outside; above 1, the law would turn over before the end.

    Source: Stickland and Murray 2019 (PALs), arXiv:1902.02671, section 4.1, with decay 0.8 over the epochs.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}, expected a number from 0 (proportional) to 1 (uniform at the end)")
    return sizes ** (1.0 - decay * progress)


def temperature(
    sizes: Weights, progress: float = 0.0, *, temperature: float = 2.0, cap: float | None = None
) -> Weights:
    """Draw tasks by ``min(size, cap) ** (1 / temperature)`` (T5, arXiv:1910.10683, section 3.5.2).

    Args:
        sizes: Training rows of each task.
        progress: Not used.
        temperature: At least 1 (proportional); the higher, the nearer to uniform.
        cap: Highest size that counts, above 0; None counts all.

    Raises:
        ValueError: If the temperature is below 1, or the cap is not positive.
    """
    if not temperature >= 1:
        raise ValueError(f"temperature is {temperature}, expected 1 (proportional) or more")
    if cap is not None and not cap > 0:
        raise ValueError(f"cap is {cap}, expected a number above 0, or null for none")
    return (sizes if cap is None else np.minimum(sizes, cap)) ** (1.0 / temperature)


def epoch_batches(rows: int, batch_size: int) -> int:
    """Return the number of full batches that hold the rows of an epoch, at least one."""
    return max(1, -(-rows // batch_size))


def probabilities(sampler: TaskSampler, sizes: Mapping[str, int], progress: float) -> Weights:
    """Return the probability of each task at this progress, in the order of ``sizes``.

    Raises:
        ValueError: If the sampler returns a weight that is not positive and finite.
    """
    weights = sampler(np.array(list(sizes.values()), dtype=np.float64), progress)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"task weights must be positive and finite, got {dict(zip(sizes, weights, strict=True))}")
    return weights / weights.sum()


def quotas(due: Weights, done: Counts, rows: int) -> Counts:
    """Return how many of the next rows each task gives, int64 ``[tasks]``: whole rows, that fractions may not be lost.

    Args:
        due: Rows each task should have given after these, by the law, float64 ``[tasks]``.
        done: Rows each task has given before, int64 ``[tasks]``.
        rows: Number of the next rows.

    Example:
        >>> quotas(np.array([0.5, 5.5]), np.array([0, 0]), 6), quotas(np.array([1.0, 11.0]), np.array([1, 5]), 6)
        (array([1, 5]), array([0, 6]))
    """
    quota = np.maximum(0, np.floor(due - done).astype(np.int64))
    left = rows - int(quota.sum())  # fewer than there are tasks; below 0 only if a task was ahead of its due
    quota[np.argmax(quota)] += min(0, left)
    quota[np.argsort(done + quota - due, kind="stable")[: max(0, left)]] += 1
    return quota
