"""Gradients of an embedding that have the rows of the batch only: which optimisers take them."""

from __future__ import annotations

from typing import Any

import torch

from kd_lightning.encoders import Encoder

TAKE_ROWS = (torch.optim.SGD, torch.optim.Adagrad)
"""Torch's optimisers that take sparse gradients, and dense ones as well; not with weight decay, nor fused."""


def has_sparse_gradients(encoder: Encoder) -> bool:
    """Tell whether the gradient of some embedding has the rows of the batch only."""
    return any(getattr(m, "sparse", False) and any(p.requires_grad for p in m.parameters()) for m in encoder.modules())


def takes_rows(optimizer: Any) -> bool:
    """Tell whether an optimiser (or a partial of one) does the same with sparse gradients as with dense ones.

    It says so itself, by ``takes_rows = True``.
    """
    return bool(getattr(getattr(optimizer, "func", optimizer), "takes_rows", False))


def check_takes_rows(optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimiser can make steps with sparse gradients beside dense ones.

    Raises:
        ValueError: If it cannot, with its settings.
    """
    if takes_rows(optimizer):
        return
    named = [name for name in ("weight_decay", "fused") if any(g.get(name) for g in optimizer.param_groups)]
    if named or not isinstance(optimizer, TAKE_ROWS):
        how = f" with {' and '.join(named)}" if isinstance(optimizer, TAKE_ROWS) else ""
        raise ValueError(
            f"encoder.sparse is true, but {type(optimizer).__name__}{how} does not take sparse and dense gradients "
            "alike: encoder.sparse=null, or optimizer=adadelta or lazy_adam"
        )
