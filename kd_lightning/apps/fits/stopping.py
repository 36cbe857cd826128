"""How a fit ends before its time: at a step boundary, with a checkpoint, all its processes at the same step."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from kd_lightning.apps.processes.preemption import Preempted, preempted
from kd_lightning.apps.processes.termination import terminated
from kd_lightning.callbacks import ResumeCheckpoint, is_evaluated
from kd_lightning.errors import Terminated

REASONS = (None, Terminated, Preempted)
"""Why a fit ends; of two, the later one counts: a job that loses its place is told to end as well."""


class NoSignals(_SignalConnector):
    """Lightning's part in signals: none. Its handler speaks to other processes from within, wherever they are."""

    def register_signal_handlers(self) -> None:
        """Leave them as they are."""
        self.received_sigterm = False


class ByEpochs(_FitLoop):
    """Lightning's loop over epochs, which goes on from the end of one with the next, whatever the fit ends after.

    Where steps are limited, its own takes the end of an epoch for its middle: a step that is none is counted, and in
    the place of an epoch nothing is done.
    """

    def _iteration_based_training(self) -> bool:
        return False

    @property
    def skip(self) -> bool:
        """Tell whether there is nothing left to do; then the loop stands as it does after its last step."""
        if super().skip:
            epochs: Any = self.epoch_progress.current
            epochs.completed = epochs.started
            self.epoch_loop._batches_that_stepped = self.epoch_loop.global_step
            return True
        return False


class StopAtStep(pl.Callback):
    """At SIGTERM, or when the job's place is taken away, save at the next step boundary and end the fit.

    What any process was told, all do at the same step, and for the same reason.

    Args:
        checkpoint: What saves; None ends without a checkpoint.
    """

    def __init__(self, checkpoint: ResumeCheckpoint | None) -> None:
        self.checkpoint, self.reason = checkpoint, 0
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count steps."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, if any process was told to; what is evaluated, as the end of an epoch, waits for that."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if stepped and not is_evaluated(trainer, batch_idx) and self._told(trainer) and self.checkpoint is not None:
            self.checkpoint.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End after the evaluation; what saves has done so."""
        self._told(trainer)

    def _told(self, trainer: pl.Trainer) -> bool:
        """Tell whether to end, and let Lightning do it, with all processes."""
        own = REASONS.index(Preempted) if preempted() else REASONS.index(Terminated) if terminated() else 0
        self.reason = own
        if trainer.world_size > 1:
            self.reason = int(trainer.strategy.reduce(torch.tensor(own), reduce_op="max"))  # no GPU waits for it
        trainer._signal_connector.received_sigterm = self.reason > 0
        return self.reason > 0

    def raise_reason(self) -> None:
        """Raise what the fit has ended for, if it has ended before its time; by now the job may lose its place, too."""
        if (why := REASONS[self.reason]) is not None:
            raise Preempted if preempted() else why
