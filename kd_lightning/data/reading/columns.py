"""Columns as Arrow arrays of one type, whatever the file made of them: what does not fit is null or NaN."""

from __future__ import annotations

import math
import reprlib
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.data.reading.chunks import Chunk, Column

NOT_UNIFORM = (pa.ArrowException, UnicodeEncodeError, OverflowError)  # how Arrow refuses values of mixed types


def as_text(chunk: Chunk, name: str, *, integers: bool = False) -> pa.Array:
    """Return the column as text; null where a value is neither text nor, if these count, an integer."""

    def spelling(value: Any) -> str | None:
        if integers and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) and is_unicode(value) else None

    values = _as_array(chunk.columns[name])
    if values is not None and (_is_text(values.type) or (integers and pa.types.is_integer(values.type))):
        return values.cast(pa.string())
    return pa.array([spelling(chunk.value(row, name)) for row in range(len(chunk.places))], pa.string())


def as_number(chunk: Chunk, name: str) -> npt.NDArray[np.float64]:
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


def is_blank(texts: pa.Array) -> pa.Array:
    """Return whether each text is empty but for white space; null where the text is."""
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


def is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: JSON may hold half a surrogate pair."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def first_row(flags: pa.Array) -> int:
    """Return the index of the first flag that is true or null, or -1."""
    return int(pc.index(flags.fill_null(True), True).as_py())


def shown(value: Any) -> str:
    """Return a value as errors show it, not too long."""
    return "null or no value" if value is None else reprlib.repr(value)
