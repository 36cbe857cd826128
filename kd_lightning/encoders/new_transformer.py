"""Encoders that start from random weights and a vocabulary learned from the training texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, RobertaPreLayerNormConfig, RobertaPreLayerNormModel

from kd_lightning.encoders.pretrained import PretrainedTransformer
from kd_lightning.encoders.transformer import TransformerEncoder
from kd_lightning.encoders.vocabulary import train_tokenizer
from kd_lightning.fields import is_whole


@dataclass(frozen=True, kw_only=True)
class NewTransformer:
    """The recipe of a small BERT with random weights and a vocabulary of its own.

    Layers are normalised before, not after, they add to their input (RoBERTa-PreLayerNorm), and the weights' spread is
    BERT's 0.02 at 768 dimensions, times the root of 768 / hidden_size: small models learn from nothing that way.

    Args:
        hidden_size: H.
        num_layers: Number of layers.
        num_heads: Number of attention heads; divides the hidden size.
        vocab_size: Upper bound on the word pieces learned from the training texts.
        max_length: Longest input in tokens.
        dropout: Dropout rate inside the encoder.
    """

    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    vocab_size: int = 8000
    max_length: int = 128
    dropout: float = 0.1

    def fingerprint(self) -> str:
        """Return a hash of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return a WordPiece tokenizer trained on the texts."""
        return train_tokenizer(texts, self.vocab_size)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> TransformerEncoder:
        """Return the encoder with random weights.

        Raises:
            ValueError: If it has no layer, or ``dropout`` is no rate.
        """
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            found = "null" if self.dropout is None else self.dropout
            raise ValueError(f"dropout is {found}, expected a number in [0, 1)")
        if not is_whole(self.num_layers, 1):
            raise ValueError(f"num_layers is {self.num_layers}, expected a whole number of at least 1")
        sizes: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": 4 * self.hidden_size,
            "max_position_embeddings": self.max_length + 1,  # positions count from pad_token_id + 1
            "type_vocab_size": 2,
            "pad_token_id": 0,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
            "initializer_range": 0.02 * (768 / self.hidden_size) ** 0.5,
        }
        return TransformerEncoder(RobertaPreLayerNormModel(RobertaPreLayerNormConfig(**sizes)))

    def saved(self, folder: Path) -> PretrainedTransformer:
        """Return the recipe of the trained encoder in the folder."""
        return PretrainedTransformer(path=str(folder), max_length=self.max_length)
