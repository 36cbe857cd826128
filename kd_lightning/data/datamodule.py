"""The data of one fit, for Lightning: a training stream and one evaluation stream per task and split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from kd_lightning.data.batches.collation import Part
from kd_lightning.data.batches.evaluation_stream import EvaluationStream
from kd_lightning.data.batches.train_stream import TrainStream
from kd_lightning.data.sampling import TaskSampler, epoch_batches
from kd_lightning.errors import UserError


def run_batches(trainer: pl.Trainer, epoch: int) -> int:
    """Return the number of batches of a whole run, over all its epochs, as Lightning will take them.

    It is computed from the trainer's settings: ``trainer.estimated_stepping_batches`` asks for the loader that this
    number is for.

    Args:
        trainer: ``limit_train_batches`` shortens its epochs; ``max_epochs`` or ``max_steps``, whichever comes first,
            ends the run. A step takes ``accumulate_grad_batches`` batches, the last of an epoch what is left.
        epoch: Batches of an epoch of the loader.

    Raises:
        UserError: If nothing ends the run, or there is nothing to train on.
    """
    of, accumulate = epoch, trainer.accumulate_grad_batches
    epoch = _limited(trainer, epoch)
    if not epoch:
        limit = trainer.limit_train_batches
        raise UserError(
            f"trainer.limit_train_batches is {limit}, expected at least one of the {of} batches of an epoch"
        )
    ends = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        ends.append(trainer.max_epochs * epoch)
    if trainer.max_steps >= 0:
        epochs, steps = divmod(trainer.max_steps, -(-epoch // accumulate))
        ends.append(epochs * epoch + steps * accumulate)
    if not ends:
        raise UserError(
            "trainer.max_epochs and trainer.max_steps are both -1, expected one of them: the run has no end"
        )
    return max(1, min(ends))


def run_steps(trainer: pl.Trainer, epoch: int) -> int:
    """Return the number of optimiser steps of a whole run; see ``run_batches``."""
    epochs, rest = divmod(run_batches(trainer, epoch), _limited(trainer, epoch))
    accumulate = trainer.accumulate_grad_batches
    return epochs * -(-_limited(trainer, epoch) // accumulate) + -(-rest // accumulate)


def _limited(trainer: pl.Trainer, epoch: int) -> int:
    limit = trainer.limit_train_batches
    return min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)


class MultiTaskData(pl.LightningDataModule):
    """Examples to train on and to evaluate.

    There are no loader processes: a batch is a handful of slices of memory-mapped arrays, built in less time than it
    takes to hand it from one process to another.

    Args:
        train: Parts to train on, those of a task next to each other.
        evaluation: Parts to evaluate.
        task_sampler: How often each task is drawn.
        batch_size: Rows of the global batch, over all ranks.
        eval_batch_size: Rows of an evaluation batch on each rank.
        window: Batches per length-sorted window (see ``TrainStream``).
        epoch_rows: Rows of an epoch; None takes as many as there are examples.
        seed: Seed of the order.
        pad_id: Token id of padding.
        single_task: Whether the rows of a training batch are of one task (see ``TrainStream``).
    """

    def __init__(
        self,
        *,
        train: Sequence[Part],
        evaluation: Sequence[Part],
        task_sampler: TaskSampler,
        batch_size: int,
        eval_batch_size: int,
        window: int,
        epoch_rows: int | None,
        seed: int,
        pad_id: int,
        single_task: bool = False,
    ) -> None:
        super().__init__()
        self.train, self.evaluation, self.task_sampler = list(train), list(evaluation), task_sampler
        self.batch_size, self.eval_batch_size, self.window = batch_size, eval_batch_size, window
        self.epoch_rows, self.seed, self.pad_id, self.single_task = epoch_rows, seed, pad_id, single_task
        self._stream: TrainStream | None = None
        self._position: dict[str, Any] | None = None

    def train_dataloader(self) -> TrainStream:
        """Return this rank's share of the training stream, where it was left if the run is resumed."""
        assert self.trainer is not None
        rows = sum(len(part.tokens) for part in self.train) if self.epoch_rows is None else self.epoch_rows
        self._stream = TrainStream(
            self.train,
            task_sampler=self.task_sampler,
            batch_size=self.batch_size,
            pad_id=self.pad_id,
            single_task=self.single_task,
            total_batches=run_batches(self.trainer, epoch_batches(rows, self.batch_size)),
            window=self.window,
            epoch_rows=self.epoch_rows,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        if self._position is not None:
            self._stream.load_state_dict(self._position)
        return self._stream

    @property
    def total_steps(self) -> int:
        """The optimiser steps of the whole run."""
        assert self.trainer is not None
        return run_steps(self.trainer, len(self._stream or self.train_dataloader()))

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training stream, for the checkpoint."""
        return {} if self._stream is None else self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the position of a checkpoint.

        Lightning restores loaders itself, but not those it asked for before the checkpoint was read, as it does to
        count the steps of the run.
        """
        self._position = state
        if self._stream is not None:
            self._stream.load_state_dict(state)

    def val_dataloader(self) -> list[EvaluationStream]:
        """Return this rank's share of each evaluated part."""
        assert self.trainer is not None
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        return [
            EvaluationStream(part, batch_size=self.eval_batch_size, pad_id=self.pad_id, rank=rank, world_size=processes)
            for part in self.evaluation
        ]
