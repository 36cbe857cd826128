"""Random numbers that are functions of what they are for: the same on every machine, in any order, by any worker."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Hashes = NDArray[np.uint64]


def mixed(values: Hashes) -> Hashes:
    """Return integers that are scattered over all 64 bits, one to one (the finaliser of SplitMix64).

    Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def combined(*keys: ArrayLike) -> Hashes:
    """Return one hash of the keys, integers that broadcast against each other; their order matters."""
    found = np.zeros(1, np.uint64)
    for key in keys:
        found = mixed(found ^ np.asarray(key).astype(np.int64).view(np.uint64).reshape(np.shape(key) or 1))
    return found


def uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Return numbers in [0, 1), independent for different keys and the same for the same."""
    return (combined(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Distinct:
    """Tells rows that have been met before, by their hashes; 8 bytes per row are all that grows.

    Of n rows, n^2 / 2^65 are taken for others by chance: of four million, one in two million runs.
    """

    def __init__(self) -> None:
        self._seen = np.empty(0, np.uint64)  # sorted

    def first_met(self, rows: Hashes) -> NDArray[np.bool_]:
        """Return which of the rows ``[n]`` are met for the first time, and remember all of them."""
        hashes, first = np.unique(rows, return_index=True)
        places = np.searchsorted(self._seen, hashes)
        known = np.zeros(len(hashes), np.bool_)
        inside = places < len(self._seen)
        known[inside] = self._seen[places[inside]] == hashes[inside]
        self._seen = np.insert(self._seen, places[~known], hashes[~known])
        found = np.zeros(len(rows), np.bool_)
        found[first[~known]] = True
        return found
