"""BERT's head: dropout and one linear layer on the encoded text."""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.tasks import Task


class ClassificationHead(nn.Module):
    """Dropout and one linear layer on the encoded text (BERT's and BAM's head).

    Args:
        input_dim: H.
        num_labels: C, at least 2.
        dropout: Dropout rate before the layer; BAM uses 0.1.
    """

    def __init__(self, input_dim: int, num_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(input_dim, num_labels)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits ``[n, C]`` of ``hidden [n, H]``."""
        return self.output(self.dropout(hidden))


class RegressionHead(nn.Module):
    """Dropout and one linear unit, by default with a sigmoid: scores are in [0, 1].

    BAM's paper has the sigmoid, its code does not; ``sigmoid=False`` gives the code's head.

    Args:
        input_dim: H.
        dropout: Dropout rate before the layer.
        sigmoid: Whether the output passes a sigmoid.
    """

    def __init__(self, input_dim: int, dropout: float = 0.1, sigmoid: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(input_dim, 1)
        self.sigmoid = sigmoid
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return scores ``[n, 1]`` of ``hidden [n, H]``."""
        score = self.output(self.dropout(hidden))
        return score.sigmoid() if self.sigmoid else score


def linear_head(task: Task, input_dim: int, *, dropout: float = 0.1, sigmoid: bool = True) -> nn.Module:
    """Return the task's linear head: a ``ClassificationHead`` or a ``RegressionHead``.

    Args:
        task: Its kind chooses the head, its labels the width.
        input_dim: H.
        dropout: Dropout rate before the layer.
        sigmoid: Whether a regression head ends in a sigmoid; one that ranks has none.
    """
    if task.kind != "classification":
        return RegressionHead(input_dim, dropout, sigmoid and task.kind == "regression")
    return ClassificationHead(input_dim, task.num_labels, dropout)
