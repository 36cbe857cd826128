"""BAM: born-again multi-task networks, with teacher annealing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.annealing import AnnealingSchedule
from kd_lightning.batch import Batch
from kd_lightning.losses.checks import check_per_row
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import loss_terms, task_gold_loss, task_soft_loss, teacher_or_self


class BamStudent(NLUSystem):
    """Teach one student by the teachers of its tasks, moving from their predictions to the gold labels.

    The paper mixes targets, ``loss(lambda y + (1 - lambda) teacher, student)``; we mix losses,
    ``lambda loss(y, student) + (1 - lambda) loss(teacher, student)``. For cross-entropy both are equal, for squared
    error they differ by a constant: the gradient is the paper's, and other distillation losses fit in as well.
    A row without a gold label follows its teacher, a row without a teacher its label.

    Args:
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]`` for classes; scores always use the
            squared error, the candidates of a question a cross-entropy over them.
        annealing: Progress in [0, 1] -> gold weight (the paper's lambda).
        **parts: See ``NLUSystem``.

    Raises:
        ValueError: If the distillation loss does not give one value per row.

    Source: Clark et al. 2019, arXiv:1907.04829, section 3.
    """

    learns_from_teachers = True

    def __init__(self, *, distill_loss: nn.Module, annealing: AnnealingSchedule, **parts: Any) -> None:
        super().__init__(**parts)
        check_per_row(distill_loss)
        self.distill_loss, self.annealing = distill_loss, annealing

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the annealed loss of the batch."""
        gold_weight = self.annealing(self.progress)  # lambda: 0 -> 1
        hidden = self.encode(batch)  # [B, H]
        losses = {}
        for name, rows in batch["tasks"].items():
            kind, group = self.kinds[name], rows["group"]
            student = self.logits(name, hidden, rows["rows"])  # [n, C]
            teacher = teacher_or_self(student, rows)  # [n, C]
            gold = task_gold_loss(kind, student, rows["labels"], group, rows["has_label"])  # [n]
            soft = task_soft_loss(kind, student, teacher, group, self.distill_loss)  # [n]
            weight = torch.where(rows["has_teacher"], gold_weight * rows["has_label"], 1.0)  # [n]
            loss = weight * gold + (1.0 - weight) * soft
            losses[name] = loss_terms(rows, gold=gold, soft=soft, loss=loss)
        self.log_losses(losses, gold_weight=gold_weight)
        return self.reduce([task["loss"][0] for task in losses.values()])
