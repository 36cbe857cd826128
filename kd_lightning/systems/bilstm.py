"""Tang et al.: a BiLSTM that regresses the logits of BERT, also on sentences that augmentation wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import counted, soft_losses, teacher_or_self


class BiLstmStudent(NLUSystem):
    """Teach a student by its teacher's logits and, with some weight, by labels.

    ``gold_weight CE(y, student) + (1 - gold_weight) ||teacher - student||^2``; the paper's alpha is our gold weight,
    and 0 for its best model. A row without a gold label (unlabelled, or synthetic) has the class that its teacher
    finds most likely as its label; of a score, the teacher's own. A row without a teacher follows its label alone.

    Args:
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]`` for classes; scores always use the
            squared error.
        gold_weight: In [0, 1].
        **parts: See ``NLUSystem``.

    Raises:
        ValueError: If the weight is out of range, or the distillation loss does not give one value per row.

    Source: Tang et al. 2019, arXiv:1903.12136, section 3.2, equations 1 to 3.
    """

    learns_from_teachers = True

    def __init__(self, *, distill_loss: nn.Module, gold_weight: float = 0.0, **parts: Any) -> None:
        super().__init__(**parts)
        if not 0 <= gold_weight <= 1:
            raise ValueError(f"gold_weight is {gold_weight}, expected a number in [0, 1]")
        self.distill_loss, self.gold_weight = distill_loss, gold_weight
        self.soft_losses = soft_losses(self.tasks, distill_loss)
        self.scored = {task.name for task in self.tasks if task.kind == "regression"}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch against logits and labels."""
        hidden = self.encode(batch)  # [B, H]
        losses = {}
        for name, rows in batch["tasks"].items():
            student = self.logits(name, hidden, rows["rows"])  # [n, C]
            teacher = teacher_or_self(student, rows)
            found = teacher.squeeze(-1) if name in self.scored else teacher.argmax(-1)
            labels = torch.where(rows["has_label"], rows["labels"], found)
            gold = self.gold_losses[name](student, labels, rows["group"])  # [n]
            soft = self.soft_losses[name](student, teacher, rows["group"])  # [n]
            weight = torch.where(rows["has_teacher"], self.gold_weight, 1.0)  # [n]
            loss = weight * gold + (1.0 - weight) * soft
            losses[name] = counted(rows, gold=gold, soft=soft, loss=loss)
        self.log_losses(losses)
        return self.reduce([task["loss"][0] for task in losses.values()])
