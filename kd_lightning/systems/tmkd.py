"""TMKD: a head per teacher, in distillation pre-training and in fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.ensembling import mean_logits
from kd_lightning.fields import is_whole
from kd_lightning.heads import HeadFactory, teacher_heads
from kd_lightning.losses.checks import check_gold_weight, check_per_row
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import loss_terms, task_gold_loss, task_soft_loss, teacher_or_self

HEADS = {"all": slice(None), "gold": slice(1), "soft": slice(1, None)}
"""Whose predictions are averaged -> their places among the heads."""


class TmkdStudent(NLUSystem):
    """Teach a golden head by labels and one soft head by each teacher, on the same encoder.

    ``gold_weight CE(y, golden head) + (1 - gold_weight) 1/T sum_i distill_loss(teacher i, soft head i)``; the paper's
    alpha is 1 - gold weight. In distillation pre-training, its first stage, the rows have no labels (or the gold
    weight is 0), and soft heads alone learn. What is predicted is the mean of all heads' probabilities, of scores the
    mean score. A task without teachers has its golden head alone.

    Args:
        head: Builds each head of a task.
        task_heads: Task -> what builds its heads instead.
        teachers: Task -> number of its teachers; each has a head.
        distill_loss: ``(student_logits [n, C], teacher_logits [n, C]) -> [n]`` for classes, in the paper the mean
            over classes of squared differences; scores always use the squared error, the candidates of a question a
            cross-entropy over them.
        gold_weight: Weight of the labels where there are teachers, in [0, 1].
        predicts: Whose predictions are averaged: ``all`` heads', the ``gold`` head's, or the ``soft`` heads'.
        **parts: See ``NLUSystem``.

    Raises:
        ValueError: If the weight is out of range, the distillation loss does not give one value per row, ``teachers``
            names no task or no number, or ``predicts`` is none of the three, or leaves a task without a head.

    Source: Yang et al. 2019, arXiv:1910.08381, section 3, equations 1 to 6.
    """

    learns_from_teachers = True
    has_teacher_heads = True

    def __init__(
        self,
        *,
        head: HeadFactory,
        task_heads: Mapping[str, HeadFactory] | None = None,
        teachers: Mapping[str, int],
        distill_loss: nn.Module,
        gold_weight: float = 0.1,
        predicts: Literal["all", "gold", "soft"] = "all",
        **parts: Any,
    ) -> None:
        names = [task.name for task in parts["tasks"]]
        _check_teachers(teachers, names)
        own = {name: (task_heads or {}).get(name, head) for name in names}
        beside = {name: partial(teacher_heads, head=own[name], teachers=teachers.get(name, 0)) for name in names}
        super().__init__(head=head, task_heads=beside, **parts)
        check_gold_weight(gold_weight)
        check_per_row(distill_loss)
        if predicts not in HEADS:
            raise ValueError(f"predicts is '{predicts}', expected one of {', '.join(HEADS)}")
        untaught = [name for name in names if not teachers.get(name, 0)]
        if predicts == "soft" and untaught:
            raise ValueError(f"predicts is 'soft', but {untaught[0]} has no teacher, and no soft head")
        self.distill_loss, self.gold_weight, self.predicts = distill_loss, gold_weight, predicts

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch, each teacher against its own head."""
        hidden = self.encode(batch)  # [B, H]
        losses = {}
        for name, rows in batch["tasks"].items():
            kind, group = self.kinds[name], rows["group"]
            golden, *soft_heads = self.logits(name, hidden, rows["rows"]).unbind(1)  # 1 + T times [n, C]
            if not soft_heads and rows["teacher_logits"].dim() == 3:
                raise ValueError(f"task {name} has rows of a teacher, but no soft head: teachers says nothing of it")
            teachers = teacher_or_self(torch.stack(soft_heads, 1), rows).unbind(1) if soft_heads else ()
            each = [
                task_soft_loss(kind, student, teacher, group, self.distill_loss)  # l_si, equation 3
                for student, teacher in zip(soft_heads, teachers, strict=True)
            ]
            gold = task_gold_loss(kind, golden, rows["labels"], group, rows["has_label"])  # [n]; l_g, equation 2
            soft = torch.stack(each).mean(0) if each else torch.zeros_like(gold)  # [n]; l_s, equation 4
            weight = torch.where(rows["has_teacher"], self.gold_weight * rows["has_label"], 1.0)  # [n]
            loss = weight * gold + (1.0 - weight) * soft  # equation 5
            losses[name] = loss_terms(rows, gold=gold, soft=soft, loss=loss)
        self.log_losses(losses)
        return self.reduce([task["loss"][0] for task in losses.values()])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return task -> logits ``[n, C]`` of the mean of its heads' predictions (equation 6)."""
        chosen = HEADS[self.predicts]
        return {name: mean_logits(every[:, chosen]) for name, every in super().forward(batch).items()}


def _check_teachers(teachers: Mapping[str, int], tasks: Sequence[str]) -> None:
    for name, count in teachers.items():
        if name not in tasks:
            raise ValueError(f"teachers names the task {name}, expected some of {', '.join(tasks)}")
        if not is_whole(count, 0):
            raise ValueError(f"teachers.{name} is {count!r}, expected a whole number of at least 0")
