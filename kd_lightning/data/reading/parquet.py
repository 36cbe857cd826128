"""Chunks of a parquet file, with the class names that Hugging Face datasets write into it."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kd_lightning.data.reading.chunks import Chunk, check_header
from kd_lightning.errors import UserError


def parquet_chunks(path: Path, names: Sequence[str], batch_rows: int) -> Generator[Chunk, None, None]:
    """Yield the named columns, at most ``batch_rows`` rows at a time; see ``read_chunks``."""
    first = 0
    try:
        # By default, Arrow fetches all row groups ahead, and whole columns of each: memory would grow with the file.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            check_header(file.schema_arrow.names, names, str(path))
            classes = _class_names(file.schema_arrow)
            for batch in file.iter_batches(batch_rows, columns=list(names)):
                columns = {name: batch.column(name) for name in names}
                places = range(first, first + len(batch))
                yield Chunk(columns=columns, source=str(path), first=first, places=places, unit="row", classes=classes)
                first = places.stop
            if first != file.metadata.num_rows:
                raise UserError(f"{path}: read {first} rows, the file says {file.metadata.num_rows}; write it again")
    except pa.ArrowException as error:
        raise UserError(f"{path}: found no readable parquet ({error}); write the file again") from error


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """Return the names that Hugging Face datasets wrote into the schema for integer class columns."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        integers = [column.name for column in schema if pa.types.is_integer(column.type)]
        return {name: features[name]["names"] for name in integers if "names" in features.get(name, {})}
    except (AttributeError, KeyError, TypeError, ValueError):  # no such metadata, or not theirs
        return {}
