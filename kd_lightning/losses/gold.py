"""The loss against gold labels: cross-entropy for classes, squared error for scores."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gold_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each example against its gold label.

    Args:
        logits: Logits ``[B, C]``, or scores ``[B, 1]``.
        labels: Class indices int64 ``[B]`` (cross-entropy), or scores in [0, 1] float ``[B]`` (squared error).

    Returns:
        Loss per example, ``[B]``.

    Raises:
        ValueError: If scores are given for several classes.

    Example:
        >>> import torch
        >>> gold_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.6931])
        >>> gold_loss(torch.tensor([[0.5]]), torch.tensor([1.0]))
        tensor([0.2500])
    """
    if not labels.is_floating_point():
        return F.cross_entropy(logits.float(), labels, reduction="none")
    if logits.shape[-1] != 1:
        raise ValueError(f"scores as labels need logits [B, 1], got {tuple(logits.shape)}")
    return (logits.float().squeeze(-1) - labels).square()
