"""How a fit ends before its time: at a step boundary, with a checkpoint, all its processes at the same step."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytorch_lightning as pl

from kd_lightning.apps.processes.preemption import preempted
from kd_lightning.callbacks import ResumeCheckpoint


class StopAtStep(pl.Callback):
    """At SIGTERM, or when the job's place is taken away, save at the next step boundary and end the fit.

    It takes SIGTERM over from Lightning, whose handler speaks to the other processes from within the signal, wherever
    they are. What any process was told, all do at the same step.

    Args:
        checkpoint: What saves; None ends without a checkpoint.
    """

    def __init__(self, checkpoint: ResumeCheckpoint | None) -> None:
        self.checkpoint, self.told = checkpoint, False
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over; Lightning gives it back at the end of the fit."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.told = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, if any process was told to; the end of an epoch waits for its evaluation."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if trainer.is_last_batch or not stepped:
            return
        told = self.told or preempted()
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        if told:
            if self.checkpoint is not None:
                self.checkpoint.save(trainer)
            trainer._signal_connector.received_sigterm = True  # Lightning ends here, with all processes
