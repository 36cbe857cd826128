"""Optimisers with layer-wise learning rates, and the learning-rate schedule, as BAM states and codes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.encoders import Encoder

TorchOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
LearningRateSchedule = Callable[[float], float]
"""Progress in [0, 1] -> factor on the learning rate."""


def _decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: not to biases, nor to normalisation layers (all of them vectors)."""
    return parameter.ndim > 1 and not name.endswith("bias")


def layerwise_groups(
    encoder: Encoder, heads: nn.Module, *, lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return parameter groups whose learning rate falls with the distance from the heads.

    ``lr(depth) = lr * layer_decay ** (n + 2 - depth)`` with n encoder layers; depth is 0 for the embeddings, i + 1 for
    layer i, n + 1 for the pooler and n + 2 for the heads, which train at the full rate.

    Args:
        encoder: Its ``depth`` places each of its parameters.
        heads: The task heads.
        lr: Learning rate of the heads, above 0.
        layer_decay: Factor per layer, in (0, 1]; 1 gives one rate for all.
        weight_decay: Decoupled weight decay, not applied to biases and normalisation layers.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``depth``, the heads' last.

    Source: Clark et al. 2019 (BAM), arXiv:1907.04829, section 3, after Howard and Ruder 2018.
    """
    top = encoder.num_layers + 2
    placed = [(encoder.depth(name), name, p) for name, p in encoder.named_parameters()]
    placed += [(top, name, p) for name, p in heads.named_parameters()]
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for depth, name, parameter in placed:
        if parameter.requires_grad:
            where = depth if layer_decay < 1 else top  # one rate for all needs no groups by depth
            groups.setdefault((where, _decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * layer_decay ** (top - depth),
            "weight_decay": weight_decay if decays else 0.0,
            "depth": depth,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


class LayerwiseOptimizer:
    """Build a torch optimiser over the layer-wise groups of an encoder and its heads.

    Args:
        optimizer: Takes parameter groups, returns the torch optimiser.
        lr: Learning rate of the heads, above 0.
        layer_decay: Factor per layer towards the input, in (0, 1].
        weight_decay: Decoupled weight decay.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self, optimizer: TorchOptimizer, lr: float, layer_decay: float = 1.0, weight_decay: float = 0.0
    ) -> None:
        if not lr > 0:
            raise ValueError(f"optimizer.lr is {lr}, expected a number above 0")
        if not 0 < layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay is {layer_decay}, expected a number in (0, 1]")
        if not weight_decay >= 0:
            raise ValueError(f"optimizer.weight_decay is {weight_decay}, expected a number of at least 0")
        self.optimizer = optimizer
        self.lr, self.layer_decay, self.weight_decay = lr, layer_decay, weight_decay

    def __call__(self, encoder: Encoder, heads: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over all trainable parameters of both."""
        groups = layerwise_groups(
            encoder, heads, lr=self.lr, layer_decay=self.layer_decay, weight_decay=self.weight_decay
        )
        return self.optimizer(groups)


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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
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


class LinearWarmup:
    """Raise the learning rate linearly over the warm-up, then lower it linearly to 0.

    Args:
        warmup: Share of the steps spent warming up, in [0, 1).
        decay_from_start: Count the decay from step 0, as BERT's and BAM's code do: the factor is ``1 - progress`` after
            the warm-up, so it drops from 1 to ``1 - warmup`` there. False decays from 1 at the end of the warm-up.

    Raises:
        ValueError: If the warm-up is out of range.

    Example:
        >>> round(LinearWarmup(warmup=0.1)(0.55), 6)
        0.5
    """

    def __init__(self, warmup: float = 0.1, decay_from_start: bool = False) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"scheduler.warmup is {warmup}, expected a number in [0, 1)")
        self.warmup, self.decay_from_start = warmup, decay_from_start

    def __call__(self, progress: float) -> float:
        """Return the factor on the learning rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        left = max(0.0, 1.0 - progress)
        return left if self.decay_from_start else left / (1.0 - self.warmup)


class ConstantRate:
    """Keep the learning rate as it is."""

    def __call__(self, progress: float) -> float:
        """Return 1."""
        return 1.0
