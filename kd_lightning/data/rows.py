"""Checked rows of one split on disk: raw text is the common currency of teachers and students."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kd_lightning.data.caching import Facts, cached
from kd_lightning.data.reading.reader import ROWS
from kd_lightning.errors import UserError

FORMAT = 3
"""Version of what is cached; raise it when the schema or the meaning of a column changes."""


@dataclass(frozen=True)
class Rows:
    """The rows of one split, on disk.

    Args:
        folder: Holds ``rows.arrow`` (schema ``ROWS``) and ``meta.json``.
        count: Number of rows, as read and as written.
        fingerprint: Hash of ids, texts and labels, in order.
        augmenter: Fingerprint of the augmentation that wrote them, None for texts that were read.
    """

    folder: Path
    count: int
    fingerprint: str
    augmenter: str | None = None

    def batches(self, size: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most ``size`` at a time, without loading the file."""
        with pa.OSFile(str(self.folder / "rows.arrow")) as file:  # a mapped file would stay in memory, page by page
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                for start in range(0, batch.num_rows, size):
                    yield batch.slice(start, size)

    def by_id(self, *names: str) -> list[NDArray[Any]]:
        """Return columns of numbers, ``[N]`` each, in order of example id; -1 where a row has none."""
        parts = [
            [batch.column(name).fill_null(-1).to_numpy() for name in ("example_id", *names)] for batch in self.batches()
        ]
        ids, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = ids.argsort(kind="stable")
        return [column[order] for column in columns]

    def texts(self) -> Iterator[str]:
        """Yield every text, first and second texts alike."""
        for batch in self.batches():
            for column in ("text_a", "text_b"):
                yield from (text for text in batch.column(column).to_pylist() if text is not None)


def cache_rows(folder: Path, read: Callable[[], Iterable[pa.RecordBatch]], source: str) -> Rows:
    """Return the rows of the folder; the first time, and if they are damaged, read them and write them there.

    Args:
        folder: Its name must depend on the content that ``read`` reads, and on ``FORMAT``.
        read: Yields checked batches of the schema ``ROWS``.
        source: Names the data in errors.

    Raises:
        UserError: If reading fails, or there are no rows.
    """
    return Rows(folder, **cached(folder, lambda part: _write(part, read, source)))


def _write(part: Path, read: Callable[[], Iterable[pa.RecordBatch]], source: str) -> Facts:
    digests, count = [hashlib.sha256() for _ in ROWS], 0  # by column: where batches end must not matter
    with pa.ipc.new_file(str(part / "rows.arrow"), ROWS) as writer:
        for batch in read():
            writer.write_batch(batch)
            count += batch.num_rows
            for digest, column in zip(digests, batch.columns, strict=True):
                digest.update(f"{json.dumps(column.to_pylist())[1:-1]}, ".encode())
    if not count:
        raise UserError(f"{source}: found no rows, expected at least one")
    fingerprint = hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    return {"count": count, "fingerprint": fingerprint}
