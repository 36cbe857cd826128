"""Tokens as flat memory-mapped arrays, so that building a batch is a handful of slices."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
ARRAYS = {
    "input_ids": np.int32,
    "ends": np.int64,
    "second": np.int32,
    "example_id": np.int64,
    "label": np.float32,
    "group": np.int64,
}


@dataclass(frozen=True)
class TokenTable:
    """The token ids of one split for one tokenizer, memory-mapped, with ids and labels.

    Swapped copies of pairs follow the originals; their id is ``~i``.

    Args:
        input_ids: All tokens of all examples, one after the other, int32.
        ends: Where each example's tokens end, int64 ``[N]``.
        second: Where each example's second text begins (its number of tokens if there is none), int32 ``[N]``.
        example_id: int64 ``[N]``.
        label: Class index or raw score, float32 ``[N]``; NaN without a gold label.
        group: The question that it is a candidate for, int64 ``[N]``; -1 in tasks without groups.
        cut: How many examples reach the limit: those that were cut, and those that just fit.
        fingerprint: Hash of the rows, the tokenizer, the limit and the doubling.
    """

    input_ids: NDArray[np.int32]
    ends: Ints
    second: NDArray[np.int32]
    example_id: Ints
    label: NDArray[np.float32]
    group: Ints
    cut: int
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of examples, swapped copies included."""
        return len(self.ends)

    def lengths(self, rows: Ints) -> Ints:
        """Return the number of tokens of the given rows."""
        return self.ends[rows] - self.starts(rows)

    def starts(self, rows: Ints) -> Ints:
        """Return where the tokens of the given rows begin."""
        return np.where(rows > 0, self.ends[rows - 1], 0)

    def release(self) -> None:
        """Give the pages read so far back to the system, so that memory does not grow with the data."""
        for array in (self.input_ids, self.ends, self.second, self.example_id, self.label, self.group):
            mapped = getattr(array, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    @classmethod
    def open(cls, folder: Path, **facts: Any) -> TokenTable:
        """Return the table whose arrays are in the folder, memory-mapped; ``facts`` are the other fields."""
        arrays: dict[str, Any] = {}
        for name, dtype in ARRAYS.items():
            path = folder / f"{name}.bin"
            arrays[name] = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
        return cls(**arrays, **facts)
