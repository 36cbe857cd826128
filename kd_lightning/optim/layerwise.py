"""Learning rates that fall with the distance from the heads, as BAM states and codes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.encoders import Encoder
from kd_lightning.optim.sparse import check_takes_rows, has_sparse_gradients, takes_rows

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
            raise ValueError(f"lr is {lr}, expected a number above 0")
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay is {layer_decay}, expected a number in (0, 1]")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay is {weight_decay}, expected a number of at least 0")
        self.optimizer = optimizer
        self.lr, self.layer_decay, self.weight_decay = lr, layer_decay, weight_decay

    @property
    def takes_rows(self) -> bool:
        """Whether the optimiser does the same with sparse gradients as with dense ones."""
        return takes_rows(self.optimizer)

    def __call__(self, encoder: Encoder, heads: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser over all trainable parameters of both.

        Raises:
            ValueError: If the encoder's gradients are sparse, and the optimiser with its settings does not take such.
        """
        groups = layerwise_groups(
            encoder, heads, lr=self.lr, layer_decay=self.layer_decay, weight_decay=self.weight_decay
        )
        optimizer = self.optimizer(groups)
        if has_sparse_gradients(encoder):
            check_takes_rows(optimizer)
        return optimizer
