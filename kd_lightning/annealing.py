"""Teacher annealing: the gold labels' share of the target as a function of training progress.

BAM (arXiv:1907.04829, section 3) calls it lambda; Tang's alpha is the same share, TMKD's alpha is one minus it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

AnnealingSchedule = Callable[[float], float]
"""Progress in [0, 1] (optimiser steps done over the true total) -> gold weight in [0, 1]."""


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


class Linear:
    """Let the gold weight grow from 0 to 1 with progress (BAM, section 3: lambda).

    Example:
        >>> Linear()(0.25)
        0.25
    """

    def __call__(self, progress: float) -> float:
        """Return the gold weight at ``progress``, clamped to [0, 1]."""
        return _clamp(progress)


class Constant:
    """Keep the gold weight fixed (BAM's ablations: 0 is the teacher alone, 0.5 the plain average, 1 gold alone).

    Args:
        gold_weight: The share of the gold labels, in [0, 1].

    Raises:
        ValueError: If ``gold_weight`` is outside [0, 1].
    """

    def __init__(self, gold_weight: float) -> None:
        if not 0.0 <= gold_weight <= 1.0:
            raise ValueError(f"gold_weight is {gold_weight}, expected a number in [0, 1]")
        self.gold_weight = gold_weight

    def __call__(self, progress: float) -> float:
        """Return the gold weight, whatever the progress."""
        return self.gold_weight


class Cosine:
    """Let the gold weight grow from 0 to 1 along half a cosine: slow at both ends (our variant, no paper).

    Example:
        >>> round(Cosine()(0.25), 4)
        0.1464
    """

    def __call__(self, progress: float) -> float:
        """Return the gold weight at ``progress``, clamped to [0, 1]."""
        return 0.5 * (1.0 - math.cos(math.pi * _clamp(progress)))
