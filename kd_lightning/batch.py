"""The table at which data and systems meet: what one batch holds.

Capitals in shapes, everywhere in the package: B rows of a batch, L tokens, H hidden size, C classes, T teachers;
``n`` rows of one task within a batch.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from torch import Tensor


class TaskRows(TypedDict):
    """The rows of one task within a batch."""

    rows: Tensor
    """Positions of the task's rows in the batch, int64 ``[n]``."""
    labels: Tensor
    """Class indices int64 ``[n]``, or scores in [0, 1] float32 ``[n]``; undefined where ``has_label`` is False."""
    has_label: Tensor
    """Whether the row has a gold label, bool ``[n]``."""
    teacher_logits: Tensor
    """Teacher logits float32 ``[n, C]``; NaN, and never a zero, where ``has_teacher`` is False.

    ``[n, T, C]`` where each teacher has a head of its own.
    """
    has_teacher: Tensor
    """Whether the row has a teacher, bool ``[n]``."""
    group: Tensor
    """The question that the row is a candidate for, int64 ``[n]``; -1 in tasks without groups."""


class Batch(TypedDict):
    """Rows of one or several tasks, padded to the longest of them.

    A TypedDict and not a frozen dataclass: Lightning moves it to the device by rebuilding its containers.
    """

    example_id: Tensor
    """Ids of the examples within their task, int64 ``[B]``; ``~i`` is the swapped copy of pair ``i``."""
    input_ids: Tensor
    """Token ids int64 ``[B, L]``."""
    attention_mask: Tensor
    """1 for a token, 0 for padding, int64 ``[B, L]``."""
    token_type_ids: Tensor
    """0 for the first text, 1 for the second, int64 ``[B, L]``."""
    tasks: dict[str, TaskRows]
    """Task name -> its rows; every row of the batch belongs to exactly one task."""
    split: NotRequired[str]
    """The evaluated split, in evaluation and prediction."""
