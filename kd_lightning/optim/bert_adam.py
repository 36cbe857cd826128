"""The optimiser of BERT's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from kd_lightning.optim.closures import evaluated


class BertAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay and **no bias correction**, the optimiser of BERT's and BAM's code.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``, ``p = p - lr (m / (sqrt(v) + eps) + weight_decay p)``.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; return what the closure returns."""
        loss = evaluated(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["m"] = torch.zeros_like(parameter)
                    self.state[parameter]["v"] = torch.zeros_like(parameter)
            gradients = [p.grad for p in parameters]
            m = [self.state[p]["m"] for p in parameters]
            v = [self.state[p]["v"] for p in parameters]
            b1, b2 = group["betas"]
            torch._foreach_lerp_(m, gradients, 1 - b1)
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - b2)
            root = torch._foreach_sqrt(v)
            torch._foreach_add_(root, group["eps"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(parameters, m, root, -group["lr"])
        return loss
