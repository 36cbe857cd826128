"""Learning rates that fall with the distance from the heads, as BAM states and codes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.encoders import Encoder

TAKE_ROWS = (torch.optim.SGD, torch.optim.Adagrad)
"""Torch's optimisers that take sparse gradients, and dense ones as well; not with weight decay, nor fused."""

TorchOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


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


def has_sparse_gradients(encoder: Encoder) -> bool:
    """Tell whether the gradient of some embedding has the rows of the batch only."""
    return any(getattr(m, "sparse", False) and any(p.requires_grad for p in m.parameters()) for m in encoder.modules())


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

    @property
    def takes_rows(self) -> bool:
        """Whether sparse gradients lead the optimiser where dense ones do: it says so itself, by ``takes_rows``."""
        return bool(getattr(getattr(self.optimizer, "func", self.optimizer), "takes_rows", False))

    def __call__(self, encoder: Encoder, heads: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over all trainable parameters of both.

        Raises:
            ValueError: If the encoder's gradients are sparse, and the optimiser with its settings does not take such.
        """
        groups = layerwise_groups(
            encoder, heads, lr=self.lr, layer_decay=self.layer_decay, weight_decay=self.weight_decay
        )
        optimizer = self.optimizer(groups)
        if has_sparse_gradients(encoder) and not self.takes_rows:
            named = [name for name in ("weight_decay", "fused") if any(g.get(name) for g in optimizer.param_groups)]
            if named or not isinstance(optimizer, TAKE_ROWS):
                how = f" with {' and '.join(named)}" if isinstance(optimizer, TAKE_ROWS) else ""
                raise ValueError(
                    f"encoder.sparse is true, but {type(optimizer).__name__}{how} does not take sparse and dense "
                    "gradients alike: encoder.sparse=null, or optimizer=adadelta"
                )
        return optimizer
