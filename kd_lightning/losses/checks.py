"""What every distillation loss refuses: unequal shapes, and a softmax over a single class."""

from __future__ import annotations

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


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0")
