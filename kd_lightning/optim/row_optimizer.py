"""What optimisers share whose step costs what a batch touches: one update per parameter, no weight decay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kd_lightning.optim.closures import evaluated


class RowOptimizer(torch.optim.Optimizer, ABC):
    """Update each parameter by its gradient, sparse or dense, to the same result.

    Args:
        params: Parameters or groups of them.
        **defaults: Settings of a group.

    Raises:
        ValueError: If a group has weight decay, which would move every row at every step.
    """

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        super().__init__(params, defaults)
        if any(group.get("weight_decay") for group in self.param_groups):
            raise ValueError(f"{type(self).__name__} has no weight decay: set optimizer.weight_decay=0")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; return what the closure returns."""
        loss = evaluated(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    @abstractmethod
    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """Move a parameter, and bring its state up to date."""
