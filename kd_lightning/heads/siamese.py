"""The head of Tang et al.: a hidden layer over two texts that were read apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.tasks import Task


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
