"""From rows of token tables to a ``Batch``: a handful of slices, no loop over tokens or rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_lightning.batch import Batch, TaskRows
from kd_lightning.data.soft_targets.ensembles import TeacherLogits
from kd_lightning.data.tokens import Ints, TokenTable
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task


@dataclass(frozen=True)
class Part:
    """Examples of one task from one split, with the soft targets of its teacher if there is one.

    Raises:
        UserError: If there are soft targets, but not of every example.
    """

    task: Task
    split: str
    tokens: TokenTable
    soft_targets: TeacherLogits | None = None

    def __post_init__(self) -> None:
        """Check that every example can be learned from."""
        if self.soft_targets is not None:
            for start in range(0, len(self.tokens), 65_536):
                self.soft_targets.require(self.tokens.example_id[start : start + 65_536])

    @cached_property
    def groups(self) -> Ints:
        """The question of each example, ``[N]``: files may number theirs alike, so it is another in each split."""
        salt = int.from_bytes(blake2b(self.split.encode()).digest()[:8], "big") >> 1
        return np.where(self.tokens.group < 0, -1, self.tokens.group ^ salt) if self.task.group else self.tokens.group

    @property
    def labelled(self) -> bool:
        """Whether the examples have gold labels: all of a split's do, or none."""
        return len(self.tokens) > 0 and not np.isnan(self.tokens.label[0])


class Run(NamedTuple):
    """The rows of a batch that come from one part; they stand next to each other."""

    part: int
    rows: Ints
    place: slice


def runs_of(part_of: Ints, rows: Ints) -> list[Run]:
    """Return the rows part by part, in the order of the parts."""
    if len(part_of) == 0 or (part_of == part_of[0]).all():
        return [Run(int(part_of[0]), rows, slice(0, len(rows)))] if len(part_of) else []
    by_part = np.argsort(part_of, kind="stable")
    cuts = np.flatnonzero(np.diff(part_of[by_part])) + 1
    starts, ends = [0, *cuts], [*cuts, len(rows)]
    return [Run(int(part_of[by_part[a]]), rows[by_part[a:b]], slice(a, b)) for a, b in zip(starts, ends, strict=True)]


def gather(parts: Sequence[Part], runs: Sequence[Run], pad_id: int) -> tuple[NDArray[np.int64], ...]:
    """Return input ids, mask and token types ``[B, L]`` of some rows of some parts, padded to the longest.

    Args:
        parts: Where the rows are.
        runs: The rows, part by part.
        pad_id: Token id of padding.
    """
    starts = np.concatenate([parts[run.part].tokens.starts(run.rows) for run in runs])
    ends = np.concatenate([parts[run.part].tokens.ends[run.rows] for run in runs])
    second = np.concatenate([parts[run.part].tokens.second[run.rows] for run in runs])
    column = np.arange(max(1, (ends - starts).max()))  # texts without a token are one column of padding
    place = starts[:, None] + column
    mask = place < ends[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    for run in runs:
        inside = mask[run.place]
        input_ids[run.place][inside] = parts[run.part].tokens.input_ids[place[run.place][inside]]
    types = (column >= second[:, None]) & mask
    return input_ids, mask.astype(np.int64), types.astype(np.int64)


def collate(parts: Sequence[Part], part_of: Ints, rows: Ints, pad_id: int) -> Batch:
    """Return the batch of some rows of some parts; padding never changes a prediction.

    Args:
        parts: Where the rows are, parts of a task next to each other.
        part_of: Part of each row, int64 ``[B]``.
        rows: Row within its part, int64 ``[B]``.
        pad_id: Token id of padding.
    """
    runs = runs_of(part_of, rows)
    input_ids, mask, types = gather(parts, runs, pad_id)
    ids = np.concatenate([parts[run.part].tokens.example_id[run.rows] for run in runs])
    tasks: dict[str, TaskRows] = {}
    for run in runs:
        part, name = parts[run.part], parts[run.part].task.name
        teacher = _teacher_logits(part, run.rows) if part.soft_targets is not None else _no_teacher(parts, run)
        found = _task_rows(part, np.arange(run.place.start, run.place.stop), run.rows, teacher)
        tasks[name] = _join(tasks[name], found) if name in tasks else found
    return {
        "example_id": torch.from_numpy(ids),
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(mask),
        "token_type_ids": torch.from_numpy(types),
        "tasks": tasks,
    }


def _teacher_logits(part: Part, rows: Ints) -> Tensor:
    """Return the soft targets of some rows, ``[n, C]``, or ``[n, T, C]`` of several teachers."""
    assert part.soft_targets is not None
    return part.soft_targets.of(part.tokens.example_id[rows])


def _no_teacher(parts: Sequence[Part], run: Run) -> Tensor:
    """Return NaN in the shape that other rows of the task have."""
    task = parts[run.part].task
    of_others = (p.soft_targets.shape for p in parts if p.task.name == task.name and p.soft_targets)
    return torch.full((len(run.rows), *next(of_others, (task.num_labels,))), float("nan"))


def _task_rows(part: Part, here: Ints, rows: Ints, teacher: Tensor) -> TaskRows:
    label = part.tokens.label[rows]
    has_label = ~np.isnan(label)
    labels = torch.from_numpy(np.where(has_label, label, np.float32(0)))
    labels = part.task.to_unit(labels) if part.task.kind == "regression" else labels.long()
    return {
        "rows": torch.from_numpy(here),
        "labels": labels,
        "has_label": torch.from_numpy(has_label),
        "teacher_logits": teacher,
        "has_teacher": torch.full((len(here),), part.soft_targets is not None),
        "group": torch.from_numpy(part.groups[rows]),
    }


def _join(a: TaskRows, b: TaskRows) -> TaskRows:
    return {name: torch.cat([a[name], b[name]]) for name in a}  # type: ignore[literal-required, return-value]


def check_teachable(parts: Sequence[Part]) -> None:
    """Raise UserError if a part has neither gold labels nor a teacher: there is nothing to learn from."""
    for part in parts:
        if not part.labelled and part.soft_targets is None:
            raise UserError(
                f"task {part.task.name}: the {part.split} rows have neither labels nor a teacher; give it one"
            )
