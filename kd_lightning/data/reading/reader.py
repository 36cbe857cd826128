"""How columns become checked rows: no row is dropped, no text is altered, and what does not fit is named exactly."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.data.reading.chunks import Chunk, Column, check_header
from kd_lightning.data.reading.columns import as_text, first_row, is_blank, is_unicode, shown
from kd_lightning.data.reading.formats import read_chunks
from kd_lightning.data.reading.ids import duplicate_error, example_ids_of, groups_of, repeated_ids, row_ids_of
from kd_lightning.data.reading.labels import read_labels
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

ROWS = pa.schema(
    [
        ("example_id", pa.int64()),
        ("row_id", pa.string()),
        ("text_a", pa.string()),
        ("text_b", pa.string()),
        ("label", pa.float32()),
        ("group", pa.int64()),
    ]
)


def read_file(path: Path, task: Task, *, labelled: bool, batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a csv, tsv, jsonl or parquet file, checked, in batches of the schema ROWS, in file order.

    ``example_id`` (>= 0) and ``row_id`` come from the column ``task.id``, or are the row number from 0. An id that is
    a whole number below 2^63 is its own example id; any other is hashed to 63 bits. ``text_b`` is null for tasks of
    one text. ``label`` is the class index or the score as it stands, NaN for every row if not ``labelled``. ``group``
    comes from the column ``task.group``, as ids do, and is null without one.

    Args:
        path: The file; its extension tells the format.
        task: Which columns to read, and which labels to expect.
        labelled: Whether to read the label column, which may be absent otherwise.
        batch_rows: Highest number of rows in a batch.

    Raises:
        UserError: At the first row that does not fit; names file, line (parquet: row from 0), column, what was found
            and what was expected. A repeated id is noticed after the last batch, so use no batch before the end.
    """
    yield from _checked(lambda: read_chunks(path, _names(task, labelled), batch_rows), task, labelled)


def check_columns(columns: Mapping[str, Column], task: Task, *, labelled: bool, source: str) -> pa.RecordBatch:
    """Return rows that are already in memory as one batch of the schema ROWS, checked as those of a file.

    Args:
        columns: Column name -> values, all of one length.
        task: Which columns to read, and which labels to expect.
        labelled: Whether to read the label column, which may be absent otherwise.
        source: What errors call the rows; they count them from 0.

    Raises:
        UserError: At the first row that does not fit.
    """
    names = _names(task, labelled)
    check_header(list(columns), names, source)
    rows = len(columns[names[0]])
    if not rows:
        raise UserError(f"{source}: found no rows, expected at least one")
    chunk = Chunk(columns=columns, source=source, first=0, places=range(rows), unit="row")
    (batch,) = _checked(lambda: (whole for whole in [chunk]), task, labelled)
    return batch


def _names(task: Task, labelled: bool) -> list[str]:
    found = [*task.texts, task.id, task.group, task.label if labelled else None]
    return list(dict.fromkeys(name for name in found if name))  # a question may be its own group


def _checked(
    chunks: Callable[[], Generator[Chunk, None, None]], task: Task, labelled: bool
) -> Iterator[pa.RecordBatch]:
    seen = array("q")  # 8 bytes per row: all that grows with the file
    with closing(chunks()) as found:
        for chunk in found:
            texts = [_texts(chunk, name) for name in task.texts]
            row_ids = row_ids_of(chunk, task)
            example_ids = example_ids_of(row_ids)
            labels = read_labels(chunk, task, labelled)
            text_b = texts[1] if task.is_pair else pa.nulls(len(labels), pa.string())
            ids = pa.array(example_ids)
            yield pa.record_batch([ids, row_ids, texts[0], text_b, labels, groups_of(chunk, task)], schema=ROWS)
            if task.id:
                seen.frombytes(example_ids.tobytes())
    if repeated := repeated_ids(seen):
        raise duplicate_error(chunks(), task, repeated)


def _texts(chunk: Chunk, name: str) -> pa.Array:
    texts = as_text(chunk, name)
    row = first_row(pc.or_(is_blank(texts), pc.match_substring(texts, "\0")))
    if row >= 0:
        raise chunk.error(row, name, _unfit_text(chunk.value(row, name)))
    return texts


def _unfit_text(value: Any) -> str:
    """Say what is wrong with a value that is no text, or not one to learn from."""
    if value is None:
        return "found null or no value, expected a text; fill it in or take the row out"
    if isinstance(value, bytes):
        return f"found the bytes {shown(value)}, expected a text in UTF-8; encode it as UTF-8"
    if not isinstance(value, str):
        return f"found {shown(value)} ({type(value).__name__}), expected a text; write it as a string"
    if "\0" in value:
        return f"found a NUL byte in {shown(value)}, expected a text; take the byte out"
    if not is_unicode(value):
        return f"found half a surrogate pair in {shown(value)}, expected Unicode; mend the escape"
    return f"found {shown(value)}, expected a text that is not empty; fill it in or take the row out"
