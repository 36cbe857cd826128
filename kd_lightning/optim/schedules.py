"""The learning rate over the progress of a run, as a factor."""

from __future__ import annotations

from collections.abc import Callable

LearningRateSchedule = Callable[[float], float]
"""Progress in [0, 1] -> factor on the learning rate."""


class LinearWarmup:
    """Raise the learning rate linearly over the warm-up, then lower it linearly to 0.

    Args:
        warmup: Share of the steps spent warming up, in [0, 1).
        decay_from_start: Count the decay from step 0, as BERT's and BAM's code do: the factor is ``1 - progress`` after
            the warm-up, so it drops from 1 to ``1 - warmup`` there. False decays from 1 at the end of the warm-up.

    Raises:
        ValueError: If the warm-up is out of range.

    Example:
        >>> round(LinearWarmup(warmup=0.1)(0.55), 6)
        0.5
    """

    def __init__(self, warmup: float = 0.1, decay_from_start: bool = False) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is {warmup}, expected a number in [0, 1)")
        self.warmup, self.decay_from_start = warmup, decay_from_start

    def __call__(self, progress: float) -> float:
        """Return the factor on the learning rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        left = max(0.0, 1.0 - progress)
        return left if self.decay_from_start else left / (1.0 - self.warmup)


class ConstantRate:
    """Keep the learning rate as it is."""

    def __call__(self, progress: float) -> float:
        """Return 1."""
        return 1.0
