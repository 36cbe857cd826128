"""Tang et al.: a BiLSTM that regresses the logits of BERT, also on sentences that augmentation wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.losses.checks import check_gold_weight, check_per_row
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import (
    loss_terms,
    pseudo_labels,
    task_gold_loss,
    task_soft_loss,
    teacher_or_self,
)


class BiLstmStudent(NLUSystem):
    """Teach a student by its teacher's logits and, with some weight, by labels.

    ``gold_weight CE(y, student) + (1 - gold_weight) ||teacher - student||^2``; the paper's alpha is our gold weight,
    and 0 for its best model. A row without a gold label (unlabelled, or synthetic) has the class that its teacher
    finds most likely as its label; of a score, the teacher's own; of a question's candidates, the teacher's first.
    A row without a teacher follows its label alone.

    Args:
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]`` for classes; scores always use the
            squared error, the candidates of a question a cross-entropy over them.
        gold_weight: In [0, 1].
        **parts: See ``NLUSystem``.

    Raises:
        ValueError: If the weight is out of range, or the distillation loss does not give one value per row.

    Source: Tang et al. 2019, arXiv:1903.12136, section 3.2, equations 1 to 3.
    """

    learns_from_teachers = True

    def __init__(self, *, distill_loss: nn.Module, gold_weight: float = 0.0, **parts: Any) -> None:
        super().__init__(**parts)
        check_gold_weight(gold_weight)
        check_per_row(distill_loss)
        self.distill_loss, self.gold_weight = distill_loss, gold_weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch against logits and labels."""
        hidden = self.encode(batch)  # [B, H]
        losses = {}
        for name, rows in batch["tasks"].items():
            kind, group = self.kinds[name], rows["group"]
            student = self.logits(name, hidden, rows["rows"])  # [n, C]
            teacher = teacher_or_self(student, rows)  # [n, C]
            labels = torch.where(rows["has_label"], rows["labels"], pseudo_labels(kind, teacher, group))  # [n]
            gold = task_gold_loss(kind, student, labels, group)  # [n]
            soft = task_soft_loss(kind, student, teacher, group, self.distill_loss)  # [n]
            weight = torch.where(rows["has_teacher"], self.gold_weight, 1.0)  # [n]
            loss = weight * gold + (1.0 - weight) * soft
            losses[name] = loss_terms(rows, gold=gold, soft=soft, loss=loss)
        self.log_losses(losses)
        return self.reduce([task["loss"][0] for task in losses.values()])
