"""How the bytes of a csv, tsv, jsonl or parquet file become chunks of columns that know where each row stands."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kd_lightning.data.reading.chunks import Chunk
from kd_lightning.data.reading.parquet import parquet_chunks
from kd_lightning.data.reading.text_formats import RECORDS, text_chunks
from kd_lightning.errors import UserError, did_you_mean


def read_chunks(path: Path, names: Sequence[str], batch_rows: int) -> Generator[Chunk, None, None]:
    """Yield the named columns of a file, in file order; memory does not grow with the file.

    Args:
        path: A .csv (RFC 4180), .tsv (no quoting), .jsonl (one object per line) or .parquet file; text is UTF-8.
        names: The columns to read; the file may have others.
        batch_rows: Highest number of rows in a chunk.

    Raises:
        UserError: If the file is missing, of another kind, broken, without rows, or lacks a column.
    """
    check_file(path)
    if path.suffix.lower() == ".parquet":
        chunks = parquet_chunks(path, names, batch_rows)
    else:
        chunks = text_chunks(path, names, batch_rows)
    empty = True
    try:
        with closing(chunks):  # an error of whoever reads keeps this frame, and must not keep the file open
            for chunk in chunks:
                empty = False
                yield chunk
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    if empty:
        raise UserError(f"{path}: found no rows, expected at least one; fill the file or leave it out")


def read_header(path: Path) -> list[str]:
    """Return the names of a file's columns (jsonl: of its first object); none if it is broken, which reading tells."""
    check_file(path)
    try:
        if path.suffix.lower() == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                return next(csv.reader(file))
            line = next(file)
        return list(json.loads(line)) if path.suffix.lower() == ".jsonl" else line.rstrip("\r\n").split("\t")
    except (OSError, ValueError, TypeError, StopIteration, csv.Error, pa.ArrowException):
        return []


def check_file(path: Path) -> None:
    """Raise UserError if there is no file, or one of another kind than can be read."""
    expected = "expected a .csv, .tsv, .jsonl or .parquet file"
    if not path.exists():
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UserError(f"{path.absolute()}: found no folder {folder}, {expected}; check the path")
        hint = did_you_mean(path.name, sorted(entry.name for entry in folder.iterdir()))
        raise UserError(f"{path.absolute()}: found no such file, {expected}{hint or '; check the path'}")
    if path.is_dir():
        raise UserError(f"{path}: found a folder, {expected}; name a file in it")
    if path.suffix.lower() not in (*RECORDS, ".parquet"):
        ending = "".join(path.suffixes) or "none"
        raise UserError(f"{path}: found the extension {ending}, {expected}; convert or unpack it")
