"""Squared distance of logits (Tang et al.) or of scores (BAM's regression)."""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.losses.checks import check_shapes


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over classes of ``(student - teacher)^2`` of each example.

    Tang et al. write the squared L2 distance, which is C times this mean; with scores (C = 1) both agree.

    Args:
        student: Logits or scores ``[B, C]``.
        teacher: Logits or scores ``[B, C]``; they receive no gradient.

    Returns:
        Loss per example, ``[B]``.

    Raises:
        ValueError: If the shapes differ.

    Source: Tang et al. 2019, arXiv:1903.12136, equation 2.

    Example:
        >>> import torch
        >>> logit_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([2.])
    """
    check_shapes(student, teacher, min_classes=1)
    return (student.float() - teacher.detach().float()).square().mean(-1)


class LogitMSE(nn.Module):
    """The module of ``logit_mse``."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss per example ``[B]`` of logits ``[B, C]``."""
        return logit_mse(student, teacher)
