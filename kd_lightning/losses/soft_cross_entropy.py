"""Soft cross-entropy: the teacher's class probabilities as target (BAM and MT-DNN-KD at temperature 1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.checks import check_shapes, check_temperature


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return ``T^2 H(softmax(teacher / T), softmax(student / T))`` of each example, in nats.

    Args:
        student: Logits ``[B, C]``.
        teacher: Logits ``[B, C]``; they receive no gradient.
        temperature: T > 0. The factor T^2 keeps the size of the gradient comparable across T.

    Returns:
        Loss per example, ``[B]``; its minimum is the entropy of the teacher, not 0 (see ``kl_divergence``).

    Raises:
        ValueError: If the shapes differ or there are fewer than two classes.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2; at T = 1 Clark et al. 2019 (BAM), arXiv:1907.04829.

    Example:
        >>> import torch
        >>> soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.6931])
    """
    check_shapes(student, teacher, min_classes=2)
    target = F.softmax(teacher.detach().float() / temperature, dim=-1)
    return -(target * F.log_softmax(student.float() / temperature, dim=-1)).sum(-1) * temperature**2


class SoftCrossEntropy(nn.Module):
    """The module of ``soft_cross_entropy``, with its temperature.

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
        return soft_cross_entropy(student, teacher, self.temperature)
