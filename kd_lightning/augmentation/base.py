"""What an augmenter reads and gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa


class Rows(Protocol):
    """The rows of a split: columns ``example_id``, ``row_id``, ``text_a``, ``text_b``, ``label``, ``group``."""

    @property
    def count(self) -> int:
        """Number of rows."""
        ...

    def batches(self, size: int = ...) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most ``size`` at a time."""
        ...


class Augmenter(Protocol):
    """Writes texts that no one has labelled."""

    def fingerprint(self) -> str:
        """Return a hash of the recipe."""
        ...

    def augment(self, rows: Rows, name: str) -> Iterator[pa.RecordBatch]:
        """Yield synthetic rows in the schema of ``rows``: distinct texts, none that ``rows`` has, without labels.

        Args:
            rows: The texts to start from.
            name: What they are, for the progress bar.
        """
        ...
