"""What Lightning calls while a fit runs: the checkpoint to resume from, and progress in the log."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from kd_lightning.batch import Batch
from kd_lightning.progress import LoggedProgress


def resume_path(root: Path) -> Path:
    """Return where the checkpoint to resume from is, given a fit's root folder."""
    return root / "checkpoints" / "last.ckpt"


class ResumeCheckpoint(pl.Callback):
    """Keep one checkpoint to resume from, ``checkpoints/last.ckpt``, replaced by renaming.

    Args:
        every_minutes: Save at the first step boundary after so many minutes; None does not.
        every_n_steps: Save every n optimiser steps; None does not.
    """

    def __init__(self, every_minutes: float | None = 5.0, every_n_steps: int | None = None) -> None:
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self._saved_at, self._step, self._due = time.monotonic(), 0, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._saved_at, self._step, self._due = time.monotonic(), trainer.global_step, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, all processes at the same step; of one that is evaluated, at the next.

        The end of an epoch is saved after its evaluation.
        """
        stepped = trainer.global_step != self._step  # of batches that share a step, the last makes it
        self._step = trainer.global_step
        if not stepped:
            return
        self._due |= self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if is_evaluated(trainer, batch_idx):
            return
        if not self._due and self.every_minutes is not None:
            late = time.monotonic() - self._saved_at > 60 * self.every_minutes
            self._due = trainer.strategy.reduce_boolean_decision(late, all=False) if trainer.world_size > 1 else late
        if self._due:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write what is logged so far, then the checkpoint under a temporary name, then rename it."""
        for logger in trainer.loggers:
            logger.save()
        path = resume_path(Path(trainer.default_root_dir))
        temporary = path.with_suffix(".part")
        try:
            trainer.save_checkpoint(temporary)
        except BaseException:  # what is begun would keep a full disk full
            temporary.unlink(missing_ok=True)
            raise
        if trainer.is_global_zero:
            os.replace(temporary, path)
        self._saved_at, self._due = time.monotonic(), False


def is_evaluated(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Tell whether an evaluation may follow a batch; who goes on from before it would go on without it.

    Of steps that all are evaluated it is told of the last of an epoch alone: else none would be saved.
    """
    of_all = trainer.check_val_every_n_epoch is None  # the interval is over epochs
    count = trainer.fit_loop.total_batch_idx if of_all else batch_idx
    interval = trainer.val_check_batch or math.inf
    within = trainer.accumulate_grad_batches % interval != 0 and (count + 1) % interval == 0
    return bool(trainer.is_last_batch or within)


class LogProgress(pl.Callback):
    """Say in the log how far a fit or a prediction has come; a terminal has a bar for it.

    Args:
        stage: What is being done.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._progress: LoggedProgress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count optimiser steps."""
        self._begin(trainer, int(trainer.estimated_stepping_batches), "steps", trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, if it is time, with the average that the last evaluation found."""
        if self._progress is not None:
            self._progress.advance(trainer.global_step - self._progress.done, lambda: last_average(trainer))

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count tokens: the longest texts come first, so that batches become ever quicker."""
        stream: Any = trainer.predict_dataloaders  # an EvaluationStream
        self._begin(trainer, stream.total_tokens, "tokens")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Log, if it is time."""
        if self._progress is not None:
            self._progress.advance(batch["input_ids"].numel())

    def _begin(self, trainer: pl.Trainer, total: int, unit: str, done: int = 0) -> None:
        self._progress = LoggedProgress(self.stage, total, unit, done) if trainer.is_global_zero else None


class StageProgressBar(pl.callbacks.RichProgressBar):
    """Lightning's bar on a terminal; that of a prediction says what is predicted, and goes when it is done.

    Args:
        stage: What is being done.
        settings: Of Lightning's.
    """

    def __init__(self, stage: str, **settings: Any) -> None:
        super().__init__(refresh_rate=10, leave=False, **settings)
        self.stage = stage

    @property
    def predict_description(self) -> str:
        """What stands before the bar of a prediction."""
        return self.stage

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a bar that will vanish."""
        super().on_predict_start(trainer, pl_module)
        if self.progress is not None:
            self.progress.live.transient = True


def last_average(trainer: pl.Trainer) -> str:
    """Return the average of the last evaluation, in words; nothing before the first."""
    found = trainer.callback_metrics.get("val/average")
    return "" if found is None else f"average {100 * float(found):.1f}"
