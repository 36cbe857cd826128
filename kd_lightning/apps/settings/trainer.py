"""What can be wrong with the settings of Lightning's trainer, before it is loaded."""

from __future__ import annotations

import re
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.fields import is_whole

NOT_ZERO = {"limit_val_batches": "score the model on", "limit_train_batches": "train on", "max_steps": "train for"}
"""Setting of the trainer -> what it would leave nothing to."""

STARTED_BY_LIGHTNING = re.compile(r"ddp_(fork|spawn|notebook)")
"""Strategies whose processes Lightning makes out of the first, in the middle of the command."""

DIVIDED_OTHERWISE = re.compile(r"fsdp_|deepspeed|modelparallel|model_parallel")
"""Strategies that divide models in ways of their own, in which we do not save them."""


def check_trainer(trainer: Any, prefix: str) -> None:
    """Check the trainer's settings.

    Args:
        trainer: The settings; of commands that train nothing there are none, or few.
        prefix: Where they stand: ``teacher.``, or nothing.

    Raises:
        UserError: If they give the run no length, or processes that we do not start.
    """
    if trainer is None:
        return
    _check_strategy(trainer.get("strategy"), prefix)
    if "max_epochs" in trainer:
        _check_length(trainer, prefix)


def _check_strategy(strategy: Any, prefix: str) -> None:
    if STARTED_BY_LIGHTNING.match(str(strategy)):
        instead = STARTED_BY_LIGHTNING.sub("ddp", str(strategy))
        raise UserError(
            f"{prefix}trainer.strategy is {strategy}, whose processes Lightning would make in the middle of the "
            f"command; it starts its own: use {prefix}trainer.strategy={instead}"
        )
    if DIVIDED_OTHERWISE.match(str(strategy)):
        raise UserError(
            f"{prefix}trainer.strategy is {strategy}, whose parts of a model are not put together here: use "
            f"{prefix}trainer.strategy=fsdp"
        )


def _check_length(trainer: Any, prefix: str) -> None:
    """Check that a run has a length: λ and learning rates are functions of the share of it that is done."""
    for name, what in NOT_ZERO.items():
        if trainer.get(name) == 0:
            raise UserError(f"{prefix}trainer.{name} is 0, expected something to {what}")
    epochs, steps = trainer.max_epochs, trainer.get("max_steps", -1)
    if is_whole(epochs, 1) or (epochs in (None, -1) and is_whole(steps, 1)):
        return
    expected = "a whole number of at least 1 (or -1 with trainer.max_steps)"
    raise UserError(f"{prefix}trainer.max_epochs is {epochs!r}, expected {expected}")
