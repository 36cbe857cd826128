"""Reading a batch in parts of similar lengths, where padding would cost more than a further reading does."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_lightning.encoders.base import Encoder

READING = 96
"""What a further reading costs on a processor, in tokens: 83 with MiniLM, forward and backward, measured."""


def read_by_length(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
    """Return what the encoder makes of the rows, ``[B, H]``; those of similar lengths are read together.

    The texts of most batches are of similar lengths already, and are read at once; the candidates of whole questions
    are not. On other devices than the processor, where a reading has its price whatever its size, all are read at once.

    Args:
        encoder: The encoder.
        input_ids: Token ids, int64 ``[B, L]``, padded on the right.
        attention_mask: 1 for a token, 0 for padding, int64 ``[B, L]``.
        token_type_ids: 0 for the first text, 1 for the second, int64 ``[B, L]``.
    """
    if input_ids.device.type != "cpu":
        return encoder(input_ids, attention_mask, token_type_ids)
    lengths = attention_mask.sum(1).clamp(min=1).numpy()  # a text without a token is a column of padding
    ends = cheapest_ends(lengths)
    if len(ends) == 1:
        return encoder(input_ids, attention_mask, token_type_ids)
    order = np.argsort(lengths, kind="stable")
    parts = [torch.from_numpy(rows) for rows in np.split(order, np.searchsorted(lengths[order], ends[:-1], "right"))]
    inputs = (input_ids, attention_mask, token_type_ids)
    found = [encoder(*(x[rows, :end] for x in inputs)) for rows, end in zip(parts, ends, strict=True)]
    return torch.cat(found)[torch.from_numpy(np.argsort(order))]


def cheapest_ends(lengths: NDArray[np.int64]) -> list[int]:
    """Return the longest length of each part, rising, so that padding and readings together cost the least.

    Args:
        lengths: Tokens of each row, ``[B]``.

    Example:
        >>> cheapest_ends(np.array([10, 11, 100, 10, 98]))
        [11, 100]
        >>> cheapest_ends(np.array([40, 45, 60]))
        [60]
    """
    known, counts = np.unique(lengths, return_counts=True)
    if known[-1] * len(lengths) - known @ counts <= READING:  # all that could be saved
        return [int(known[-1])]
    before = np.concatenate([[0], np.cumsum(counts)])  # rows shorter than each length
    cost, last = np.zeros(len(known) + 1), np.zeros(len(known) + 1, np.int64)
    for end in range(1, len(known) + 1):
        each = cost[:end] + (before[end] - before[:end]) * known[end - 1] + READING
        last[end] = each.argmin()
        cost[end] = each[last[end]]
    ends, end = [], len(known)
    while end:
        ends.append(int(known[end - 1]))
        end = int(last[end])
    return ends[::-1]
