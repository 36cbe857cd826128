"""The losses that a task has by its kind: of classes, of scores, of the candidates of one question."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.batch import TaskRows
from kd_lightning.losses import gold_loss, logit_mse, ranking_cross_entropy, ranking_loss, top_candidates
from kd_lightning.systems.loss_means import CountedLosses
from kd_lightning.tasks import Kind


def task_gold_loss(
    kind: Kind, student: Tensor, labels: Tensor, group: Tensor, labelled: Tensor | None = None
) -> Tensor:
    """Return the loss of each row ``[n]`` against labels: cross-entropy, squared error, or that of whole questions.

    Args:
        kind: Of the task.
        student: Logits ``[n, C]``.
        labels: ``[n]``.
        group: The question of each row, ``[n]``; read where candidates are ranked.
        labelled: Whether each row has one of these labels, ``[n]``; None is all; read where candidates are ranked.
    """
    return ranking_loss(student, labels, group, labelled) if kind == "ranking" else gold_loss(student, labels)


def task_soft_loss(kind: Kind, student: Tensor, teacher: Tensor, group: Tensor, distill_loss: nn.Module) -> Tensor:
    """Return the loss of each row ``[n]`` against a teacher: the chosen one, squared error, or that of whole questions.

    Args:
        kind: Of the task.
        student: Logits ``[n, C]``.
        teacher: Logits ``[n, C]``.
        group: The question of each row, ``[n]``; read where candidates are ranked.
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]``, for classes.
    """
    if kind == "ranking":
        return ranking_cross_entropy(student, teacher, group)
    loss: Tensor = logit_mse(student, teacher) if kind == "regression" else distill_loss(student, teacher)
    return loss


def pseudo_labels(kind: Kind, teacher: Tensor, group: Tensor) -> Tensor:
    """Return what a teacher would label the rows ``[n]``: its likeliest class, its score, its first candidate.

    Args:
        kind: Of the task.
        teacher: Logits ``[n, C]``.
        group: The question of each row, ``[n]``; read where candidates are ranked.
    """
    if kind == "ranking":
        return top_candidates(teacher, group)
    return teacher.squeeze(-1) if kind == "regression" else teacher.argmax(-1)


def teacher_or_self(student: Tensor, rows: TaskRows) -> Tensor:
    """Return the teacher's logits ``[n, C]``; a row without a teacher teaches itself: no gradient, and no NaN.

    Of several teachers, each with a head of its own, ``[n, T, C]``. The loss of such a row must have the weight 0.

    Raises:
        ValueError: If the student has not as many heads as there are teachers: one would teach all of them.
    """
    if rows["teacher_logits"].shape != student.shape:
        shapes = f"{tuple(student.shape)}, the teachers {tuple(rows['teacher_logits'].shape)}"
        raise ValueError(f"the student's logits are {shapes}: expected a head for each teacher")
    there = rows["has_teacher"].view(-1, *[1] * (student.ndim - 1))
    return torch.where(there, rows["teacher_logits"], student.detach())


def loss_terms(rows: TaskRows, *, gold: Tensor, soft: Tensor, loss: Tensor) -> dict[str, CountedLosses]:
    """Return a task's losses ``[n]`` by name, each with the rows that count in its logged mean.

    ``gold_loss`` is that of the rows with a label of their own, ``soft_loss`` that of those with a teacher, ``loss``,
    which is trained on, that of all.
    """
    every = torch.ones_like(rows["has_label"])
    return {"gold_loss": (gold, rows["has_label"]), "soft_loss": (soft, rows["has_teacher"]), "loss": (loss, every)}
