"""Squared distance of logits (Tang et al.) or of scores (BAM's regression)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from kd_lightning.losses.checks import check_shapes


def logit_mse(student: Tensor, teacher: Tensor, over_classes: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return the mean, or the sum, over classes of ``(student - teacher)^2`` of each example.

    Tang et al. write the squared L2 distance, the sum; with scores (C = 1) both agree.

    Args:
        student: Logits or scores ``[B, C]``.
        teacher: Logits or scores ``[B, C]``; they receive no gradient.
        over_classes: ``"mean"`` or ``"sum"``.

    Returns:
        Loss per example, ``[B]``.

    Raises:
        ValueError: If the shapes differ, or ``over_classes`` is neither.

    Source: Tang et al. 2019, arXiv:1903.12136, equation 2.

    Example:
        >>> import torch
        >>> logit_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([2.])
    """
    check_shapes(student, teacher, min_classes=1)
    _check_reduction(over_classes)
    squares = (student.float() - teacher.detach().float()).square()
    return squares.sum(-1) if over_classes == "sum" else squares.mean(-1)


def _check_reduction(over_classes: str) -> None:
    if over_classes not in ("mean", "sum"):
        raise ValueError(f"over_classes is '{over_classes}', expected 'mean' or 'sum'")


class LogitMSE(nn.Module):
    """The module of ``logit_mse``.

    Args:
        over_classes: ``"mean"``, or ``"sum"`` as Tang et al. write it.

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, over_classes: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        _check_reduction(over_classes)
        self.over_classes: Literal["mean", "sum"] = over_classes

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss per example ``[B]`` of logits ``[B, C]``."""
        return logit_mse(student, teacher, self.over_classes)
