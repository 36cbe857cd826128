"""The order of evaluation: every example once, the longest first, on whatever number of processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kd_lightning.data import EvaluationStream
from kd_lightning.errors import UserError


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_sees_each_example_once(toys, world_size):
    """Trap 3: predicting through a training sampler fills a cache with repeats and holes."""
    whole = replace(toys["near"].part, split="validation")
    ranks = [
        EvaluationStream(whole, batch_size=8, pad_id=0, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for _ in range(2):
        batches = [list(rank) for rank in ranks]
        assert [len(found) for found in batches] == [len(rank) for rank in ranks]
        ids = torch.cat([batch["example_id"] for found in batches for batch in found])
        assert sorted(ids.tolist()) == sorted(whole.tokens.example_id.tolist())
        assert {batch["split"] for found in batches for batch in found} == {"validation"}


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (5, 1), (5, 2), (100, 1)])
def test_tokens_are_counted_before_they_are_read(toys, batch_size, world_size):
    """A time that is left by another count is no time that is left."""
    for rank in range(world_size):
        part = toys["nli"].part
        found = EvaluationStream(part, batch_size=batch_size, pad_id=0, rank=rank, world_size=world_size)
        assert found.total_tokens == sum(batch["input_ids"].numel() for batch in found)


def test_evaluation_begins_with_the_longest(toys):
    """A batch that does not fit in memory should fail at once, not after an hour."""
    found = EvaluationStream(toys["near"].part, batch_size=3, pad_id=0)
    lengths = [batch["input_ids"].shape[1] for batch in found]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_fewer_examples_than_processes_are_refused(toys):
    """A rank without a batch waits for ever in the next collective."""
    with pytest.raises(UserError, match="task mood: train has 24 rows for 25 processes"):
        EvaluationStream(toys["mood"].part, batch_size=8, pad_id=0, rank=0, world_size=25)
