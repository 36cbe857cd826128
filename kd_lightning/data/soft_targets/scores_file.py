"""Scores that someone else has given to the rows of a split, as a teacher's logits: an API's, an older system's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_lightning.data.reading.chunks import Chunk
from kd_lightning.data.reading.columns import as_number, as_text, first_row, is_blank, shown
from kd_lightning.data.reading.formats import read_chunks, read_header
from kd_lightning.data.reading.ids import example_ids_of
from kd_lightning.data.rows import Rows
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

SMALLEST = 1e-6
"""Least probability of a class: tables have six digits, and the logarithm of 0 is no logit."""

WHOLE = 1e-3
"""How far from 1 the sum of a row's probabilities may be."""

SCORE = ("score", "prediction")
"""Names of a column with one value for each row."""


def read_scores(path: Path, task: Task, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the scores of a file as logits of the rows of a split, joined by id.

    The file (csv, tsv, jsonl, parquet) has the task's ``id`` column, or ``id``, as ``kd-predict`` writes it. Classes
    have their probabilities in columns ``p_LABEL``; two classes may have that of the second in ``score`` alone. Their
    logits are the logarithms of the probabilities less their mean, so that a loss over logits finds a classifier's
    scale. Regression has scores of its own range in ``score`` or ``prediction``; so have candidates that are ranked.

    Args:
        path: The file; it may have rows of other ids.
        task: What the rows are labelled with.
        rows: The rows of the split.

    Returns:
        ``example_id`` int64 ``[N]``, ascending, and ``logits`` float32 ``[N, C]``.

    Raises:
        UserError: If a column is missing, a value does not fit (the message names file, row and column), an id is there
            twice, or a row has no score.
    """
    names = _columns(path, task)
    ids, values = [], []
    with closing(read_chunks(path, names, 10_000)) as chunks:
        for chunk in chunks:
            ids.append(_ids(chunk, names[0]))
            values.append(_values(chunk, task, names[1:]))
    given, scores = np.concatenate(ids), np.concatenate(values)
    order = given.argsort(kind="stable")
    given, scores = given[order], scores[order]
    if (repeated := given[1:][given[1:] == given[:-1]]).size:
        with closing(read_chunks(path, names, 10_000)) as chunks:
            places = (
                (chunk, int(row)) for chunk in chunks for row in np.flatnonzero(_ids(chunk, names[0]) == repeated[0])
            )
            (one, first), (two, second) = next(places), next(places)
        found = f"found the id {shown(two.value(second, names[0]))} of {one.place(first)} again"
        raise two.error(second, names[0], f"{found}, expected one score for each row")
    (wanted,) = rows.by_id("example_id")
    place = np.minimum(np.searchsorted(given, wanted), len(given) - 1)
    if (missing := wanted[given[place] != wanted]).size:
        raise UserError(
            f"{path}: {missing.size:,} of {rows.count:,} rows of {task.name} have no score there, first that of the id "
            f"{_name_of(missing[0], rows)}: give one for each row, with the row's id in the column '{names[0]}'"
        )
    return torch.from_numpy(wanted), torch.from_numpy(scores[place]).float()


def _columns(path: Path, task: Task) -> list[str]:
    """Return which columns to read: of ids, then of scores."""
    header = read_header(path)
    name = task.id if task.id in header else "id"
    single = next((one for one in SCORE if one in header), SCORE[0])
    if task.kind != "classification":
        return [name, single]
    of_classes = [f"p_{label}" for label in task.labels]
    alone = len(task.labels) == 2 and SCORE[0] in header and of_classes[0] not in header
    return [name, *([SCORE[0]] if alone else of_classes)]


def _ids(chunk: Chunk, name: str) -> NDArray[np.int64]:
    found = as_text(chunk, name, integers=True)
    row = first_row(is_blank(found))
    if row >= 0:
        raise chunk.error(row, name, f"found {shown(chunk.value(row, name))}, expected the id of a row")
    return example_ids_of(found)


def _values(chunk: Chunk, task: Task, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the logits of a chunk, ``[n, C]``."""
    values = np.stack([as_number(chunk, name) for name in names], axis=1)
    low, high, expected = -np.inf, np.inf, "a finite number"
    if task.kind == "classification":
        low, high, expected = 0.0, 1.0, "a probability from 0 to 1"
    elif task.score_range is not None:
        (low, high), expected = task.score_range, f"a score from {task.score_range[0]:g} to {task.score_range[1]:g}"
    wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        raise chunk.error(row, names[column], f"found {shown(chunk.value(row, names[column]))}, expected {expected}")
    if task.kind == "regression":
        return task.to_unit(torch.from_numpy(values)).numpy()
    if task.kind == "ranking":
        return values
    if len(names) == 1:
        values = np.concatenate([1 - values, values], axis=1)
    sums = values.sum(1)
    if (apart := np.abs(sums - 1) > WHOLE).any():
        row = int(apart.argmax())
        raise chunk.error(row, names[0], f"found probabilities that sum to {sums[row]:.4g}, expected 1")
    logits = np.log(np.maximum(values, SMALLEST))
    return logits - logits.mean(1, keepdims=True)


def _name_of(example_id: int, rows: Rows) -> str:
    """Return the id of a row as the data has it."""
    for batch in rows.batches():
        (place,) = np.nonzero(batch.column("example_id").to_numpy() == example_id)
        if len(place):
            return str(batch.column("row_id")[int(place[0])])
    raise KeyError(example_id)
