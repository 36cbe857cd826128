"""A teacher that nobody trains here: the scores that it gave lie in files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.result import scores_from_logits
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import Rows
from kd_lightning.data.reading.formats import check_file
from kd_lightning.data.soft_targets.scores_file import read_scores
from kd_lightning.files import file_hash
from kd_lightning.tasks import Task

VERSION = 1
"""Of what files are read as; raise it when the same file gives other logits."""


@dataclass(frozen=True)
class GivenScores:
    """Files of scores, which stand for a teacher (see ``read_scores``); of other rows it knows nothing.

    Args:
        files: (task, split) -> its file.
        inputs: Of the run.
        name: What the teacher is called, beside trained ones.
    """

    files: Mapping[tuple[str, str], Path]
    inputs: FitInputs
    name: str = ""

    @property
    def location(self) -> Path:
        """Its first file."""
        return next(iter(self.files.values()))

    @property
    def tasks(self) -> list[str]:
        """The tasks that it has scores of, in the order of the run."""
        named = {task for task, _ in self.files}
        return [task.name for task in self.inputs.tasks if task.name in named]

    @property
    def store(self) -> Path:
        """Where soft targets are kept."""
        return Path(self.inputs.cfg["paths"]["store"])

    @cached_property
    def result(self) -> Config:
        """What a fit would have found: ``scores`` on the evaluated splits that it knows."""
        scores = {}
        by_name = {task.name: task for task in self.inputs.tasks}
        for (name, split), rows in self.inputs.evaluation_rows.items():
            if self.knows(name, split):
                task = by_name[name]
                scores[task.score_key(split)] = scores_from_logits(task, self.logits(task, split, rows)[1], rows)
        return {"stage": f"given scores {self.name}".rstrip(), "scores": scores}

    @cached_property
    def identity(self) -> str:
        """Content address: of all its files, and of what they are the scores of."""
        every = " ".join(f"{task} {split} {digest}" for (task, split), digest in sorted(self._digests.items()))
        return hashlib.sha256(every.encode()).hexdigest()

    def check(self, task: Task, split: str, rows: Rows) -> None:
        """Read the file of a split, which is kept until it is asked for.

        Raises:
            UserError: If it has not a fitting score of every row.
        """
        key = task.name, split, rows.fingerprint
        if key not in self._read:
            self._read[key] = read_scores(self.files[task.name, split], task, rows)

    def knows(self, task: str, split: str) -> bool:
        """Tell whether there are scores of a task's split."""
        return (task, split) in self.files

    def origin(self, task: str, split: str) -> Config:
        """Return what its soft targets of a split depend on beside the rows, as manifests name it."""
        return {"teacher": self._digests[task, split], "tokenizer": "none", "max_length": 0, "precision": "as given"}

    @cached_property
    def _digests(self) -> dict[tuple[str, str], str]:
        """(task, split) -> hash of what is read from its file; each file is hashed once."""
        found = {}
        ranges = {task.name: task.score_range for task in self.inputs.tasks}
        for key, path in self.files.items():
            check_file(path)
            read_as = f"given scores {VERSION} {ranges.get(key[0])} {file_hash(path)}"
            found[key] = hashlib.sha256(read_as.encode()).hexdigest()
        return found

    @cached_property
    def _read(self) -> dict[tuple[str, str, str], tuple[Tensor, Tensor]]:
        """(task, split, rows) -> ids and logits of the files that were read."""
        return {}

    def logits(
        self, task: Task, split: str, rows: Rows, *, both_orders: bool = False, some: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Return ``example_id [N]`` and ``logits [N, C]``, in order of id; a pair has the same in both orders.

        Raises:
            UserError: If the file has not a fitting score of every row.
        """
        self.check(task, split, rows)
        ids, logits = self._read[task.name, split, rows.fingerprint]
        if not both_orders:
            return ids[some], logits[some]
        place = torch.arange(*some.indices(2 * len(ids))) - len(ids)  # below 0 in the other order, whose id is ~id
        row = torch.where(place < 0, ~place, place)
        return torch.where(place < 0, ~ids[row], ids[row]), logits[row]

    def release(self) -> None:
        """Forget what was read; the files are read again when they are next asked for."""
        self._read.clear()
