"""All data of a run: a source for tasks in general, own files for tasks that name some, and the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kd_lightning.data.rows import FORMAT, Rows, cache_rows
from kd_lightning.data.sources import Files, Source
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.tasks import Task


@dataclass(frozen=True)
class Corpus:
    """All data of a run: a source for tasks in general, their own files for tasks that name some, and the cache.

    Args:
        source: Serves the tasks that name no files.
        cache: Folder of checked rows and token arrays; safe to delete.
    """

    source: Source
    cache: Path

    def rows(self, task: Task, split: str, *, labelled: bool | None = None) -> Rows | None:
        """Return the split's rows, or None where there is no such split.

        Args:
            task: Which columns to read, and which labels to expect.
            split: Name of the split.
            labelled: True reads gold labels and requires them of every row (evaluation); False does not look for
                them (prediction); None requires them of all splits but ``unlabelled`` and ``test``.

        Raises:
            UserError: If the split is there and wrong; the message names file, row and column.
        """
        if labelled is None:
            labelled = split not in ("unlabelled", "test")
        source = self._source(task)
        content = source.key(task, split)
        if content is None:
            return None
        values = json.dumps([FORMAT, content, labelled, asdict(task)], sort_keys=True)
        folder = self.cache / "rows" / f"{task.name}-{split}-{hashlib.sha256(values.encode()).hexdigest()[:16]}"
        return cache_rows(folder, lambda: source.read(task, split, labelled=labelled), source.where(task, split))

    def require(self, task: Task, split: str, *, labelled: bool | None = None) -> Rows:
        """Return the split's rows (see ``rows``).

        Raises:
            UserError: If there is no such split.
        """
        found = self.rows(task, split, labelled=labelled)
        if found is None:
            hint = did_you_mean(split, task.files)
            raise UserError(f"task {task.name} has no {split} split: expected it at {self.where(task, split)}{hint}")
        return found

    def where(self, task: Task, split: str) -> str:
        """Say where the split is, or would have to be."""
        return self._source(task).where(task, split)

    def _source(self, task: Task) -> Source:
        return Files() if task.files else self.source
