"""Ids of rows: what the file says, as an integer of 63 bits that joins soft targets."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.data.reading.chunks import Chunk
from kd_lightning.data.reading.columns import as_text, first_row, is_blank, shown
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task


def row_ids_of(chunk: Chunk, task: Task) -> pa.Array:
    """Return each row's id as text: the column ``task.id``, or the number of the row over the whole source.

    Raises:
        UserError: If an id is neither an integer nor a text, or blank.
    """
    if not task.id:
        rows = range(chunk.first, chunk.first + len(chunk.places))
        return pa.array(rows, pa.int64()).cast(pa.string())
    return _names_of(chunk, task.id, "an id")


def groups_of(chunk: Chunk, task: Task) -> pa.Array:
    """Return each row's group as an integer, as ids are: of the column ``task.group``; null without one.

    Raises:
        UserError: If a group is neither an integer nor a text, or blank.
    """
    if not task.group:
        return pa.nulls(len(chunk.places), pa.int64())
    return pa.array(example_ids_of(_names_of(chunk, task.group, "a question's id, or its text")))


def _names_of(chunk: Chunk, column: str, what: str) -> pa.Array:
    names = as_text(chunk, column, integers=True)
    row = first_row(is_blank(names))
    if row >= 0:
        found = shown(chunk.value(row, column))
        raise chunk.error(row, column, f"found {found}, expected {what} (an integer or a text); fill it in")
    return names


def example_ids_of(row_ids: pa.Array) -> npt.NDArray[np.int64]:
    """Return each id as an integer in [0, 2^63): itself if it is one, or the first 63 bits of its BLAKE2b hash."""
    whole = pc.match_substring_regex(row_ids, r"^(0|[1-9][0-9]{0,18})$")
    numbers = np.asarray(pc.if_else(whole, row_ids, "0").cast(pa.uint64()))
    hashed = np.flatnonzero(~np.asarray(whole) | (numbers >= 2**63))
    ids: npt.NDArray[np.int64] = numbers.astype(np.int64)
    digests = (blake2b(text.encode()).digest() for text in row_ids.take(pa.array(hashed)).to_pylist())
    ids[hashed] = [int.from_bytes(digest[:8], "big") >> 1 for digest in digests]
    return ids


def repeated_ids(seen: array[int]) -> list[int]:
    """Return the example ids that occur more than once; sorts ``seen`` in place."""
    ids = np.frombuffer(seen, dtype=np.int64)
    ids.sort()
    return sorted(set(ids[1:][ids[1:] == ids[:-1]].tolist()))


def duplicate_error(chunks: Iterator[Chunk], task: Task, repeated: Sequence[int]) -> UserError:
    """Read the rows again and name the first two that share the lowest repeated id."""
    assert task.id is not None
    found: list[tuple[Chunk, int]] = []
    for chunk in chunks:
        same = example_ids_of(row_ids_of(chunk, task)) == repeated[0]
        found += [(chunk, int(row)) for row in np.flatnonzero(same)]
        if len(found) > 1:
            break
    (one, first), (two, second) = found[:2]
    more = f" ({len(repeated)} ids are repeated)" if len(repeated) > 1 else ""
    text = f"found the id {shown(two.value(second, task.id))} of {one.place(first)} again{more}"
    return two.error(second, task.id, f"{text}, expected unique ids; change one, or set the task's id to null")
