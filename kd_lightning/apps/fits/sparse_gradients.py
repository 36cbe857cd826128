"""Which fits have sparse gradients: where encoder, optimiser and the sum over processes allow them."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import pytorch_lightning as pl

from kd_lightning.encoders import Encoder, EncoderSpec
from kd_lightning.errors import UserError
from kd_lightning.optim import has_sparse_gradients


def decide_sparse_gradients(spec: EncoderSpec, optimizer: Any, trainer: pl.Trainer) -> EncoderSpec:
    """Return an encoder's recipe, with sparse gradients where it leaves them open and nothing is in their way.

    They lead where dense ones do, so the fit is the same.

    Args:
        spec: With ``sparse`` null if it leaves them open; see ``EncoderSpec``.
        optimizer: What builds the fit's optimiser.
        trainer: The fit's.
    """
    left_open = is_dataclass(spec) and getattr(spec, "sparse", False) is None
    if not left_open:
        return spec
    recipe: Any = spec
    takes_rows = getattr(optimizer, "takes_rows", False)
    found: EncoderSpec = replace(recipe, sparse=takes_rows and adds_up_sparse_gradients(trainer))
    return found


def adds_up_sparse_gradients(trainer: pl.Trainer) -> bool:
    """Tell whether sparse gradients of the trainer's processes can be added up: NCCL, between GPUs, cannot."""
    return trainer.world_size == 1 or trainer.strategy.root_device.type != "cuda"


def refuse_sparse_gradients(trainer: pl.Trainer, encoder: Encoder) -> None:
    """Refuse sparse gradients that cannot be added up.

    Raises:
        UserError: If the trainer would do so.
    """
    if has_sparse_gradients(encoder) and not adds_up_sparse_gradients(trainer):
        raise UserError(
            f"encoder.sparse=true: NCCL, which adds up the gradients of {trainer.world_size} GPUs, takes no sparse "
            "ones; set encoder.sparse=null"
        )
