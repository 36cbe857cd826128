"""The order of evaluation: every example once, the longest first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kd_lightning.batch import Batch
from kd_lightning.data.batches.collation import Part, collate
from kd_lightning.errors import UserError


class EvaluationStream:
    """All examples of one part, or some that stand next to each other, once each, sorted by length.

    Args:
        part: The examples.
        some: Which of them; all if it is not told.
        batch_size: Rows of a batch, on each rank.
        pad_id: Token id of padding.
        rank: This process; ranks share the rows without overlap.
        world_size: Number of processes.

    Attributes:
        total_tokens: Of all batches of this rank, padding counted: what they cost, where their number tells little.

    Raises:
        UserError: If there are fewer examples than processes.
    """

    def __init__(
        self,
        part: Part,
        *,
        batch_size: int,
        pad_id: int,
        some: slice = slice(None),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(part.tokens) < world_size:
            raise UserError(
                f"task {part.task.name}: {part.split} has {len(part.tokens)} rows for {world_size} processes"
            )
        self.part, self.batch_size, self.pad_id = part, batch_size, pad_id
        examples = np.arange(*some.indices(len(part.tokens)))
        lengths = part.tokens.lengths(examples)
        by_length = np.argsort(-lengths, kind="stable")[rank::world_size]
        self._order = examples[by_length]
        starts = np.arange(0, len(self._order), batch_size)
        rows = np.minimum(batch_size, len(self._order) - starts)
        self.total_tokens = int(lengths[by_length[starts]].astype(np.int64) @ rows)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._order) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, longest first: a batch that does not fit fails at once."""
        for start in range(0, len(self._order), self.batch_size):
            rows = self._order[start : start + self.batch_size]
            batch = collate([self.part], np.zeros(len(rows), dtype=np.int64), rows, self.pad_id)
            batch["split"] = self.part.split
            yield batch
        self.part.tokens.release()
