"""What losses refuse: unequal shapes, and a softmax over a single class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def check_shapes(student: Tensor, teacher: Tensor, *, min_classes: int) -> None:
    """Raise ValueError unless both are ``[B, C]`` with equal shapes and ``C >= min_classes``.

    A softmax over one class is constant, so a soft loss on a score would be zero with zero gradient: a perfect-looking
    run that learns nothing.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f"need two [B, C] of equal shape, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    if student.shape[1] < min_classes:
        raise ValueError(f"need at least {min_classes} classes, got {student.shape[1]}: use logit_mse for scores")


def check_candidates(scores: Tensor, *columns: Tensor) -> None:
    """Raise ValueError unless scores are ``[B, 1]`` and what stands beside them is ``[B]``.

    One of another shape would be spread over all candidates, and every question would have the loss of all.
    """
    if scores.ndim != 2 or scores.shape[1] != 1:
        raise ValueError(f"need scores [B, 1] of candidates, got {tuple(scores.shape)}")
    for column in columns:
        if column.shape != scores.shape[:1]:
            raise ValueError(f"need [{len(scores)}], a value for each candidate, got {tuple(column.shape)}")


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0")


def check_gold_weight(gold_weight: float) -> None:
    """Raise ValueError unless the share of the labels is in [0, 1]."""
    if not 0 <= gold_weight <= 1:
        raise ValueError(f"gold_weight is {gold_weight}, expected a number in [0, 1]")


def check_per_row(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Raise ValueError unless a distillation loss gives one value per row.

    A mean over the batch, torch's default, would be spread over all rows: those of other teachers, and those that have
    a label and no teacher.
    """
    found = tuple(loss(torch.zeros(2, 3), torch.zeros(2, 3)).shape)
    if found != (2,):
        raise ValueError(f"distill_loss gives {found} for logits (2, 3), expected (2,), one value per row")
