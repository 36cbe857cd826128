"""Checked rows of one split on disk: raw text is the common currency of teachers and students."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kd_lightning.data.folders import locked, new_folder, read_json, write_json
from kd_lightning.data.reading import ROWS
from kd_lightning.errors import UserError


@dataclass(frozen=True)
class Rows:
    """The rows of one split, memory-mapped.

    Args:
        folder: Holds ``rows.arrow`` (schema ``ROWS``) and ``meta.json``.
        count: Number of rows, as read and as written.
        fingerprint: Hash of ids, texts and labels, in order.
    """

    folder: Path
    count: int
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> Rows | None:
        """Return the rows in the folder, or None if there are none."""
        if not (folder / "meta.json").is_file():
            return None
        return cls(folder, **read_json(folder / "meta.json"))

    def batches(self, size: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most ``size`` at a time, without loading the file."""
        with pa.memory_map(str(self.folder / "rows.arrow")) as file:
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                for start in range(0, batch.num_rows, size):
                    yield batch.slice(start, size)

    def texts(self) -> Iterator[str]:
        """Yield every text, first and second texts alike."""
        for batch in self.batches():
            for column in ("text_a", "text_b"):
                yield from (text for text in batch.column(column).to_pylist() if text is not None)


def cache_rows(folder: Path, read: Callable[[], Iterable[pa.RecordBatch]], source: str) -> Rows:
    """Return the rows of the folder; the first time, read them and write them there.

    Args:
        folder: Its name must depend on the content that ``read`` reads.
        read: Yields checked batches of the schema ``ROWS``.
        source: Names the data in errors.

    Raises:
        UserError: If reading fails, or there are no rows.
    """
    with locked(folder):
        if (found := Rows.open(folder)) is not None:
            return found
        with new_folder(folder) as part:
            digest, count = hashlib.sha256(), 0
            with pa.ipc.new_file(str(part / "rows.arrow"), ROWS) as writer:
                for batch in read():
                    writer.write_batch(batch)
                    count += batch.num_rows
                    for column in batch.columns:
                        digest.update("\x1f".join(map(str, column.to_pylist())).encode() + b"\x1e")
            if not count:
                raise UserError(f"{source}: found no rows, expected at least one")
            write_json(part / "meta.json", {"count": count, "fingerprint": digest.hexdigest()})
    found = Rows.open(folder)
    assert found is not None
    return found
