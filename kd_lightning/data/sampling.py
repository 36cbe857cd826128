"""Whose turn is it: how often each task is drawn, as a pure function of the tasks' sizes and the training progress.

Each takes ``sizes`` (training rows per task, float64 ``[tasks]``) and ``progress`` in [0, 1], and returns positive
weights of the same shape; the stream normalises them to probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
TaskSampler = Callable[[Weights, float], Weights]


def proportional(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw tasks by their size: every example equally often (MT-DNN, arXiv:1901.11504, algorithm 1)."""
    return sizes


def uniform(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw all tasks equally often."""
    return np.ones_like(sizes)


def size_power(sizes: Weights, progress: float = 0.0, *, exponent: float = 0.75) -> Weights:
    """Draw tasks by ``size ** exponent``; BAM (arXiv:1907.04829, section 3) uses 0.75.

    Example:
        >>> size_power(np.array([1.0, 16.0]), exponent=0.5)
        array([1., 4.])
    """
    return sizes**exponent


def sqrt(sizes: Weights, progress: float = 0.0) -> Weights:
    """Draw tasks by the square root of their size (Stickland and Murray 2019, arXiv:1902.02671, section 4.1)."""
    return np.sqrt(sizes)


def annealed(sizes: Weights, progress: float = 0.0, *, decay: float = 0.8) -> Weights:
    """Draw tasks by ``size ** (1 - decay * progress)``: proportional first, nearly uniform at the end.

    Source: Stickland and Murray 2019 (PALs), arXiv:1902.02671, section 4.1, with decay 0.8 over the epochs.
    """
    return sizes ** (1.0 - decay * progress)


def temperature(
    sizes: Weights, progress: float = 0.0, *, temperature: float = 2.0, cap: float | None = None
) -> Weights:
    """Draw tasks by ``min(size, cap) ** (1 / temperature)`` (T5, arXiv:1910.10683, section 3.5.2).

    Raises:
        ValueError: If the temperature or the cap is not positive.
    """
    if not temperature > 0 or (cap is not None and not cap > 0):
        raise ValueError(f"temperature {temperature} and cap {cap}: expected numbers above 0")
    return (sizes if cap is None else np.minimum(sizes, cap)) ** (1.0 / temperature)


def probabilities(sampler: TaskSampler, sizes: Mapping[str, int], progress: float) -> Weights:
    """Return the probability of each task at this progress, in the order of ``sizes``.

    Raises:
        ValueError: If the sampler returns a weight that is not positive and finite.
    """
    weights = sampler(np.array(list(sizes.values()), dtype=np.float64), progress)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"task weights must be positive and finite, got {dict(zip(sizes, weights, strict=True))}")
    return weights / weights.sum()
