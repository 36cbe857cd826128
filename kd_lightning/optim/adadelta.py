"""AdaDelta whose step costs what a batch touches: the optimiser of Tang et al. over large tables of word vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kd_lightning.optim.row_optimizer import RowOptimizer


class AdaDelta(RowOptimizer):
    """AdaDelta, exact also where only the rows of a batch have a gradient.

    ``v = rho v + (1 - rho) g^2``, ``d = sqrt(u + eps) / sqrt(v + eps) g``, ``u = rho u + (1 - rho) d^2``,
    ``p = p - lr d``. A row without a gradient does not move, and its ``v`` and ``u`` only shrink by rho at each step:
    they are made up for, all at once, when the row is next touched. So sparse gradients, as ``WordEmbedding`` gives
    them with ``sparse=True``, lead to the very parameters that dense ones do. A run may go on with the other kind, as
    it does on other hardware.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate; 1.0 in the paper.
        rho: Decay rate of both averages; 0.95 in the paper.
        eps: Added under both roots.

    Raises:
        ValueError: If a value is out of range, or a group has weight decay, which would move every row at every step.

    Source: Zeiler 2012, arXiv:1212.5701, algorithm 1; Tang et al. 2019, arXiv:1903.12136, section 4.3.
    """

    takes_rows = True
    """Sparse gradients give the parameters that dense ones do."""

    def __init__(self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.95, eps: float = 1e-6) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is {lr}, expected a number of at least 0")
        if not 0 <= rho < 1:
            raise ValueError(f"rho is {rho}, expected a number in [0, 1)")
        if not eps > 0:
            raise ValueError(f"eps is {eps}, expected a number above 0")
        super().__init__(params, lr=lr, rho=rho, eps=eps)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; torch would turn the numbers of steps into the parameters' type."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, state in state_dict["state"].items():
            if "last" in state:
                self.state[parameters[number]]["last"] = state["last"].to(parameters[number].device, copy=True)

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, rho = self.state[parameter], group["rho"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["square"], state["delta"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        done = state["step"].item()
        state["step"] += 1
        if not grad.is_sparse:
            if "last" in state:
                missed = _missed(rho, done, state.pop("last"), state["square"])
                state["square"].mul_(missed)
                state["delta"].mul_(missed)
            parameter.sub_(group["lr"] * _delta(grad, state["square"], state["delta"], rho, group["eps"]))
            return
        if "last" not in state:
            state["last"] = torch.full((len(parameter),), done, dtype=torch.int64, device=parameter.device)
        grad = grad.coalesce()
        rows = grad.indices()[0]
        missed = _missed(rho, done, state["last"][rows], state["square"])
        square, delta = state["square"][rows] * missed, state["delta"][rows] * missed
        parameter.index_add_(0, rows, _delta(grad.values(), square, delta, rho, group["eps"]), alpha=-group["lr"])
        for name, values in (("square", square), ("delta", delta)):
            state[name].index_copy_(0, rows, values)
        state["last"][rows] = done + 1


def _missed(rho: float, done: int, last: Tensor, like: Tensor) -> Tensor:
    """Return by how much averages of rows shrank since the steps ``last [n]`` that touched them, ``[n, 1, ...]``."""
    return rho ** (done - last).to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _delta(grad: Tensor, square: Tensor, delta: Tensor, rho: float, eps: float) -> Tensor:
    """Return the step of a gradient, and bring both averages up to date in place."""
    square.mul_(rho).addcmul_(grad, grad, value=1 - rho)
    found = (delta + eps).sqrt_().div_((square + eps).sqrt_()).mul_(grad)
    delta.mul_(rho).addcmul_(found, found, value=1 - rho)
    return found
