"""All data of a run: a source for tasks in general, own files for tasks that name some, and the cache."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kd_lightning.augmentation import Augmenter
from kd_lightning.data.reading.columns import is_blank
from kd_lightning.data.reading.ids import repeated_ids
from kd_lightning.data.reading.reader import ROWS
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
        unlabelled: A file that is the split ``unlabelled`` of all tasks, or one per task by name.
        limit: Of each split the first so many rows alone; all are read, and must be right.
    """

    source: Source
    cache: Path
    unlabelled: str | Mapping[str, str] | None = None
    limit: int | None = None

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
        task = self._with_unlabelled(task, split)
        source = self._source(task)
        content = source.key(task, split)
        if content is None:
            return None
        kept = [] if self.limit is None else [self.limit]
        values = json.dumps([FORMAT, content, labelled, asdict(task), *kept], sort_keys=True)
        folder = self.cache / "rows" / f"{task.name}-{split}-{hashlib.sha256(values.encode()).hexdigest()[:16]}"
        return cache_rows(
            folder,
            lambda: first_rows(source.read(task, split, labelled=labelled), self.limit),
            source.where(task, split),
        )

    def require(self, task: Task, split: str, *, labelled: bool | None = None) -> Rows:
        """Return the split's rows (see ``rows``).

        Raises:
            UserError: If there is no such split.
        """
        found = self.rows(task, split, labelled=labelled)
        if found is None:
            hint = ", or data.unlabelled=FILE" if split == "unlabelled" else did_you_mean(split, task.files)
            raise UserError(f"task {task.name} has no {split} split: expected it at {self.where(task, split)}{hint}")
        return found

    def synthetic(self, task: Task, rows: Rows, augmenter: Augmenter, code: Mapping[str, str]) -> Rows:
        """Return the rows that an augmenter writes from others; the first time, write and cache them.

        Args:
            task: Whose texts they are.
            rows: The texts to start from.
            augmenter: Writes the rows.
            code: Name -> hash of its source, of a user's own augmenter.

        Raises:
            UserError: If it cannot, writes none, or what it writes are no rows of the task without labels.
        """
        recipe = json.dumps([type(augmenter).__qualname__, augmenter.fingerprint(), code], sort_keys=True)
        written_by = hashlib.sha256(recipe.encode()).hexdigest()
        key = hashlib.sha256(json.dumps([FORMAT, rows.fingerprint, written_by]).encode()).hexdigest()[:16]
        folder = self.cache / "rows" / f"{task.name}-synthetic-{key}"
        source = f"augmenter {type(augmenter).__name__}, task {task.name}"
        found = cache_rows(folder, lambda: _checked(augmenter.augment(rows, task.name), task, source), source)
        return replace(found, augmenter=written_by)

    def where(self, task: Task, split: str) -> str:
        """Say where the split is, or would have to be."""
        task = self._with_unlabelled(task, split)
        return self._source(task).where(task, split)

    def _with_unlabelled(self, task: Task, split: str) -> Task:
        named = self.unlabelled.get(task.name) if isinstance(self.unlabelled, Mapping) else self.unlabelled
        return replace(task, files={split: named}) if split == "unlabelled" and named else task

    def _source(self, task: Task) -> Source:
        return Files() if task.files else self.source


def first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the first rows of all that are read: what is wrong further on is found, too."""
    left = limit
    for batch in batches:
        if left is None or left > 0:
            yield batch.slice(0, left)
        left = None if left is None else left - batch.num_rows


def _checked(written: Iterator[pa.RecordBatch], task: Task, source: str) -> Iterator[pa.RecordBatch]:
    """Yield what an augmenter wrote, as strictly looked at as what is read from files."""
    seen = array("q")  # 8 bytes per row
    for batch in written:
        if batch.schema != ROWS:
            raise UserError(f"{source}: found the columns {_columns(batch.schema)}, expected {_columns(ROWS)}")
        if not pc.all(pc.is_nan(batch.column("label")).fill_null(False)).as_py():
            raise UserError(f"{source}: found labels, expected NaN: no one has labelled what it writes")
        ids = batch.column("example_id")
        if ids.null_count or pc.any(pc.less(ids, 0)).as_py():
            raise UserError(f"{source}: found an example_id that is null or below 0, expected numbers from 0")
        if batch.column("row_id").null_count:
            raise UserError(f"{source}: found row_id null, expected a text in every row")
        for name, wanted in (("text_a", True), ("text_b", task.is_pair)):
            column = batch.column(name)
            if pc.any(pc.match_substring(column, "\0").fill_null(False)).as_py():
                raise UserError(f"{source}: found a NUL byte in {name}, expected a text")
            if pc.any(is_blank(column).fill_null(True) if wanted else column.is_valid()).as_py():
                expected = "a text that is not empty in every row" if wanted else "null: the task has one text"
                raise UserError(f"{source}: found {name} {'empty' if wanted else 'filled'}, expected {expected}")
        seen.frombytes(ids.to_numpy().tobytes())
        yield batch
    if repeated := repeated_ids(seen):
        raise UserError(f"{source}: found example_id {min(repeated)} more than once, expected unique ids")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
