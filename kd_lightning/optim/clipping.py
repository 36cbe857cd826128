"""Clipping of the gradient, also of gradients that have the rows of a batch only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scale all gradients by one factor, so that their global norm is at most ``max_norm``.

    Args:
        parameters: Those with a gradient count; it may be sparse, which ``torch.nn.utils.clip_grad_norm_`` refuses.
        max_norm: Above 0.
    """
    sparse = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
    if not sparse:
        nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    for parameter in sparse:
        assert parameter.grad is not None
        parameter.grad = parameter.grad.coalesce()  # a word that occurs twice has one gradient
    gradients = (p.grad for p in parameters if p.grad is not None)
    found = [g.values() if g.is_sparse else g for g in gradients]
    factor = (max_norm / (nn.utils.get_total_norm(found) + 1e-6)).clamp(max=1.0)  # as torch has it
    for gradient in found:
        gradient.mul_(factor)
