"""Other words of the same part of speech, as often as the training texts have them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray


class TaggedWords:
    """How often each word stands with each tag, and draws from it.

    Args:
        counts: (tag << 32 | word) -> how often.
        ranks: The place of each word among all, ``[V]``: words are drawn in this order, whatever their numbers.
        kin: The same number for words that differ in case alone, ``[V]``; they have places next to each other.
    """

    def __init__(self, counts: Counter[int], ranks: NDArray[np.int64], kin: NDArray[np.int64]) -> None:
        self._ranks, self._words = ranks, np.argsort(ranks)
        counted = np.array(list(counts), np.int64)
        keys = (counted >> 32 << 32) | ranks[counted & 0xFFFFFFFF]
        order = np.argsort(keys)
        self._keys = keys[order]
        self._counts = np.array(list(counts.values()), np.int64)[order]
        self._ends = np.cumsum(self._counts)
        families = (self._keys >> 32 << 32) | kin[self._words[self._keys & 0xFFFFFFFF]]
        heads = np.diff(families, prepend=-1) != 0
        number = np.cumsum(heads) - 1  # of the family that each word with its tag belongs to
        self._before = (self._ends - self._counts)[heads][number]  # words that are drawn before the family
        self._family = np.add.reduceat(self._counts, np.flatnonzero(heads))[number]

    def others(
        self, tags: NDArray[np.uint8], words: NDArray[np.int32], draws: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """Return for each word another one with its tag, drawn in proportion to how often they occur with it.

        ``The`` is no other word than ``the``: to most models it is the same.

        Args:
            tags: Each word's tag ``[n]``.
            words: The words ``[n]``; each occurs with its tag.
            draws: Uniform in [0, 1), ``[n]``.

        Returns:
            Words ``[n]``; where no other word has the tag, the word itself.
        """
        key = tags.astype(np.int64) << 32
        first = np.searchsorted(self._keys, key)
        last = np.searchsorted(self._keys, key + (1 << 32)) - 1
        own = np.searchsorted(self._keys, key | self._ranks[words])
        before = self._ends[first] - self._counts[first]
        others = self._ends[last] - before - self._family[own]
        place = before + np.minimum((draws * others).astype(np.int64), np.maximum(others - 1, 0))
        place += np.where(place >= self._before[own], self._family[own], 0)  # step over the word
        found = np.searchsorted(self._ends, place, side="right")
        drawn = self._words[self._keys[np.minimum(found, len(self._keys) - 1)] & 0xFFFFFFFF]
        return np.where(others > 0, drawn, words).astype(np.int32)
