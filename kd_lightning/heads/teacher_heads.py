"""TMKD's heads: one that learns from labels, and one for each teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.heads.base import HeadFactory
from kd_lightning.tasks import Task


class TeacherHeads(nn.Module):
    """A golden head beside one soft head per teacher, all on the same states.

    Args:
        gold: The head that learns from labels.
        soft: The heads that learn from the teachers, in their order; none in a task without teachers.

    Source: Yang et al. 2019 (TMKD), arXiv:1910.08381, figure 1.
    """

    def __init__(self, gold: nn.Module, soft: list[nn.Module]) -> None:
        super().__init__()
        self.gold, self.soft = gold, nn.ModuleList(soft)
        self.reads_tokens = getattr(gold, "reads_tokens", False)
        self.reads_texts_apart = getattr(gold, "reads_texts_apart", False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits of all heads, the golden one's first, ``[n, 1 + T, C]``, of ``hidden [n, H]``."""
        return torch.stack([head(hidden) for head in (self.gold, *self.soft)], dim=1)


def teacher_heads(task: Task, input_dim: int, *, head: HeadFactory, teachers: int) -> TeacherHeads:
    """Return the heads of a task, all of one kind.

    Args:
        task: Their task.
        input_dim: H.
        head: Builds each of them.
        teachers: T.
    """
    return TeacherHeads(head(task, input_dim), [head(task, input_dim) for _ in range(teachers)])
