"""Where rows come from: the Hub or a folder in its layout, files of your own, or the grammar that ships with us."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from kd_lightning.data import grammar
from kd_lightning.data.reading.reader import check_columns, read_file
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import file_hash, locked, new_folder
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


class Source(Protocol):
    """A place that has splits of tasks."""

    def key(self, task: Task, split: str) -> str | None:
        """Return a hash of the split's content, or None where the source has no such split."""
        ...

    def read(self, task: Task, split: str, *, labelled: bool) -> Iterable[pa.RecordBatch]:
        """Yield the split's checked rows, in order; ``labelled`` says whether labels are read, and required."""
        ...

    def where(self, task: Task, split: str) -> str:
        """Say where the split is, or would have to be."""
        ...


def _content(path: Path) -> str | None:
    """Return the hash of a file, or None where there is none.

    Raises:
        UserError: If something is there that cannot be read.
    """
    try:
        return file_hash(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or first_line(error)}, expected a file that can be read") from error


class Files:
    """Files of your own: each task names its file of each split (``Task.files``)."""

    def where(self, task: Task, split: str) -> str:
        """Return the file the task names for the split, or where it would name one."""
        return task.files.get(split, f"`files: {{{split}: PATH}}` in the task")

    def key(self, task: Task, split: str) -> str | None:
        """Return the hash of the split's file, or None where the task names none."""
        if split not in task.files:
            return None
        return _content(Path(task.files[split])) or "absent"  # reading it says what was expected

    def read(self, task: Task, split: str, *, labelled: bool) -> Iterable[pa.RecordBatch]:
        """Yield the checked rows of the split's file."""
        return read_file(Path(task.files[split]), task, labelled=labelled)


class ParquetFolder:
    """A folder ``ROOT/TASK/SPLIT.parquet`` in the columns of the Hub's ``nyu-mll/glue``.

    Args:
        root: The folder; None fetches the splits from the Hub once, into ``download``.
        repo: Dataset on the Hub, one configuration per task.
        download: Where fetched splits are kept.

    Raises:
        UserError: If the root is not a folder.
    """

    def __init__(self, root: str | None, repo: str = "nyu-mll/glue", download: str = ".cache/hub") -> None:
        if root is not None and not Path(root).is_dir():
            raise UserError(
                f"data.root is '{root}', expected a folder with TASK/SPLIT.parquet ({Path(root).absolute()})"
            )
        self.root = None if root is None else Path(root)
        self.repo, self.download = repo, Path(download)

    def _path(self, task: Task, split: str) -> Path:
        root = self.root if self.root is not None else self.download / self.repo
        return root / task.name / f"{split}.parquet"

    def where(self, task: Task, split: str) -> str:
        """Return the split's file."""
        return str(self._path(task, split))

    def key(self, task: Task, split: str) -> str | None:
        """Return the hash of the split's file, or None where there is none."""
        path = self._path(task, split)
        if self.root is None and not path.exists():
            self._fetch(task, split)
        return _content(path)

    def read(self, task: Task, split: str, *, labelled: bool) -> Iterable[pa.RecordBatch]:
        """Yield the checked rows of the split's file."""
        return read_file(self._path(task, split), task, labelled=labelled)

    def _fetch(self, task: Task, split: str) -> None:
        if task.name in grammar.TASKS:
            raise UserError(f"task {task.name} is not in {self.repo}, but ships with the package: data=embedded")
        import datasets

        folder = self._path(task, split).parent
        with locked(folder):
            if folder.is_dir():
                return
            log.info("task %s: fetching %s from the Hub", task.name, self.repo)
            try:
                found = datasets.load_dataset(self.repo, task.name)
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise UserError(
                    f"the Hub dataset {self.repo}, {task.name}, cannot be fetched ({reason}): "
                    "without a network, give data.root=FOLDER with TASK/SPLIT.parquet, or data=embedded"
                ) from error
            with new_folder(folder) as part:
                for name, dataset in found.items():
                    dataset.to_parquet(str(part / f"{name}.parquet"))


class Embedded:
    """Toy tasks written by the grammar that ships with the package; labels need negation, and in reviews word order.

    Args:
        seed: Seed of the grammar; other seeds give other rows.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def where(self, task: Task, split: str) -> str:
        """Return the name of the grammar's split."""
        return f"embedded {task.name} {split}"

    def key(self, task: Task, split: str) -> str | None:
        """Return a hash of the grammar's own source and seed, or None where it has no such split."""
        if task.name not in grammar.TASKS:
            raise UserError(
                f"task {task.name} is not embedded: expected one of {', '.join(grammar.TASKS)}, or another data="
            )
        if split not in grammar.SIZES:
            return None
        return hashlib.sha256(Path(grammar.__file__).read_bytes() + str(self.seed).encode()).hexdigest()

    def read(self, task: Task, split: str, *, labelled: bool) -> Iterable[pa.RecordBatch]:
        """Yield the rows that the grammar writes."""
        columns = grammar.columns(task.name, split, seed=self.seed)
        yield check_columns(columns, task, labelled=labelled, source=self.where(task, split))
