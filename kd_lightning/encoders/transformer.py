"""A transformer encoder over any Hugging Face encoder model, optionally cut to its first layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormModel,
)

from kd_lightning.encoders.vocabulary import load_tokenizer, train_tokenizer
from kd_lightning.errors import UserError

Pooling = Literal["pooler", "first_token"]


def _layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the model's stacked layers, whatever the architecture calls them."""
    wanted = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise UserError(f"{type(model).__name__} keeps no list of {wanted} layers, expected a BERT-like stack of layers")


class TransformerEncoder(nn.Module):
    """One vector per row from a Hugging Face encoder.

    Args:
        model: The model, for example ``BertModel``.
        num_layers: Keep only the first k layers (with embeddings and pooler); None keeps all.
        pooling: ``"pooler"`` is the model's own pooler over the first token (BERT), ``"first_token"`` its last state.

    Raises:
        UserError: If the model has fewer layers than asked for, or no pooler.
    """

    def __init__(self, model: PreTrainedModel, *, num_layers: int | None = None, pooling: Pooling = "pooler") -> None:
        super().__init__()
        self._layers_name, layers = _layers(model)
        if num_layers is not None:
            if not 1 <= num_layers <= len(layers):
                raise UserError(
                    f"encoder.num_layers is {num_layers}, the model has {len(layers)}: choose 1 to {len(layers)}"
                )
            del layers[num_layers:]
            model.config.num_hidden_layers = num_layers
        if pooling == "pooler" and getattr(model, "pooler", None) is None:
            raise UserError(f"{type(model).__name__} has no pooler: set encoder.pooling=first_token")
        if pooling == "first_token" and hasattr(model, "pooler"):
            model.pooler = None
        self.model = model
        self.pooling = pooling
        self.num_layers = len(layers)
        self.output_dim: int = model.config.hidden_size
        self._has_types = getattr(model.config, "type_vocab_size", 0) > 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return ``[B, H]`` of token ids, mask and token types, each int64 ``[B, L]``."""
        types = {"token_type_ids": token_type_ids} if self._has_types else {}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.pooling == "pooler":
            return output.pooler_output
        return output.last_hidden_state[:, 0]

    def depth(self, name: str) -> int:
        """Return a parameter's depth: 0 embeddings, i + 1 layer i, ``num_layers + 1`` the pooler and final norms."""
        inside = name.removeprefix("model.")
        if inside.startswith(self._layers_name + "."):
            return int(inside.removeprefix(self._layers_name + ".").split(".")[0]) + 1
        return 0 if "embed" in inside else self.num_layers + 1

    def save(self, folder: Path) -> None:
        """Write a folder that any Hugging Face tool can load."""
        self.model.save_pretrained(folder)


def _weights_hash(folder: Path) -> str:
    """Return a hash of a model folder's configuration and weights."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.safetensors")), folder / "config.json"]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PretrainedTransformer:
    """The recipe of a pre-trained transformer.

    Args:
        path: A hub name, or a folder with ``config.json``, ``model.safetensors`` and the tokenizer. Weights are read
            from safetensors only: a pickle can run code.
        num_layers: Keep only the first k layers; None keeps all.
        pooling: See ``TransformerEncoder``.
        max_length: Longest input in tokens.
    """

    path: str
    num_layers: int | None = None
    pooling: Pooling = "pooler"
    max_length: int = 128

    def fingerprint(self) -> str:
        """Return a hash of the weights and of the recipe, the same wherever the folder lies."""
        folder = Path(self.path)
        if not folder.is_dir():
            folder = self._download()
        values = {**asdict(self), "path": _weights_hash(folder)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        try:
            wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
            return Path(snapshot_download(self.path, allow_patterns=wanted))
        except Exception as error:
            raise self._not_found(error) from error

    def _not_found(self, error: Exception) -> UserError:
        return UserError(
            f"encoder '{self.path}' cannot be loaded: expected a folder with config.json and model.safetensors, or a "
            f"model on the Hugging Face hub that can be reached ({type(error).__name__}: {str(error).splitlines()[0]})"
        )

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the model's own tokenizer; the texts are not looked at."""
        return load_tokenizer(self.path)

    def build(self, vocab_size: int) -> TransformerEncoder:
        """Return the encoder with its pre-trained weights, in float32."""
        try:
            config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                self.path, config=config, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise self._not_found(error) from error
        positions = getattr(config, "max_position_embeddings", self.max_length)
        if "roberta" in config.model_type or config.model_type in ("camembert", "longformer", "mpnet"):
            positions -= config.pad_token_id + 1  # they count positions from there
        if self.max_length > positions:
            raise UserError(f"encoder.max_length is {self.max_length}, '{self.path}' reads at most {positions} tokens")
        return TransformerEncoder(model, num_layers=self.num_layers, pooling=self.pooling)

    def saved(self, folder: Path) -> PretrainedTransformer:
        """Return the recipe of the trained encoder in the folder; its layers are cut already."""
        return replace(self, path=str(folder), num_layers=None)


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

    def build(self, vocab_size: int) -> TransformerEncoder:
        """Return the encoder with random weights."""
        sizes: dict[str, Any] = {
            "vocab_size": vocab_size,
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
