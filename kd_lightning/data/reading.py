"""How columns become checked rows: no row is dropped, no text is altered, and what does not fit is named exactly."""

from __future__ import annotations

import math
import re
import reprlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.data.formats import Chunk, Column, check_header, read_chunks
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.tasks import Task

ROWS = pa.schema(
    [
        ("example_id", pa.int64()),
        ("row_id", pa.string()),
        ("text_a", pa.string()),
        ("text_b", pa.string()),
        ("label", pa.float32()),
    ]
)
NOT_UNIFORM = (pa.ArrowException, UnicodeEncodeError, OverflowError)  # how Arrow refuses values of mixed types
HIDDEN = "; -1 marks a hidden label; use this split as unlabelled"


def read_file(path: Path, task: Task, *, labelled: bool, batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a csv, tsv, jsonl or parquet file, checked, in batches of the schema ROWS, in file order.

    ``example_id`` (>= 0) and ``row_id`` come from the column ``task.id``, or are the row number from 0. An id that is
    a whole number below 2^63 is its own example id; any other is hashed to 63 bits. ``text_b`` is null for tasks of
    one text. ``label`` is the class index or the score as it stands, NaN for every row if not ``labelled``.

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
    (batch,) = _checked(lambda: iter([chunk]), task, labelled)
    return batch


def _names(task: Task, labelled: bool) -> list[str]:
    return [*task.texts, *([task.id] if task.id else []), *([task.label] if labelled else [])]


def _checked(chunks: Callable[[], Iterator[Chunk]], task: Task, labelled: bool) -> Iterator[pa.RecordBatch]:
    seen = array("q")  # 8 bytes per row: all that grows with the file
    for chunk in chunks():
        texts = [_texts(chunk, name) for name in task.texts]
        row_ids = _row_ids(chunk, task)
        example_ids = _example_ids(row_ids)
        labels = _labels(chunk, task, labelled)
        text_b = texts[1] if task.is_pair else pa.nulls(len(labels), pa.string())
        yield pa.record_batch([pa.array(example_ids), row_ids, texts[0], text_b, labels], schema=ROWS)
        if task.id:
            seen.frombytes(example_ids.tobytes())
    if repeated := _repeated(seen):
        raise _duplicate(chunks(), task, repeated)


def _texts(chunk: Chunk, name: str) -> pa.Array:
    texts = _as_text(chunk, name)
    row = _first(pc.or_(_is_blank(texts), pc.match_substring(texts, "\0")))
    if row >= 0:
        raise chunk.error(row, name, _unfit_text(chunk.value(row, name)))
    return texts


def _unfit_text(value: Any) -> str:
    """Say what is wrong with a value that is no text, or not one to learn from."""
    if value is None:
        return "found null or no value, expected a text; fill it in or take the row out"
    if isinstance(value, bytes):
        return f"found the bytes {_shown(value)}, expected a text in UTF-8; encode it as UTF-8"
    if not isinstance(value, str):
        return f"found {_shown(value)} ({type(value).__name__}), expected a text; write it as a string"
    if "\0" in value:
        return f"found a NUL byte in {_shown(value)}, expected a text; take the byte out"
    if not _is_unicode(value):
        return f"found half a surrogate pair in {_shown(value)}, expected Unicode; mend the escape"
    return f"found {_shown(value)}, expected a text that is not empty; fill it in or take the row out"


def _row_ids(chunk: Chunk, task: Task) -> pa.Array:
    if not task.id:
        rows = range(chunk.first, chunk.first + len(chunk.places))
        return pa.array(rows, pa.int64()).cast(pa.string())
    ids = _as_text(chunk, task.id, integers=True)
    row = _first(_is_blank(ids))
    if row >= 0:
        found = _shown(chunk.value(row, task.id))
        raise chunk.error(row, task.id, f"found {found}, expected an id (an integer or a text); fill it in")
    return ids


def _example_ids(row_ids: pa.Array) -> npt.NDArray[np.int64]:
    """Return each id as an integer in [0, 2^63): itself if it is one, or the first 63 bits of its BLAKE2b hash."""
    whole = pc.match_substring_regex(row_ids, r"^(0|[1-9][0-9]{0,18})$")
    numbers = np.asarray(pc.if_else(whole, row_ids, "0").cast(pa.uint64()))
    hashed = np.flatnonzero(~np.asarray(whole) | (numbers >= 2**63))
    ids: npt.NDArray[np.int64] = numbers.astype(np.int64)
    digests = (blake2b(text.encode()).digest() for text in row_ids.take(pa.array(hashed)).to_pylist())
    ids[hashed] = [int.from_bytes(digest[:8], "big") >> 1 for digest in digests]
    return ids


def _repeated(seen: array[int]) -> list[int]:
    """Return the example ids that occur more than once; sorts ``seen`` in place."""
    ids = np.frombuffer(seen, dtype=np.int64)
    ids.sort()
    return sorted(set(ids[1:][ids[1:] == ids[:-1]].tolist()))


def _duplicate(chunks: Iterator[Chunk], task: Task, repeated: Sequence[int]) -> UserError:
    """Read the rows again and name the first two that share the lowest repeated id."""
    assert task.id is not None
    found: list[tuple[Chunk, int]] = []
    for chunk in chunks:
        same = _example_ids(_row_ids(chunk, task)) == repeated[0]
        found += [(chunk, int(row)) for row in np.flatnonzero(same)]
        if len(found) > 1:
            break
    (one, first), (two, second) = found[:2]
    more = f" ({len(repeated)} ids are repeated)" if len(repeated) > 1 else ""
    text = f"found the id {_shown(two.value(second, task.id))} of {one.place(first)} again{more}"
    return two.error(second, task.id, f"{text}, expected unique ids; change one, or set the task's id to null")


def _labels(chunk: Chunk, task: Task, labelled: bool) -> pa.Array:
    if not labelled:
        return pa.array(np.full(len(chunk.places), np.nan, np.float32))
    return _class_indices(chunk, task) if task.kind == "classification" else _scores(chunk, task)


def _class_indices(chunk: Chunk, task: Task) -> pa.Array:
    meaning = _label_meaning(chunk, task)
    spelled = _as_text(chunk, task.label, integers=True)
    indices = pc.index_in(spelled, value_set=pa.array(list(meaning), pa.string()))
    row = _first(indices.is_null())
    if row >= 0:
        value = chunk.value(row, task.label)
        found = _shown(value) if value is None else f"the unknown label {_shown(value)}"
        by_index = f" or an index 0 to {task.num_labels - 1}" if "0" in meaning.keys() - set(task.labels) else ""
        hint = did_you_mean(value, task.labels) if isinstance(value, str) else ""
        hint = HIDDEN if str(value) == "-1" else hint or "; mend the row, or the task's labels"
        expected = f"expected one of {', '.join(task.labels)}{by_index}"
        raise chunk.error(row, task.label, f"found {found}, {expected}{hint}")
    return pa.array(list(meaning.values()), pa.float32()).take(indices)


def _label_meaning(chunk: Chunk, task: Task) -> dict[str, int]:
    """Return spelling -> class index: names first; numbers are indices, unless a name is itself a number."""
    classes = chunk.classes.get(task.label, ())
    if classes:
        if set(classes) != set(task.labels):
            found = f"found the classes {', '.join(classes)}"
            expected = f"expected those of task {task.name}: {', '.join(task.labels)}"
            hint = "write the same names in both"
            raise UserError(f"{chunk.source}, column '{task.label}': {found}, {expected}; {hint}")
        return {str(number): task.labels.index(name) for number, name in enumerate(classes)}
    meaning = {name: index for index, name in enumerate(task.labels)}
    if not any(re.fullmatch(r"-?\d+", name) for name in task.labels):
        meaning.update({str(index): index for index in range(task.num_labels)})
    return meaning


def _scores(chunk: Chunk, task: Task) -> pa.Array:
    assert task.score_range is not None
    low, high = task.score_range
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused
        scores = _as_number(chunk, task.label).astype(np.float32)
    row = _first(pa.array((scores < np.float32(low)) | (scores > np.float32(high)) | np.isnan(scores)))
    if row >= 0:
        found = _shown(chunk.value(row, task.label))
        hint = HIDDEN if scores[row] == -1 else "; mend the score, or the task's score_range"
        raise chunk.error(row, task.label, f"found {found}, expected a number from {low:g} to {high:g}{hint}")
    return pa.array(scores)


def _as_text(chunk: Chunk, name: str, *, integers: bool = False) -> pa.Array:
    """Return the column as text; null where a value is neither text nor, if these count, an integer."""

    def spelling(value: Any) -> str | None:
        if integers and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) and _is_unicode(value) else None

    values = _as_array(chunk.columns[name])
    if values is not None and (_is_text(values.type) or (integers and pa.types.is_integer(values.type))):
        return values.cast(pa.string())
    return pa.array([spelling(chunk.value(row, name)) for row in range(len(chunk.places))], pa.string())


