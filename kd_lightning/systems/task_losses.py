"""The losses that each task has by its kind: of classes, of scores, of the candidates of one question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_lightning.batch import TaskRows
from kd_lightning.losses import gold_loss, logit_mse, ranking_cross_entropy, ranking_loss
from kd_lightning.losses.checks import check_per_row
from kd_lightning.systems.loss_means import CountedLosses
from kd_lightning.tasks import Task

GoldLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(student logits ``[n, C]``, labels ``[n]``, group ``[n]``) -> loss per row ``[n]``."""

SoftLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(student logits ``[n, C]``, teacher logits ``[n, C]``, group ``[n]``) -> loss per row ``[n]``."""


def gold_losses(tasks: Sequence[Task]) -> dict[str, GoldLoss]:
    """Return task -> its loss against labels: cross-entropy, squared error, or that of whole questions."""

    def of_rows(student: Tensor, labels: Tensor, group: Tensor) -> Tensor:
        return gold_loss(student, labels)

    return {task.name: ranking_loss if task.kind == "ranking" else of_rows for task in tasks}


def soft_losses(tasks: Sequence[Task], distill_loss: nn.Module) -> dict[str, SoftLoss]:
    """Return task -> its loss against a teacher: the chosen one of classes, squared error, or that of whole questions.

    Args:
        tasks: The tasks.
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]``, for classes.

    Raises:
        ValueError: If the distillation loss does not give one value per row.
    """
    check_per_row(distill_loss)

    def of_classes(student: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
        return distill_loss(student, teacher)

    def of_scores(student: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
        return logit_mse(student, teacher)

    by_kind = {"classification": of_classes, "regression": of_scores, "ranking": ranking_cross_entropy}
    return {task.name: by_kind[task.kind] for task in tasks}


def teacher_or_self(student: Tensor, rows: TaskRows) -> Tensor:
    """Return the teacher's logits ``[n, C]``; a row without a teacher teaches itself: no gradient, and no NaN.

    The loss of such a row must have the weight 0.
    """
    return torch.where(rows["has_teacher"].unsqueeze(-1), rows["teacher_logits"], student.detach())


def counted(rows: TaskRows, *, gold: Tensor, soft: Tensor, loss: Tensor) -> dict[str, CountedLosses]:
    """Return a task's losses ``[n]`` by name, each with the rows that count in its mean; ``loss`` is trained on."""
    every = torch.ones_like(rows["has_label"])
    return {"gold_loss": (gold, rows["has_label"]), "soft_loss": (soft, rows["has_teacher"]), "loss": (loss, every)}
