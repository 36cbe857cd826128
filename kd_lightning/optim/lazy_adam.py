"""Adam whose step costs what a batch touches: over large tables of word vectors, rows without a gradient rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kd_lightning.optim.row_optimizer import RowOptimizer


class LazyAdam(RowOptimizer):
    """Adam in which a row of a matrix without a gradient rests: it stays where it is, and so do its moments.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``, ``p = p - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)``
    with t the steps in which the parameter had a gradient. Adam itself moves every row at every step by what is left of
    ``m``; where all rows have a gradient, both are the same. A row of zeros in a dense gradient counts as none, so that
    sparse gradients, as ``WordEmbedding`` gives them with ``sparse=True``, lead to the very parameters that dense ones
    do; so do rows of other matrices, such as those of ReLU units that no row of a batch reaches. Vectors and
    scalars never rest.

    t is the parameter's, not the row's: the moments of a word that is first met late are hardly corrected, and its
    first steps of one sign are up to 6.6 times ``lr`` with the usual betas.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay rates of the two moments, in [0, 1).
        eps: Added to the root of the second moment.

    Raises:
        ValueError: If a value is out of range, or a group has weight decay, which would move every row at every step.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; rows rest as in ``torch.optim.SparseAdam``, which takes no
        dense gradients.
    """

    takes_rows = True
    """Sparse gradients give the parameters that dense ones do."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is {lr}, expected a number of at least 0")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are {tuple(betas)}, expected two numbers in [0, 1)")
        if not eps > 0:
            raise ValueError(f"eps is {eps}, expected a number above 0")
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps)

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step = int(state["step"])
        if not grad.is_sparse or grad.ndim == 1:
            parameter.sub_(_delta(grad.to_dense(), state["m"], state["v"], step, group))
            return
        grad = grad.coalesce()
        rows = grad.indices()[0]
        m, v = state["m"][rows], state["v"][rows]
        parameter.index_add_(0, rows, _delta(grad.values(), m, v, step, group), alpha=-1)
        state["m"].index_copy_(0, rows, m)
        state["v"].index_copy_(0, rows, v)


def _delta(grad: Tensor, m: Tensor, v: Tensor, step: int, group: dict[str, Any]) -> Tensor:
    """Return by how much a gradient moves its parameter, and bring both moments up to date in place.

    Rows without a gradient are masked rather than looked for, for which a GPU would have to be waited.
    """
    b1, b2 = group["betas"]
    if grad.ndim < 2:
        m.lerp_(grad, 1 - b1)
        v.mul_(b2)
        rests = None
    else:
        largest = grad.abs().flatten(1).amax(1)  # NaN if one is
        rests = largest.eq(0).view(-1, *[1] * (grad.ndim - 1))  # [rows, 1, ...]
        moved = (~rests).to(grad.dtype)
        m.lerp_(grad, moved * (1 - b1))
        v.mul_(1 - moved * (1 - b2))
    v.addcmul_(grad, grad, value=1 - b2)
    root = (v / (1 - b2**step)).sqrt_().add_(group["eps"])
    delta = m.div(root).mul_(group["lr"] / (1 - b1**step))
    return delta if rests is None else delta.masked_fill_(rests, 0)  # 0 / 0 where eps is 0, as 1e-8 is in float16
