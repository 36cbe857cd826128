"""The order of training: which rows make which batch, as a pure function of the seed and the position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kd_lightning.batch import Batch
from kd_lightning.data.batches.collation import Part, check_teachable, collate
from kd_lightning.data.batches.grouping import GroupWalk
from kd_lightning.data.batches.shuffling import Walk
from kd_lightning.data.sampling import TaskSampler, epoch_batches, probabilities, quotas
from kd_lightning.data.tokens import Ints
from kd_lightning.errors import UserError

RELEASE_EVERY = 2
"""Batches between two returns of memory-mapped pages to the system; Linux maps 64 KiB around each page that is read."""


def check_shares(batch_size: int, world_size: int) -> None:
    """Raise UserError if the rows of a global batch cannot be shared equally by the processes."""
    if batch_size % world_size:
        raise UserError(f"batching.batch_size is {batch_size}, expected a multiple of the {world_size} processes")


def check_single_task(task: str, single_task: bool) -> None:
    """Raise UserError if a task that ranks would share its batches with others."""
    if not single_task:
        raise UserError(
            f"task {task} ranks the candidates of a question, all of a batch: set batching.single_task=true"
        )


class TrainStream:
    """An endless stream of full batches, mixed or of one task each; an epoch is ``len(stream)`` of them.

    The stream is cut into windows of some batches. Each window draws rows from every task by the task sampler's law
    (to the row: fractions are carried over to the next window), walking through a shuffle of the task's rows before any
    row comes again. The window's rows are then sorted by length and cut into batches, whose order is shuffled: padding
    shrinks, the law of sampling stays as it is. Of batches of one task the law draws batches instead of rows.
    Everything follows from ``seed`` and the number of batches taken, which is all the state there is: a resumed run
    continues to the row, on any number of ranks.

    Args:
        parts: Examples to train on, parts of a task next to each other.
        task_sampler: How often each task is drawn.
        batch_size: Rows of the global batch, over all ranks.
        pad_id: Token id of padding.
        single_task: Whether the rows of a batch are of one task, as in MT-DNN, or mixed, as in BAM.
        total_batches: Batches of the whole run, for samplers that change with progress; None counts one epoch.
        window: Batches per window, at most; 1 gives plain shuffled batches.
        epoch_rows: Rows of an epoch; None takes as many as there are examples.
        seed: Seed of the order.
        rank: This process; it takes the rows ``rank, rank + world_size, ...`` of each global batch.
        world_size: Number of processes; it divides the batch size.

    Raises:
        UserError: If there is nothing to learn from, or the batch cannot be divided.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        task_sampler: TaskSampler,
        batch_size: int,
        pad_id: int,
        single_task: bool = False,
        total_batches: int | None = None,
        window: int = 64,
        epoch_rows: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_teachable(parts)
        check_shares(batch_size, world_size)
        self.parts = list(parts)
        self.task_sampler, self.batch_size, self.seed = task_sampler, batch_size, seed
        self.pad_id, self.rank, self.world_size = pad_id, rank, world_size
        self.single_task = single_task
        names = list(dict.fromkeys(part.task.name for part in parts))
        self._parts_of = [np.flatnonzero([p.task.name == name for p in parts]) for name in names]
        self._ends = [np.cumsum([len(parts[int(i)].tokens) for i in numbers]) for numbers in self._parts_of]
        self.sizes = {name: int(ends[-1]) for name, ends in zip(names, self._ends, strict=True)}
        rows = sum(self.sizes.values()) if epoch_rows is None else epoch_rows
        self._length = epoch_batches(rows, batch_size)
        self._windows = -(-self._length // window)  # an epoch is whole windows, or examples are missed and repeated
        self.window = -(-self._length // self._windows)
        self._total = self._length if total_batches is None else total_batches
        self._taken = 0
        self._number, self._plan = -1, (np.empty(0, np.int64), np.empty(0, np.int64))
        self._walks = [Walk(int(ends[-1]), seed=[seed, task]) for task, ends in enumerate(self._ends)]
        self._groups = self._group_walks(names)
        self._ledger = [(np.zeros(len(names), dtype=np.int64), np.zeros(len(names)))]  # drawn and due, by window

    def _group_walks(self, names: Sequence[str]) -> dict[int, GroupWalk]:
        """Return task -> the walk through its groups, of tasks that rank."""
        found = {}
        for task, name in enumerate(names):
            parts = [self.parts[int(i)] for i in self._parts_of[task]]
            if parts[0].task.kind != "ranking":
                continue
            check_single_task(name, self.single_task)
            group = np.concatenate([part.groups for part in parts])
            found[task] = GroupWalk(group, self.batch_size // self.world_size, seed=[self.seed, task])
        return found

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """Yield an epoch of batches from the position where the stream stands."""
        for _ in range(self._length):
            epoch, batches = divmod(self._taken, self._length)
            window, place = divmod(batches, self.window)
            number = epoch * self._windows + window
            if number != self._number:
                self._number, self._plan = number, self.plan(number)
            if self._taken % RELEASE_EVERY == 0:
                for part in self.parts:
                    part.tokens.release()
            part_of, rows = (x[place, self.rank :: self.world_size] for x in self._plan)
            there = rows >= 0
            batch = collate(self.parts, part_of[there], rows[there], self.pad_id)
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the number of batches taken, and the settings it is counted in."""
        return {"taken": self._taken, **self._settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a position.

        Raises:
            UserError: If it was counted in a stream of other settings.
        """
        for name, value in self._settings().items():
            if state[name] != value:
                raise UserError(
                    f"the checkpoint's data stream has {name} {state[name]}, this run {value}: cannot continue"
                )
        self._taken = state["taken"]

    def _settings(self) -> dict[str, Any]:
        shares = probabilities(self.task_sampler, self.sizes, 0.0).tolist()
        return {
            "seed": self.seed,
            "sizes": dict(self.sizes),
            "batch_size": self.batch_size,
            "window": self.window,
            "single_task": self.single_task,
            "packs of groups": self.world_size if self._groups else 0,
            "shares": dict(zip(self.sizes, shares, strict=True)),
            "steps": self._total,
        }

    def _window_size(self, number: int) -> int:
        """Return the batches of window ``number``; the last of an epoch may be shorter."""
        return min(self.window, self._length - number % self._windows * self.window)

    def _rows_of(self, number: int) -> tuple[Ints, Ints]:
        """Return rows drawn from each task before window ``number``, and in it."""
        unit = self.batch_size if self.single_task else 1  # rows that are drawn together
        while len(self._ledger) <= number + 1:
            done, due = self._ledger[-1]
            rows = self._window_size(len(self._ledger) - 1) * self.batch_size // unit
            epoch, window = divmod(len(self._ledger) - 1, self._windows)
            progress = min(1.0, (epoch * self._length + window * self.window) / self._total)
            due = due + rows * probabilities(self.task_sampler, self.sizes, progress)
            self._ledger.append((done + quotas(due, done, rows), due))
        before, after = self._ledger[number][0] * unit, self._ledger[number + 1][0] * unit
        return before, after - before

    def plan(self, number: int) -> tuple[Ints, Ints]:
        """Return window ``number``: part and row of every example, each ``[batches, batch_size]``.

        Where groups are kept whole, batches have more or fewer rows; free places have row -1.
        """
        done, quota = self._rows_of(number)
        random = np.random.default_rng([self.seed, number, 2**31])
        plain = [task for task in range(len(self.sizes)) if task not in self._groups]
        found = [self._sorted_batches(plain, done, quota, random)]
        for task, walk in self._groups.items():
            first, count = int(done[task]) // self.batch_size, int(quota[task]) // self.batch_size
            packs = walk.packs(first * self.world_size, count * self.world_size)
            found.append(self._located(task, self._side_by_side(packs)))
        width = max(batches.shape[2] for batches in found)
        filled = [np.pad(b, ((0, 0), (0, 0), (0, width - b.shape[2])), constant_values=-1) for b in found]
        part_of, row = np.concatenate(filled, axis=1)[:, random.permutation(self._window_size(number))]
        return part_of, row

    def _sorted_batches(self, tasks: Sequence[int], done: Ints, quota: Ints, random: np.random.Generator) -> Ints:
        """Return part and row of the examples of some tasks, sorted by length, ``[2, batches, batch_size]``."""
        drawn = [self._located(task, self._walks[task].rows(int(done[task]), int(quota[task]))) for task in tasks]
        part_of, rows = np.concatenate([np.empty((2, 0), np.int64), *drawn], axis=1)
        lengths = np.empty(len(rows), dtype=np.int64)
        for part in np.unique(part_of):
            lengths[part_of == part] = self.parts[part].tokens.lengths(rows[part_of == part])
        mixed = random.permutation(len(rows))  # rows of equal length come in random order
        task_of = np.repeat(
            np.array(tasks, np.int64) * self.single_task, quota[list(tasks)]
        )  # mixed ones know no tasks
        order = mixed[np.lexsort((lengths[mixed], task_of[mixed]))]
        return np.stack([part_of, rows])[:, order].reshape(2, -1, self.batch_size)

    def _located(self, task: int, drawn: Ints) -> Ints:
        """Return part and row, ``[2, ...]``, of a task's rows as they are counted over its parts; -1 stays."""
        which = np.searchsorted(self._ends[task], drawn, side="right")
        rows = drawn - np.concatenate([[0], self._ends[task]])[which]
        return np.stack([self._parts_of[task][which], np.where(drawn < 0, -1, rows)])

    def _side_by_side(self, packs: Sequence[Ints]) -> Ints:
        """Return batches of one pack for each rank, which takes every ``world_size``-th row, ``[batches, width]``."""
        if not packs:
            return np.empty((0, 0), np.int64)
        longest = max(map(len, packs))
        filled = np.array([np.pad(pack, (0, longest - len(pack)), constant_values=-1) for pack in packs], np.int64)
        return filled.reshape(-1, self.world_size, longest).swapaxes(1, 2).reshape(-1, self.world_size * longest)
