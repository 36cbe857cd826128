"""Reading in parts of similar lengths: the same vectors, for fewer tokens."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from kd_lightning.encoders import NewBiLstm, TrainingWords, read_by_length
from kd_lightning.encoders.by_length import READING, cheapest_ends
from kd_lightning.encoders.vocabulary import train_word_tokenizer


class Recording(nn.Module):
    """Return sums of token ids and types, and keep the shapes that were read."""

    def __init__(self):
        super().__init__()
        self.shapes = []
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, input_ids, attention_mask, token_type_ids):
        self.shapes.append(tuple(input_ids.shape))
        assert attention_mask.any(0).all() or not attention_mask.any(), "a column of padding alone"
        return torch.stack([(input_ids * attention_mask).sum(1), token_type_ids.sum(1)], 1) * self.weight


def batch_of(lengths):
    """Return ids, mask and types of rows of these lengths, padded to the longest."""
    mask = (torch.arange(max(*lengths, 1)) < torch.tensor(lengths).unsqueeze(1)).long()
    return torch.randint(1, 100, mask.shape), mask, mask * (torch.arange(mask.shape[1]) > 2)


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ([100, 12, 11, 98, 12, 10], [(4, 12), (2, 100)]),
        ([30, 32, 31], [(3, 32)]),
        ([7], [(1, 7)]),
        ([0, 0], [(2, 1)]),
        ([0, 120], [(1, 1), (1, 120)]),
    ],
)
def test_similar_rows_are_read_together(lengths, shapes):
    """Rows in another order, or the padding of the longest candidate for all of a question."""
    encoder, inputs = Recording(), batch_of(lengths)
    found = read_by_length(encoder, *inputs)
    assert encoder.shapes == shapes
    torch.testing.assert_close(found, encoder(*inputs))
    found.sum().backward()
    gradient, encoder.weight.grad = encoder.weight.grad, None
    encoder(*inputs).sum().backward()
    torch.testing.assert_close(gradient, encoder.weight.grad)


def test_a_text_without_a_word_is_read():
    """An LSTM over no token at all, beside a long text: an error in the middle of training."""
    tokenizer = train_word_tokenizer(["the cup"], 10)
    encoder = NewBiLstm(words=TrainingWords(size=8), hidden_size=4).build(tokenizer).eval()
    inputs = batch_of([0, 120])
    inputs[0].fill_(2)
    torch.testing.assert_close(read_by_length(encoder, *inputs), encoder(*inputs))


def test_parts_are_the_cheapest_there_are():
    """By all ways to cut: parts that save less than a further reading costs, or padding that one more would save."""
    random = np.random.default_rng(1)
    for _ in range(30):
        lengths = random.integers(5, 128, random.integers(1, 12))
        known = np.unique(lengths)

        def cost(ends, lengths=lengths):
            each = np.array(ends)[np.searchsorted(ends, lengths)]
            return each.sum() + READING * len(ends)

        ways = [(*cut, known[-1]) for n in range(len(known)) for cut in combinations(known[:-1], n)]
        assert cost(cheapest_ends(lengths)) == min(map(cost, ways))


def test_other_devices_read_at_once():
    """Where a reading has its price whatever its size, ten of them cost ten times one."""
    encoder = Recording()
    with torch.device("meta"):
        inputs = [torch.zeros(4, 120, dtype=torch.int64) for _ in range(3)]
    encoder.forward = lambda ids, mask, types: ids
    assert read_by_length(encoder, *inputs).shape == (4, 120)
