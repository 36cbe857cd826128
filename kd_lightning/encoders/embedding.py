"""Word vectors: trained, frozen, or a copy of each side by side."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Channels = Literal["trained", "frozen", "both"]
"""Whether the word vectors are trained, stay as they are, or stand there in one copy of each kind."""


class WordEmbedding(nn.Module):
    """A vector per token id.

    Args:
        vectors: ``[V, E]``, where they start.
        channels: ``"both"`` is the multichannel embedding of Kim 2014: a frozen and a trained copy, concatenated.
        pad_id: Its vector gets no gradient.
        sparse: Whether the gradient has the rows of the batch only, for optimisers whose step costs what they touch.

    Raises:
        ValueError: If ``channels`` is none of the three, or ``sparse`` neither true nor false.

    Source: Tang et al. 2019, arXiv:1903.12136, section 4.2; Kim 2014, arXiv:1408.5882.
    """

    def __init__(self, vectors: Tensor, channels: Channels = "trained", pad_id: int = 0, sparse: bool = False) -> None:
        super().__init__()
        if channels not in get_args(Channels):
            raise ValueError(f"channels is '{channels}', expected one of {', '.join(get_args(Channels))}")
        if not isinstance(sparse, bool):
            raise ValueError(f"sparse is {sparse!r}, expected true or false")
        self.channels, self.pad_id, self.sparse = channels, pad_id, sparse
        self.trained: nn.Embedding | None = None  # DDP looks for sparse gradients in modules of this class
        if channels != "frozen":
            self.trained = nn.Embedding(len(vectors), vectors.shape[1], pad_id, sparse=sparse, _weight=vectors.clone())
        self.frozen: nn.Parameter | None = None  # counted as a weight, and no buffer that DDP sends at each step
        if channels != "trained":
            self.frozen = nn.Parameter(vectors.clone(), requires_grad=False)
        self.vocab_size, self.size = vectors.shape
        self.output_dim = self.size * (2 if channels == "both" else 1)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return ``[B, L, E]`` (both channels: ``[B, L, 2E]``) of token ids ``[B, L]``."""
        found = []
        if self.frozen is not None:
            found.append(F.embedding(input_ids, self.frozen))
        if self.trained is not None:
            found.append(self.trained(input_ids))
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)
