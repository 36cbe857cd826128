"""Clipping of the gradient, also of gradients that have the rows of a batch only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def clip_norm(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scale all gradients by one factor, so that their global norm is at most ``max_norm``.

    Args:
        parameters: Those with a gradient count; it may be sparse, which ``torch.nn.utils.clip_grad_norm_`` refuses.
        max_norm: Above 0.
    """
    if not any(p.grad.is_sparse for p in parameters if p.grad is not None):
        nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    found = _gradients(parameters)
    factor = (max_norm / (nn.utils.get_total_norm(found) + 1e-6)).clamp(max=1.0)  # as torch has it
    for gradient in found:
        gradient.mul_(factor)


def clip_values(parameters: Sequence[Tensor], limit: float) -> None:
    """Cut every number of the gradients to ``[-limit, limit]``; they may be sparse."""
    for gradient in _gradients(parameters):
        gradient.clamp_(-limit, limit)


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients in dense tensors: of a sparse one the values, each row of it once."""
    found = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()  # a word that occurs twice has one gradient
            found.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    return found
