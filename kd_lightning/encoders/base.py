"""What the systems ask of an encoder, and what the commands ask of the recipe that builds one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenStates:
    """What an encoder makes of texts: one vector of each, and one of each of their tokens.

    Args:
        text: ``[n, H]``, what the encoder returns without the tokens.
        tokens: ``[n, L, H]``.
        first: Which tokens are the first text's, bool ``[n, L]``; marks as the encoder reads them count, padding not.
        second: Which are the second text's.
    """

    text: Tensor
    tokens: Tensor
    first: Tensor
    second: Tensor

    def __getitem__(self, rows: Tensor) -> TokenStates:
        """Return some rows, by their positions ``[n]``."""
        return TokenStates(self.text[rows], self.tokens[rows], self.first[rows], self.second[rows])

    def to(self, dtype: torch.dtype) -> TokenStates:
        """Return the states in another precision."""
        return TokenStates(self.text.to(dtype), self.tokens.to(dtype), self.first, self.second)


class Encoder(Protocol):
    """A ``torch.nn.Module`` that turns token ids into one vector per row; bring your own by having these members.

    One that reads the two texts of a pair apart, as a siamese head needs it, returns ``[first ; second]`` (0 for a
    second text that is not there), and has ``text_dim = H / 2`` too. One that heads over tokens fit on has a method
    ``tokens`` too, with the arguments of the call, which returns ``TokenStates``.
    """

    output_dim: int
    """H."""
    num_layers: int
    """Number of stacked layers, for layer-wise learning rates."""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return ``[B, H]`` of token ids, mask and token types ``[B, L]``; padding must not change the result."""
        ...

    def depth(self, name: str) -> int:
        """Return the depth of a parameter: 0 embeddings, i + 1 layer i, ``num_layers + 1`` what follows them."""
        ...

    def save(self, folder: Path) -> None:
        """Write the encoder's weights and configuration into the folder, so that ``EncoderSpec.saved`` rebuilds it."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules (as ``torch.nn.Module`` does)."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters by name (as ``torch.nn.Module`` does)."""
        ...


class EncoderSpec(Protocol):
    """The recipe of an encoder, in plain values: what a file of ``conf/encoder`` describes.

    A dataclass may have a field ``sparse: bool | None``: whether the gradients of its embeddings have the rows of the
    batch only. Where it is None, a fit sets it to whether its optimiser takes such gradients.
    """

    max_length: int
    """Longest input in tokens; longer texts are cut, the longer one of a pair first."""

    def fingerprint(self) -> str:
        """Return a hash of everything the new encoder depends on, weights included, but no path."""
        ...

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the tokenizer; one that learns its vocabulary learns it from ``texts``."""
        ...

    def build(self, tokenizer: PreTrainedTokenizerBase) -> Encoder:
        """Return a new encoder for the tokenizer, with pre-trained or random weights (of torch's global generator)."""
        ...

    def saved(self, folder: Path) -> EncoderSpec:
        """Return the recipe of the encoder that ``Encoder.save`` wrote into the folder."""
        ...
