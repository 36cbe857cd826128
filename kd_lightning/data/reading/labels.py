"""Labels of rows: class names or indices, or scores, checked against the task."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.data.reading.chunks import Chunk
from kd_lightning.data.reading.columns import as_number, as_text, first_row, shown
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.tasks import Task

HIDDEN = "; -1 marks a hidden label; use this split as unlabelled"


def read_labels(chunk: Chunk, task: Task, labelled: bool) -> pa.Array:
    """Return class indices or raw scores as float32, all NaN if not ``labelled``.

    Raises:
        UserError: If a label is not one of the task's; names row, column and what was expected.
    """
    if not labelled:
        return pa.array(np.full(len(chunk.places), np.nan, np.float32))
    return _scores(chunk, task) if task.kind == "regression" else _class_indices(chunk, task)


def _class_indices(chunk: Chunk, task: Task) -> pa.Array:
    meaning = _label_meaning(chunk, task)
    spelled = as_text(chunk, task.label, integers=True)
    indices = pc.index_in(spelled, value_set=pa.array(list(meaning), pa.string()))
    row = first_row(indices.is_null())
    if row >= 0:
        value = chunk.value(row, task.label)
        found = shown(value) if value is None else f"the unknown label {shown(value)}"
        by_index = f" or an index 0 to {len(task.labels) - 1}" if "0" in meaning.keys() - set(task.labels) else ""
        hint = did_you_mean(value, task.labels) if isinstance(value, str) else ""
        hint = HIDDEN if str(value) == "-1" else hint or "; mend the row, or the task's labels"
        expected = f"expected one of {', '.join(map(repr, task.labels))}{by_index}"
        raise chunk.error(row, task.label, f"found {found}, {expected}{hint}")
    return pa.array(list(meaning.values()), pa.float32()).take(indices)


def _label_meaning(chunk: Chunk, task: Task) -> dict[str, int]:
    """Return spelling -> class index: names first; numbers are indices, unless a name is itself a number."""
    classes = chunk.classes.get(task.label, ())
    if classes:
        if set(classes) != set(task.labels):
            found = f"found the classes {', '.join(map(repr, classes))}"
            expected = f"expected those of task {task.name}: {', '.join(map(repr, task.labels))}"
            hint = "write the same names in both"
            raise UserError(f"{chunk.source}, column '{task.label}': {found}, {expected}; {hint}")
        return {str(number): task.labels.index(name) for number, name in enumerate(classes)}
    meaning = {name: index for index, name in enumerate(task.labels)}
    if not any(re.fullmatch(r"-?\d+", name) for name in task.labels):
        meaning.update({str(index): index for index in range(len(task.labels))})
    return meaning


def _scores(chunk: Chunk, task: Task) -> pa.Array:
    assert task.score_range is not None
    low, high = task.score_range
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused
        scores = as_number(chunk, task.label).astype(np.float32)
    row = first_row(pa.array((scores < np.float32(low)) | (scores > np.float32(high)) | np.isnan(scores)))
    if row >= 0:
        found = shown(chunk.value(row, task.label))
        hint = HIDDEN if scores[row] == -1 else "; mend the score, or the task's score_range"
        raise chunk.error(row, task.label, f"found {found}, expected a number from {low:g} to {high:g}{hint}")
    return pa.array(scores)
