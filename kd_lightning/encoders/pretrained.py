"""Encoders that someone has trained before: from the Hugging Face hub, or from a folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from kd_lightning.encoders.transformer import Pooling, TransformerEncoder
from kd_lightning.encoders.vocabulary import load_tokenizer
from kd_lightning.errors import UserError, first_line

log = logging.getLogger(__name__)

DROPOUT = (
    "hidden_dropout_prob", "attention_probs_dropout_prob",
    "dropout", "attention_dropout",
    "embedding_dropout", "mlp_dropout",
)  # fmt: skip
"""What model configurations call the dropout rates of their layers: BERT's family, DistilBERT, ModernBERT."""

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip


def files_hash(folder: Path) -> str:
    """Return a hash of what decides a model's output: weights, configuration, tokenizer."""
    digest = hashlib.sha256()
    named = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    globbed = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.model"))]
    for path in [*globbed, *(path for path in named if path.is_file())]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PretrainedTransformer:
    """The recipe of a pre-trained transformer.

    Args:
        path: A hub name, or a folder with ``config.json``, ``model.safetensors`` and the tokenizer. Weights are read
            from safetensors only: a pickle can run code.
        revision: Branch, tag or commit on the hub; None takes the newest.
        num_layers: Keep only the first k layers; None keeps all.
        pooling: See ``TransformerEncoder``.
        max_length: Longest input in tokens.
        dropout: Dropout rate within the layers, attention included; None takes the model's own (BERT: 0.1).
    """

    path: str
    revision: str | None = None
    num_layers: int | None = None
    pooling: Pooling = "auto"
    max_length: int = 128
    dropout: float | None = None

    @cached_property
    def folder(self) -> Path:
        """The model's files: the folder itself, or the snapshot of the hub's, fetched once.

        Raises:
            UserError: If there is neither.
        """
        if Path(self.path).is_dir():
            return Path(self.path)
        from huggingface_hub import snapshot_download

        try:
            wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=wanted))
        except Exception as error:
            raise self._not_found(error) from error

    def fingerprint(self) -> str:
        """Return a hash of the files and of the recipe, the same wherever the folder lies."""
        values = {**asdict(self), "path": files_hash(self.folder), "revision": None}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _not_found(self, error: Exception) -> UserError:
        return UserError(
            f"encoder '{self.path}' cannot be loaded: expected a folder with config.json and model.safetensors, or a "
            f"model on the Hugging Face hub that can be reached ({type(error).__name__}: {first_line(error)})"
        )

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the model's own tokenizer; the texts are not looked at."""
        return load_tokenizer(str(self.folder))

    def build(self, tokenizer: PreTrainedTokenizerBase) -> TransformerEncoder:
        """Return the encoder with its pre-trained weights, in float32.

        Raises:
            UserError: If they cannot be loaded, some are missing, or ``max_length`` is more than the model reads. A
                pooler alone may be missing: with ``pooling=pooler`` a new one is trained (RoBERTa's usual head), with
                ``auto`` the first token's state is taken.
        """
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            self._set_dropout(config)
            model, loading = AutoModel.from_pretrained(
                self.folder,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise self._not_found(error) from error
        pooling = self._pooling(sorted(loading["missing_keys"]))
        positions = getattr(config, "max_position_embeddings", self.max_length)
        if "roberta" in config.model_type or config.model_type in ("camembert", "longformer", "mpnet"):
            positions -= config.pad_token_id + 1  # they count positions from there
        if self.max_length > positions:
            raise UserError(f"encoder.max_length is {self.max_length}, '{self.path}' reads at most {positions} tokens")
        return TransformerEncoder(model, num_layers=self.num_layers, pooling=pooling)

    def _set_dropout(self, config: PretrainedConfig) -> None:
        """Set the layers' dropout rates in a model's configuration.

        Raises:
            UserError: If the rate is out of range, or the model knows none of the settings.
        """
        if self.dropout is None:
            return
        if not 0 <= self.dropout < 1:
            raise UserError(f"encoder.dropout is {self.dropout}, expected a number in [0, 1), or null")
        known = [name for name in DROPOUT if isinstance(getattr(config, name, None), float | int)]
        if not known:
            raise UserError(f"encoder.dropout: the config.json of '{self.path}' has none of {', '.join(DROPOUT)}")
        for name in known:
            setattr(config, name, self.dropout)

    def _pooling(self, missing: Sequence[str]) -> Pooling:
        """Return how to pool, given the names of the weights that the files lack."""
        others = [name for name in missing if "pooler" not in name]
        if others:
            raise UserError(
                f"encoder '{self.path}' lacks {len(others)} of its weights, first {others[0]}: expected all that its "
                "config.json describes; were they written by another model?"
            )
        if missing and self.pooling == "pooler":
            log.warning("encoder %s comes without a pooler's weights: a new pooler is trained", self.path)
        return "first_token" if missing and self.pooling == "auto" else self.pooling

    def saved(self, folder: Path) -> PretrainedTransformer:
        """Return the recipe of the trained encoder in the folder; its layers are cut already."""
        return replace(self, path=str(folder), revision=None, num_layers=None)
