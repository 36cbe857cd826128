"""Losses as they are logged: means per row, task by task, over the global batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

CountedLosses = tuple[Tensor, Tensor]
"""Losses per row ``[n]``, and which of the rows count, bool ``[n]``."""


def loss_means(
    tasks: Sequence[str], losses: Mapping[str, Mapping[str, CountedLosses]], all_reduce: Callable[[Tensor], Tensor]
) -> tuple[dict[str, float], float]:
    """Return ``TASK/NAME`` -> mean loss of the rows that count, and the mean of what is trained on over all rows.

    Args:
        tasks: All tasks of the run, whatever tasks this rank's batch has.
        losses: Task -> name -> (losses, which rows count); all tasks have the same names, and train on the last.
        all_reduce: Sums ``[tasks x names, 2]`` over the ranks: one collective, of the same shape on all of them.
    """
    some = next(iter(losses.values()))
    names, none = list(some), next(iter(some.values()))[0].new_zeros(0)
    parts = [losses.get(task, {}).get(name, (none, none)) for task in tasks for name in names]
    sums = torch.stack([torch.stack([(x.detach() * counts).sum(), counts.sum().float()]) for x, counts in parts])
    total = all_reduce(sums).view(len(tasks), len(names), 2).tolist()
    means = {
        f"{task}/{name}": value / count
        for task, row in zip(tasks, total, strict=True)
        for name, (value, count) in zip(names, row, strict=True)
        if count
    }
    return means, sum(row[-1][0] for row in total) / sum(row[-1][1] for row in total)
