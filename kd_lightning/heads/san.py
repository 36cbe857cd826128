"""MT-DNN's head of pair classification: a stochastic answer network that reads the tokens of both texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.encoders import TokenStates
from kd_lightning.heads.linear import linear_head
from kd_lightning.tasks import Task


def attend(scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the masked tokens, weighted by the softmax of their scores; 0 where there is none.

    Args:
        scores: ``[n, L]``.
        tokens: ``[n, L, H]``.
        mask: Which tokens count, bool ``[n, L]``.

    Returns:
        ``[n, H]``.
    """
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
    return torch.einsum("nl,nlh->nh", weights, tokens)


class SanHead(nn.Module):
    """Predict in several steps of reading, and average the steps' probabilities.

    A state begins as a summary of the second text (``a_j``: softmax over ``w_1 h_j``); each step looks at the first
    text with it (softmax over ``s W_2 p_j``), predicts from ``[s ; x ; |s - x| ; s * x]``, and moves on by a GRU.

    The logits are the logarithms of the mean probabilities, less their mean: so a squared error of logits, too, is
    least at the teacher's probabilities, whatever the level of its logits. In training, each step's prediction is left
    out with the rate of ``prediction_dropout``, never all of them; the mean is that of the steps that stay.

    Args:
        input_dim: H.
        num_labels: C, at least 2.
        num_steps: K; 5 in MT-DNN. One is a bilinear attention without a GRU.
        dropout: Dropout rate on the state between steps, and before the output layer.
        prediction_dropout: Rate at which a step's prediction is left out, in [0, 1).

    Raises:
        ValueError: If there is no step, or the rate is out of range.

    Source: Liu et al. 2018, arXiv:1804.07888 (SAN); Liu et al. 2019 (MT-DNN), arXiv:1901.11504, section 3.
    """

    reads_tokens = True
    """It takes ``TokenStates``."""

    def __init__(
        self,
        input_dim: int,
        num_labels: int,
        *,
        num_steps: int = 5,
        dropout: float = 0.1,
        prediction_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}, expected at least 1")
        if not 0 <= prediction_dropout < 1:
            raise ValueError(f"prediction_dropout is {prediction_dropout}, expected a number in [0, 1)")
        self.num_steps, self.prediction_dropout = num_steps, prediction_dropout
        self.summary = nn.Linear(input_dim, 1, bias=False)  # w_1; a bias adds the same to all scores
        self.attention = nn.Linear(input_dim, input_dim, bias=False)  # W_2
        self.cell = nn.GRUCell(input_dim, input_dim) if num_steps > 1 else None
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(4 * input_dim, num_labels)  # W_3
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, texts: TokenStates) -> Tensor:
        """Return logits ``[n, C]``, of mean 0 over the classes."""
        tokens = texts.tokens  # [n, L, H]
        state = attend(self.summary(tokens).squeeze(-1), tokens, texts.second)  # [n, H]
        steps = []
        for step in range(self.num_steps):
            found = attend(torch.einsum("nh,nlh->nl", self.attention(state), tokens), tokens, texts.first)  # [n, H]
            features = torch.cat([state, found, (state - found).abs(), state * found], dim=1)
            steps.append(self.output(self.dropout(features)).log_softmax(-1))
            if self.cell is not None and step + 1 < self.num_steps:
                state = self.cell(found, self.dropout(state))
        logits = self._mean(torch.stack(steps, dim=1))
        return logits - logits.mean(1, keepdim=True)

    def _mean(self, steps: Tensor) -> Tensor:
        """Return the logarithm of the mean probability of the steps, ``[n, K, C]`` to ``[n, C]``."""
        keep = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)  # [n, K]
        if self.training and self.prediction_dropout:
            draw = torch.rand(keep.shape, device=steps.device)
            keep = (draw >= self.prediction_dropout) | (draw == draw.amax(1, keepdim=True))
        kept = steps.masked_fill(~keep.unsqueeze(-1), -torch.inf)
        return kept.logsumexp(dim=1) - keep.sum(1, keepdim=True).to(steps.dtype).log()


def san_head(
    task: Task,
    input_dim: int,
    *,
    num_steps: int = 5,
    dropout: float = 0.1,
    prediction_dropout: float = 0.1,
    sigmoid: bool = True,
) -> nn.Module:
    """Return the task's head: a ``SanHead`` for the classes of a pair, else a linear head, as MT-DNN has it.

    Args:
        task: Its kind and texts choose the head.
        input_dim: H.
        num_steps: See ``SanHead``.
        dropout: Dropout rate of either head.
        prediction_dropout: See ``SanHead``.
        sigmoid: Whether a regression head ends in a sigmoid.
    """
    if task.kind == "classification" and task.is_pair:
        return SanHead(
            input_dim, task.num_labels, num_steps=num_steps, dropout=dropout, prediction_dropout=prediction_dropout
        )
    return linear_head(task, input_dim, dropout=dropout, sigmoid=sigmoid)
