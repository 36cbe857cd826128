"""The order of training: which rows make which batch, as a pure function of the seed and the position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kd_lightning.batch import Batch
from kd_lightning.data.batches.collation import Part, check_teachable, collate
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


class TrainStream:
    """An endless stream of full mixed batches; an epoch is ``len(stream)`` of them.

    The stream is cut into windows of some batches. Each window draws rows from every task by the task sampler's law
    (to the row: fractions are carried over to the next window), walking through a shuffle of the task's rows before any
    row comes again. The window's rows are then sorted by length and cut into batches, whose order is shuffled: padding
    shrinks, the law of sampling stays as it is. Everything follows from ``seed`` and the number of batches taken, which
    is all the state there is: a resumed run continues to the row, on any number of ranks.

    Args:
        parts: Examples to train on, parts of a task next to each other.
        task_sampler: How often each task is drawn.
        batch_size: Rows of the global batch, over all ranks.
        pad_id: Token id of padding.
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
        self._ledger = [(np.zeros(len(names), dtype=np.int64), np.zeros(len(names)))]  # rows drawn and due, by window

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
            batch = collate(self.parts, part_of, rows, self.pad_id)
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
            "shares": dict(zip(self.sizes, shares, strict=True)),
            "steps": self._total,
        }

    def _window_size(self, number: int) -> int:
        """Return the batches of window ``number``; the last of an epoch may be shorter."""
        return min(self.window, self._length - number % self._windows * self.window)

    def _rows_of(self, number: int) -> tuple[Ints, Ints]:
        """Return rows drawn from each task before window ``number``, and in it."""
        while len(self._ledger) <= number + 1:
            done, due = self._ledger[-1]
            rows = self._window_size(len(self._ledger) - 1) * self.batch_size
            epoch, window = divmod(len(self._ledger) - 1, self._windows)
            progress = min(1.0, (epoch * self._length + window * self.window) / self._total)
            due = due + rows * probabilities(self.task_sampler, self.sizes, progress)
            self._ledger.append((done + quotas(due, done, rows), due))
        before = self._ledger[number][0]
        return before, self._ledger[number + 1][0] - before

    def plan(self, number: int) -> tuple[Ints, Ints]:
        """Return window ``number``: part and row of every example, each ``[batches, batch_size]``."""
        done, quota = self._rows_of(number)
        part_of, rows, lengths = [], [], []
        for task in range(len(self.sizes)):
            drawn = self._walks[task].rows(int(done[task]), int(quota[task]))
            which = np.searchsorted(self._ends[task], drawn, side="right")
            local = drawn - np.concatenate([[0], self._ends[task]])[which]
            length = np.empty(len(drawn), dtype=np.int64)
            for i, part in enumerate(self._parts_of[task]):
                length[which == i] = self.parts[part].tokens.lengths(local[which == i])
            part_of.append(self._parts_of[task][which])
            rows.append(local)
            lengths.append(length)
        random = np.random.default_rng([self.seed, number, 2**31])
        shape = (self._window_size(number), self.batch_size)
        mixed = random.permutation(shape[0] * shape[1])  # rows of equal length come in random order
        order = mixed[np.argsort(np.concatenate(lengths)[mixed], kind="stable")]
        batches = random.permutation(shape[0])
        found = np.stack([np.concatenate(part_of), np.concatenate(rows)])[:, order]
        part_of_row, row = found.reshape(2, *shape)[:, batches]
        return part_of_row, row
