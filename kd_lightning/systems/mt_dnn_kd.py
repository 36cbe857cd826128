"""MT-DNN with knowledge distillation: ensembles teach some of the tasks, gold labels all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.losses.checks import check_gold_weight, check_per_row
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import loss_terms, task_gold_loss, task_soft_loss, teacher_or_self


class MtDnnKdStudent(NLUSystem):
    """Teach a multi-task student by labels and, in tasks with a teacher, by soft targets, at constant weights.

    ``gold_weight CE(y, student) + (1 - gold_weight) CE(Q, student)`` with Q the mean of the teachers' probabilities; a
    task without a teacher follows its labels alone, with weight 1. The paper takes the average of both losses, a
    weight of 0.5; their sum would count tasks with a teacher twice. A row without a label follows its teacher.

    Args:
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]`` for classes; scores always use the
            squared error, the candidates of a question a cross-entropy over them.
        gold_weight: Weight of the labels where there is a teacher, in [0, 1].
        **parts: See ``NLUSystem``.

    Raises:
        ValueError: If the weight is out of range, or the distillation loss does not give one value per row.

    Source: Liu et al. 2019, arXiv:1904.09482, section 3 and algorithm 1.
    """

    learns_from_teachers = True

    def __init__(self, *, distill_loss: nn.Module, gold_weight: float = 0.5, **parts: Any) -> None:
        super().__init__(**parts)
        check_gold_weight(gold_weight)
        check_per_row(distill_loss)
        self.distill_loss, self.gold_weight = distill_loss, gold_weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch, by recipe of one task, against labels and soft targets."""
        hidden = self.encode(batch)  # [B, H]
        losses = {}
        for name, rows in batch["tasks"].items():
            kind, group = self.kinds[name], rows["group"]
            student = self.logits(name, hidden, rows["rows"])  # [n, C]
            teacher = teacher_or_self(student, rows)  # [n, C]
            gold = task_gold_loss(kind, student, rows["labels"], group, rows["has_label"])  # [n]
            soft = task_soft_loss(kind, student, teacher, group, self.distill_loss)  # [n]
            weight = torch.where(rows["has_teacher"], self.gold_weight * rows["has_label"], 1.0)  # [n]
            loss = weight * gold + (1.0 - weight) * soft
            losses[name] = loss_terms(rows, gold=gold, soft=soft, loss=loss)
        self.log_losses(losses)
        return self.reduce([task["loss"][0] for task in losses.values()])
