"""Losses as they are logged: means per row since the last time, task by task, over the global batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

CountedLosses = tuple[Tensor, Tensor]
"""Losses per row ``[n]``, and which of the rows count, bool ``[n]``."""

FOLD = 64
"""Batches that are kept before their losses are summed: it costs less than to sum those of each."""


def _precise(device: torch.device) -> torch.dtype:
    """Return a precision in which sums do not depend on where they are interrupted; Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


class LossMeans:
    """Mean losses of the rows that were added since the means were last taken.

    A batch of one task tells nothing of the others, and one batch of a task little: what is logged is of all of them.

    Args:
        tasks: All tasks of the run, whatever tasks this rank's batches have.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._names: tuple[str, ...] = ()
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._kept: dict[tuple[str, str], list[CountedLosses]] = {}
        self._batches = 0

    def add(self, losses: Mapping[str, Mapping[str, CountedLosses]]) -> None:
        """Add a batch.

        Args:
            losses: Task -> name -> (losses, which rows count); all tasks have the same names, and train on the last.
        """
        for task, by_name in losses.items():
            self._names = tuple(by_name)
            for name, (each, counts) in by_name.items():
                self._kept.setdefault((task, name), []).append((each.detach(), counts))
        self._batches += 1
        if self._batches >= FOLD:
            self._fold()

    def take(self, all_reduce: Callable[[Tensor], Tensor]) -> tuple[dict[str, float], float]:
        """Return ``TASK/NAME`` -> mean loss of the rows that count, and the mean of what is trained on over all rows.

        What was added is forgotten.

        Args:
            all_reduce: Sums ``[tasks x names, 2]`` over the ranks: one collective, of the same shape on all of them.
        """
        total = all_reduce(self._stacked()).view(len(self.tasks), len(self._names), 2).tolist()
        self._sums = {}
        means = {
            f"{task}/{name}": value / count
            for task, row in zip(self.tasks, total, strict=True)
            for name, (value, count) in zip(self._names, row, strict=True)
            if count
        }
        return means, sum(row[-1][0] for row in total) / sum(row[-1][1] for row in total)

    def state(self, all_reduce: Callable[[Tensor], Tensor]) -> dict[str, list[float]]:
        """Return ``TASK/NAME`` -> sum and number of the losses that were added on all ranks, for a checkpoint.

        Args:
            all_reduce: Sums ``[tasks x names, 2]`` over the ranks; not called if nothing was added.
        """
        self._fold()
        if not self._sums:
            return {}
        keys = (f"{task}/{name}" for task in self.tasks for name in self._names)
        return dict(zip(keys, all_reduce(self._stacked()).tolist(), strict=True))

    def load(self, state: Mapping[str, list[float]], *, first: bool = True) -> None:
        """Take up sums and numbers that were added before; they go to the device of the losses that follow.

        Args:
            state: Of all ranks.
            first: Of several ranks one takes them, for all.
        """
        keys = {(task, name): sums for (task, _, name), sums in ((key.rpartition("/"), state[key]) for key in state)}
        self._sums = {k: torch.tensor(each if first else [0, 0], dtype=torch.float64) for k, each in keys.items()}
        self._names = tuple(dict.fromkeys(name for _, name in keys))
        self._kept, self._batches = {}, 0

    def _stacked(self) -> Tensor:
        """Return the sums and numbers of all tasks and names ``[tasks x names, 2]``, zeros where nothing was added."""
        self._fold()
        none = torch.zeros_like(next(iter(self._sums.values())))
        return torch.stack([self._sums.get((task, name), none) for task in self.tasks for name in self._names])

    def _fold(self) -> None:
        """Sum what is kept."""
        folded = {}
        for key, batches in self._kept.items():
            each, counts = (torch.cat(column) for column in zip(*batches, strict=True))
            some = torch.where(counts, each.to(_precise(each.device)), 0.0)  # NaN times 0 would be NaN
            folded[key] = torch.stack([some.sum(), counts.sum()])
        if folded:
            like = next(iter(folded.values()))  # what was loaded is still on the processor
            before = {key: sums.to(like) for key, sums in self._sums.items()}
            self._sums = before | {key: before[key] + sums if key in before else sums for key, sums in folded.items()}
        self._kept, self._batches = {}, 0
