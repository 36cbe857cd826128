"""What Lightning calls while a fit runs: the checkpoint to resume from, and ``metrics.csv``."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from kd_lightning.errors import UserError


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
        self._saved_at, self._step = time.monotonic(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._saved_at, self._step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, all processes at the same step; the end of an epoch waits for its evaluation."""
        stepped = trainer.global_step != self._step  # of batches that share a step, the last makes it
        self._step = trainer.global_step
        if trainer.is_last_batch or not stepped:
            return
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if not due and self.every_minutes is not None:
            late = time.monotonic() - self._saved_at > 60 * self.every_minutes
            due = trainer.strategy.reduce_boolean_decision(late, all=False) if trainer.world_size > 1 else late
        if due:
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
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, path)
        self._saved_at = time.monotonic()


class MetricsCsv(Logger):
    """One row per step in ``metrics.csv``; values of a step that is there already join its row.

    Args:
        save_dir: Folder of the file.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """Return the name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Return an empty version: there is one file per folder."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder holds ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of the step."""
        self._table().setdefault(step or 0, {}).update(metrics)

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Take out the rows from a step on: a run that continues there will write them again.

        Raises:
            UserError: If the file is damaged.
        """
        kept = {number: row for number, row in self._table().items() if number < step}
        if not kept:
            self.path.unlink(missing_ok=True)
        self._rows = kept
        self.save()

    def _table(self) -> dict[int, dict[str, Any]]:
        if self._rows is None:
            self._rows = self._read()
        return self._rows

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        try:
            return {int(row.pop("step")): {name: value for name, value in row.items() if value} for row in rows}
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self.path} is damaged, expected a column 'step' of numbers; take it away") from error

    @rank_zero_only
    def save(self) -> None:
        """Write the file under a temporary name, then rename it."""
        if not self._rows:
            return
        names = ["step", *dict.fromkeys(name for row in self._rows.values() for name in row)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))
        os.replace(temporary, self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file."""
        self.save()
