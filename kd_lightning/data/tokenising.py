"""Tokenise once: every row with all cores, into the flat arrays of a ``TokenTable``."""

from __future__ import annotations

import copy
import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from kd_lightning.augmentation import MASKED, texts_of
from kd_lightning.data.caching import cached
from kd_lightning.data.rows import Rows
from kd_lightning.data.tokens import ARRAYS, TokenTable
from kd_lightning.encoders.vocabulary import masked_as, tokenizer_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.progress import track

CHUNK = 4096
FORMAT = 3
"""Version of what is cached; raise it when an array or its meaning changes."""


def tokenise(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, *, max_length: int, both_orders: bool, cache: Path, name: str
) -> TokenTable:
    """Return the split's token table; the first time, and if it is damaged, build it with all cores and cache it.

    Args:
        rows: The split.
        tokenizer: A fast tokenizer.
        max_length: Longer inputs are cut, the longer text of a pair first.
        both_orders: Whether each pair is followed by its swapped copy.
        cache: Folder for token tables.
        name: What is tokenised, for the progress bar and the folder.

    Raises:
        UserError: If the tokenizer's layout of a pair is not "first text, second text".
    """
    masked = masked_as(tokenizer) if rows.augmenter else None
    values = [FORMAT, rows.fingerprint, tokenizer_fingerprint(tokenizer), masked, max_length, both_orders]
    fingerprint = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    folder = cache / f"{name}-{fingerprint[:16]}"
    facts = cached(folder, lambda part: {"cut": _write(part, rows, tokenizer, masked, max_length, both_orders, name)})
    found = TokenTable.open(folder, fingerprint=fingerprint, **facts)
    expected = rows.count * (2 if both_orders else 1)
    if len(found) != expected:
        raise RuntimeError(f"{folder}: {len(found)} examples from {rows.count} rows, expected {expected}")
    return found


def _write(
    part: Path,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    masked: str | None,
    max_length: int,
    both_orders: bool,
    name: str,
) -> int:
    end, cut = 0, 0
    backend = backend_of(tokenizer, max_length)
    files = {array: (part / f"{array}.bin").open("wb") for array in ARRAYS}
    orders = (False, True) if both_orders else (False,)
    try:
        with track(f"tokenise {name}", rows.count * len(orders)) as advance:
            for swapped in orders:
                for batch in rows.batches(CHUNK):
                    arrays = encode(batch, backend, swapped, masked)
                    cut += int((np.diff(arrays["ends"], prepend=0) >= max_length).sum())
                    arrays["ends"] += end
                    end = int(arrays["ends"][-1])
                    for array, file in files.items():
                        file.write(np.ascontiguousarray(arrays[array], dtype=ARRAYS[array]).tobytes())
                    advance(batch.num_rows)
    finally:
        for file in files.values():
            file.close()
    return cut


def backend_of(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenizer:
    """Return a copy of the tokenizer's engine that cuts the longer text first, as ``tokenizer(...)`` would.

    A copy, since an engine remembers how it last truncated, which would change the tokenizer's fingerprint.
    """
    backend: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def _second_texts(sequence_ids: list[int | None]) -> NDArray[np.int32]:
    """Return 1 from the first token of the second text on, 0 before it."""
    return np.maximum.accumulate(np.array([one == 1 for one in sequence_ids], np.int32))


def encode(batch: pa.RecordBatch, backend: Tokenizer, swapped: bool, masked: str | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of ``TokenTable`` for some rows; ``ends`` counts from 0, padding there is none.

    The engine is called itself, and its lists flattened in one pass: a fifth to a half of the time of
    ``tokenizer(...)`` is spent on offsets and dictionaries that nobody reads.

    Args:
        batch: Rows of the schema ``ROWS``.
        backend: From ``backend_of``.
        swapped: Whether the second text comes first, and ids are ``~i``.
        masked: What the engine reads for a word that an augmenter masked; None where none has written the texts.

    Raises:
        UserError: If the engine's layout of a pair is not "first text, second text".
    """
    columns = texts_of(batch)
    if masked is not None:
        columns = [pc.replace_substring(column, MASKED, masked) for column in columns]
    texts = [column.to_pylist() for column in columns]
    if swapped:
        texts.reverse()
    encoded = backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
    tokens = [row.ids for row in encoded]
    ends = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
    input_ids = np.fromiter(chain.from_iterable(tokens), np.int32, ends[-1])
    types = np.fromiter(chain.from_iterable(row.type_ids for row in encoded), np.int32, ends[-1])
    if len(texts) == 2 and not types.any():  # RoBERTa and its kin tell texts apart by marks alone
        types = np.concatenate([_second_texts(row.sequence_ids) for row in encoded])
    starts = np.concatenate([[0], ends[:-1]])
    of_second = np.concatenate([[0], np.cumsum(types)])  # up to each token; some texts have none
    second = (ends - starts - (of_second[ends] - of_second[starts])).astype(np.int32)
    expected = np.arange(len(types)) - np.repeat(starts, ends - starts) >= np.repeat(second, ends - starts)
    if not np.array_equal(types, expected):
        raise UserError("the tokenizer does not lay out a pair as first text, second text: cannot be used")
    ids = batch.column("example_id").to_numpy()
    return {
        "input_ids": input_ids,
        "ends": ends,
        "second": second,
        "example_id": ~ids if swapped else ids,
        "label": batch.column("label").to_numpy(),
        "group": batch.column("group").fill_null(-1).to_numpy(),
    }
