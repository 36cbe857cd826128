"""Compiled encoders: batches are padded to one of a few shapes, since each shape is compiled for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.encoders.base import Encoder, TokenStates

SHORTEST = 32
"""Length to which the shortest texts are padded: below it, GPUs are waiting for the processor anyway."""


def padded_lengths(max_length: int) -> tuple[int, ...]:
    """Return the lengths to which texts are padded, rising; each at most 1.5 times the one before.

    Args:
        max_length: Longest input in tokens.

    Example:
        >>> padded_lengths(128)
        (32, 48, 64, 96, 128)
        >>> padded_lengths(40)
        (32, 40)
    """
    lengths, power = [], SHORTEST
    while power < max_length:
        lengths += [power, power * 3 // 2]
        power *= 2
    return (*(length for length in lengths if length < max_length), max_length)


def can_be_compiled(encoder: nn.Module) -> bool:
    """Tell whether PyTorch compiles an encoder: it does not compile LSTMs, whose kernels are whole networks already."""
    return not any(isinstance(module, nn.RNNBase) for module in encoder.modules())


class CompiledReading:
    """Reads batches with a compiled form of an encoder; the encoder and the names of its weights stay as they are.

    A batch is filled up to one of ``padded_lengths`` and to full rows, and what is read of the filling is cut off
    again. The number of compiled graphs is bounded by the lengths, once for training and once for evaluation.

    Args:
        rows: Rows of a training batch; larger batches are filled up to a multiple of it.
        evaluation_rows: Rows of an evaluation batch.
        max_length: Longest input in tokens.
        pad_id: Token id of padding.
        backend: What compiles, as ``torch.compile`` takes it.
    """

    def __init__(
        self,
        *,
        rows: int,
        evaluation_rows: int,
        max_length: int,
        pad_id: int,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.rows, self.evaluation_rows, self.pad_id, self.backend = rows, evaluation_rows, pad_id, backend
        self.lengths = padded_lengths(max_length)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled: it is of one encoder, and of this process."""
        return {**self.__dict__, "_compiled": {}}

    def read(
        self,
        encoder: Encoder,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        *,
        tokens: bool = False,
    ) -> Tensor | TokenStates:
        """Return what the encoder makes of the rows, ``[B, H]``.

        Args:
            encoder: The encoder, the same in all calls.
            input_ids: Token ids, int64 ``[B, L]``, padded on the right.
            attention_mask: 1 for a token, 0 for padding, int64 ``[B, L]``.
            token_type_ids: 0 for the first text, 1 for the second, int64 ``[B, L]``.
            tokens: Whether the states of the tokens are asked for, too.
        """
        count, length = input_ids.shape
        training = encoder.training  # type: ignore[attr-defined]
        filled = self.filled(input_ids, attention_mask, token_type_ids, self.rows if training else self.evaluation_rows)
        found = self._call(encoder, tokens)(*filled)
        if not isinstance(found, TokenStates):
            text: Tensor = found
            return text[:count]
        of_tokens = (found.tokens, found.first, found.second)
        return TokenStates(found.text[:count], *(x[:count, :length] for x in of_tokens))

    def filled(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, mask and types of one of the shapes, ``[k * rows, one of the lengths]``.

        A row that is filled in has one token: attention over none is not a number, and so would be its gradient.
        """
        count, length = input_ids.shape
        columns = next((known for known in self.lengths if known >= length), length) - length
        more = -count % rows
        ids = F.pad(input_ids, (0, columns, 0, more), value=self.pad_id)
        mask, types = (F.pad(x, (0, columns, 0, more)) for x in (attention_mask, token_type_ids))
        if more:
            mask[count:, 0] = 1
        return ids, mask, types

    def _call(self, encoder: Any, tokens: bool) -> Callable[..., Any]:
        name = "tokens" if tokens else "text"
        if name not in self._compiled:
            if not self._compiled:
                torch.compiler.reset()  # what was compiled for another fit is not needed any more
            config: Any = torch._dynamo.config
            graphs = 4 * len(self.lengths)  # text and tokens, training and evaluation; then PyTorch would give up
            config.recompile_limit = max(config.recompile_limit, graphs)
            read = encoder.tokens if tokens else encoder
            self._compiled[name] = torch.compile(read, dynamic=False, backend=self.backend)
        return self._compiled[name]
