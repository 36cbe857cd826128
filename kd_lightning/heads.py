"""Task heads: from an encoded text ``[n, H]`` to logits ``[n, C]`` or to a score ``[n, 1]``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kd_lightning.tasks import Task

HeadFactory = Callable[[Task, int], nn.Module]
"""(task, H) -> a module from ``[n, H]`` to ``[n, task.num_labels]``."""


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


class SiameseHead(nn.Module):
    """A hidden layer with ReLU and an output layer, over the texts that a siamese encoder read one by one.

    Of a pair the features are ``[h_a ; h_b ; h_a * h_b ; |h_a - h_b|]``, of a single text ``h_a``.

    Args:
        text_dim: D, half of the encoder's output ``[h_a ; h_b]``.
        num_outputs: C classes, or 1 for a score.
        is_pair: Whether there is a second text.
        hidden_size: Size of the hidden layer: 200 or 400 in the paper.
        dropout: Dropout rate before the output layer.
        sigmoid: Whether the output, a score, passes a sigmoid.

    Raises:
        ValueError: If there is no hidden layer.

    Source: Tang et al. 2019, arXiv:1903.12136, section 3.1.
    """

    reads_texts_apart = True
    """It needs an encoder that returns ``[first ; second]``."""

    def __init__(
        self, text_dim: int, num_outputs: int, *, is_pair: bool, hidden_size: int, dropout: float, sigmoid: bool
    ) -> None:
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size is {hidden_size}, expected at least 1")
        self.is_pair, self.sigmoid = is_pair, sigmoid
        self.hidden = nn.Linear(text_dim * (4 if is_pair else 1), hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, num_outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``[n, C]`` of ``hidden [n, 2D]``."""
        first, second = hidden.chunk(2, dim=1)
        features = torch.cat([first, second, first * second, (first - second).abs()], dim=1) if self.is_pair else first
        found = self.output(self.dropout(self.hidden(features).relu()))
        return found.sigmoid() if self.sigmoid else found


def siamese_head(
    task: Task, input_dim: int, *, hidden_size: int = 200, dropout: float = 0.0, sigmoid: bool = True
) -> nn.Module:
    """Return the task's ``SiameseHead``.

    Args:
        task: Its kind and labels choose the outputs, its texts the features.
        input_dim: 2D, the encoder's output ``[h_a ; h_b]``.
        hidden_size: Size of the hidden layer.
        dropout: Dropout rate before the output layer.
        sigmoid: Whether a score passes a sigmoid.
    """
    score = task.kind == "regression"
    return SiameseHead(
        input_dim // 2,
        task.num_labels,
        is_pair=task.is_pair,
        hidden_size=hidden_size,
        dropout=dropout,
        sigmoid=sigmoid and score,
    )


def linear_head(task: Task, input_dim: int, *, dropout: float = 0.1, sigmoid: bool = True) -> nn.Module:
    """Return the task's linear head: a ``ClassificationHead`` or a ``RegressionHead``.

    Args:
        task: Its kind chooses the head, its labels the width.
        input_dim: H.
        dropout: Dropout rate before the layer.
        sigmoid: Whether a regression head ends in a sigmoid.
    """
    if task.kind == "regression":
        return RegressionHead(input_dim, dropout, sigmoid)
    return ClassificationHead(input_dim, task.num_labels, dropout)