def _as_number(chunk: Chunk, name: str) -> npt.NDArray[np.float64]:
    """Return the column as numbers; NaN where a value is none."""

    def number(value: Any) -> Any:
        try:
            return math.nan if isinstance(value, bool) else pa.scalar(value).cast(pa.float64()).as_py()
        except NOT_UNIFORM:
            return math.nan

    values = _as_array(chunk.columns[name])
    if values is not None and not pa.types.is_boolean(values.type):
        with suppress(pa.ArrowException):
            return np.asarray(values.cast(pa.float64()))
    return np.array([number(chunk.value(row, name)) for row in range(len(chunk.places))], dtype=np.float64)


def _as_array(column: Column) -> pa.Array | None:
    """Return the column as an Arrow array of one plain type, or None if its values do not agree on one."""
    try:
        values = column if isinstance(column, pa.Array) else pa.array(column)
        values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        values.validate(full=True)  # parquet may hold text that is not UTF-8
    except NOT_UNIFORM:
        return None
    return values


def _is_text(kind: pa.DataType) -> bool:
    return any((pa.types.is_string(kind), pa.types.is_large_string(kind), pa.types.is_string_view(kind)))


def _is_blank(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _first(flags: pa.Array) -> int:
    """Return the index of the first flag that is true or null, or -1."""
    return int(pc.index(flags.fill_null(True), True).as_py())


def _shown(value: Any) -> str:
    return "null or no value" if value is None else reprlib.repr(value)
