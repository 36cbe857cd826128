"""Groups of rows that stay together: the candidates of one question, packed into batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from kd_lightning.data.batches.shuffling import Walk
from kd_lightning.data.rows import Rows
from kd_lightning.data.tokens import Ints
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

LEAST = 0.5
"""Share of the questions that must have several candidates."""


def check_groups(task: Task, split: str, rows: Rows, batch_rows: int) -> None:
    """Check that the questions of a split have candidates to be ranked, and say which labels teach nothing.

    Args:
        task: The task, which ranks.
        split: A split to train on.
        rows: Its rows.
        batch_rows: Rows of a process's batch, on average.

    Raises:
        UserError: If most have one alone, as in QNLI since its second version.
    """
    sizes, relevant = count_candidates(task, split, rows)
    rows_of = int(sizes.sum())
    large = int((sizes > batch_rows).sum())
    if large:
        passes = rows_of / batch_rows / packs_of(rows_of, len(sizes), batch_rows)
        log.warning(
            "%s %s: %s of %s questions have more candidates than the %d rows of a batch, up to %s; batches are as "
            "large as their questions, and memory must hold them%s",
            *(task.name, split, f"{large:,}", f"{len(sizes):,}", batch_rows, f"{int(sizes.max()):,}"),
            f"; an epoch reads each question {passes:.1f} times" if passes > 1.05 else "",
        )
    untold = int(((relevant == 0) | (relevant == sizes)).sum())
    if untold:
        log.warning(
            "%s %s: of %s questions %s have candidates of one kind alone: labels teach nothing there",
            *(task.name, split, f"{len(sizes):,}", f"{untold:,}"),
        )
    if relevant.sum() > rows_of / 2:
        log.warning(
            "%s %s: %.0f %% of the candidates are '%s': task.%s.labels names what is irrelevant first, then what is "
            "relevant",
            *(task.name, split, 100 * relevant.sum() / rows_of, task.labels[1], task.name),
        )


def count_candidates(task: Task, split: str, rows: Rows) -> tuple[Ints, Ints]:
    """Return how many candidates each question of a split has, and how many of them are relevant, ``[G]`` each.

    Raises:
        UserError: If most have one alone.
    """
    pairs = [(batch.column("group").to_numpy(), batch.column("label").to_numpy()) for batch in rows.batches()]
    group, label = (np.concatenate(column) for column in zip(*pairs, strict=True))
    _, place, sizes = np.unique(group, return_inverse=True, return_counts=True)
    several = int((sizes > 1).sum())
    if several < LEAST * len(sizes):
        remedy = "use kind: classification" if task.kind == "ranking" else "take map and mrr out of its metrics"
        raise UserError(
            f"task {task.name}: of the {len(sizes):,} questions of {split} (column {task.group}), {several:,} have "
            f"more than one candidate, expected at least half: there is nothing to rank, as in QNLI since its second "
            f"version; {remedy}"
        )
    return sizes, np.bincount(place, weights=label).astype(np.int64)


def packs_of(rows: int, groups: int, pack_rows: int) -> int:
    """Return into how many packs a shuffle is cut: as many as its rows would fill, with one group each at least."""
    return min(groups, max(1, round(rows / pack_rows)))


class GroupWalk:
    """An endless walk through shuffles of groups, as packs of whole groups; all of them come before any comes again.

    Every shuffle is cut into the same number of packs, as many as its rows would fill. The cuts are those between two
    groups that are nearest to equal shares, so that packs have ``pack_rows`` on average, some more and some fewer; a
    pack has one group at least, however large.

    Args:
        group: The group of each row, int64 ``[N]``.
        pack_rows: Rows of a pack, on average.
        seed: Seed of the shuffles.
    """

    def __init__(self, group: Ints, pack_rows: int, *, seed: Sequence[int]) -> None:
        _, place = np.unique(group, return_inverse=True)
        self._rows = np.argsort(place, kind="stable")  # rows of one group next to each other
        self._sizes = np.bincount(place)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._walk = Walk(len(self._sizes), seed=seed)
        self.round_packs = packs_of(len(place), len(self._sizes), pack_rows)
        self._round, self._packs = -1, [np.empty(0, np.int64)]

    def packs(self, first: int, count: int) -> list[Ints]:
        """Return the rows of ``count`` packs from pack ``first`` of the walk on."""
        found: list[Ints] = []
        while len(found) < count:
            number, place = divmod(first + len(found), self.round_packs)
            if number != self._round:
                self._round, self._packs = number, self._packs_of(number)
            found += self._packs[place : place + count - len(found)]
        return found

    def _packs_of(self, number: int) -> list[Ints]:
        """Return the packs of one shuffle."""
        groups = self._walk.rows(number * len(self._sizes), len(self._sizes))
        sizes = self._sizes[groups]
        ends = np.cumsum(sizes)
        # Row i of the shuffle is row i - (rows before its group) of its group.
        rows = self._rows[np.arange(ends[-1]) + np.repeat(self._starts[groups] - (ends - sizes), sizes)]
        return np.split(rows, ends[_cuts(ends, self.round_packs) - 1])


def _cuts(ends: Ints, packs: int) -> Ints:
    """Return how many groups come before each cut, ``[packs - 1]``: cuts nearest to equal shares, no pack empty.

    Args:
        ends: The rows of each group and of all before it, ``[G]``.
        packs: Number of packs, at most G.
    """
    wanted = ends[-1] * np.arange(1, packs) / packs
    after = np.searchsorted(ends, wanted)  # the group in which the share ends
    before = ends[after] - np.diff(ends, prepend=0)[after]
    nearest = after + (wanted - before > ends[after] - wanted)
    step = np.arange(packs - 1)
    rising = np.maximum.accumulate(np.maximum(nearest, 1) - step) + step  # a group for each pack
    return np.minimum(rising, len(ends) - (packs - 1) + step)  # and for those that follow
