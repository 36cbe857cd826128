"""``metrics.csv``: what every fit logs, step by step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from kd_lightning.errors import UserError
from kd_lightning.files import replacing


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
    def save_dir(self) -> str:
        """Return the folder of the file; Lightning's profilers write there, too."""
        return str(self.path.parent)

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
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file; after a failure, if it can be written."""
        with suppress(OSError) if status == "failed" else nullcontext():
            self.save()
