"""The order in which a task's rows come: shuffled anew each time round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Walk:
    """An endless walk through shuffles of some rows: all of them come before any comes again.

    Args:
        size: Number of rows.
        seed: Seed of the shuffles; the number of the round is added to it.
    """

    def __init__(self, size: int, *, seed: Sequence[int]) -> None:
        self.size, self.seed = size, tuple(seed)
        self._round, self._order = -1, np.empty(0, dtype=np.int32)

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the ``count`` rows from position ``start`` of the walk on."""
        drawn = [np.empty(0, dtype=np.int32)]
        while count:
            number, offset = divmod(start, self.size)
            if number != self._round:
                self._round, self._order = number, np.arange(self.size, dtype=np.int32)
                np.random.default_rng([*self.seed, number]).shuffle(self._order)  # as permutation(), in half the memory
            drawn.append(self._order[offset : offset + count])
            start, count = start + len(drawn[-1]), count - len(drawn[-1])
        return np.concatenate(drawn).astype(np.int64)
