"""Kullback-Leibler divergence from the student to the teacher: zero if, and only if, they agree."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.checks import check_shapes, check_temperature


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return ``T^2 KL(softmax(teacher / T) || softmax(student / T))`` of each example, in nats.

    Its gradient is that of ``soft_cross_entropy``; its value is smaller by the teacher's entropy.

    Args:
        student: Logits ``[B, C]``.
        teacher: Logits ``[B, C]``; they receive no gradient.
        temperature: T > 0.

    Returns:
        Loss per example, ``[B]``, at least 0.

    Raises:
        ValueError: If the shapes differ or there are fewer than two classes.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> kl_divergence(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.])
    """
    check_shapes(student, teacher, min_classes=2)
    target = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    log_p = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_p, target, reduction="none", log_target=True).sum(-1) * temperature**2


class KLDivergence(nn.Module):
    """The module of ``kl_divergence``, with its temperature.

    Args:
        temperature: T > 0.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss per example ``[B]`` of logits ``[B, C]``."""
        return kl_divergence(student, teacher, self.temperature)
