"""The recipe of a BiLSTM that starts from random weights, and of one that was saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from kd_lightning.encoders.bilstm import BiLstmEncoder
from kd_lightning.encoders.embedding import Channels, WordEmbedding
from kd_lightning.encoders.pretrained import files_hash
from kd_lightning.encoders.vocabulary import load_tokenizer
from kd_lightning.encoders.words import Words
from kd_lightning.errors import UserError, first_line


@dataclass(frozen=True, kw_only=True)
class NewBiLstm:
    """The recipe of a one-layer BiLSTM with random weights.

    Args:
        words: What it reads, and where the vectors start.
        hidden_size: Size of each direction: 150 or 300 in the paper.
        channels: Whether the vectors are trained; see ``WordEmbedding``.
        max_length: Longest input in words or word pieces.
        dropout: Dropout rate on the embedded words.
        sparse: Whether the gradient of the vectors has the rows of the batch only. None leaves it to the fit, which
            knows the optimiser; without a fit, None is False.

    Source: Tang et al. 2019, arXiv:1903.12136.
    """

    words: Words
    hidden_size: int = 150
    channels: Channels = "trained"
    max_length: int = 128
    dropout: float = 0.0
    sparse: bool | None = None

    def fingerprint(self) -> str:
        """Return a hash of the recipe, and of the files that it names."""
        values = {name: value for name, value in vars(self).items() if name != "words"}
        values["words"] = self.words.fingerprint()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the words."""
        return self.words.tokenizer(texts)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> BiLstmEncoder:
        """Return the encoder with random weights; its vectors are as ``words`` says."""
        vectors = self.words.vectors(tokenizer)
        embedding = WordEmbedding(vectors, self.channels, tokenizer.pad_token_id, sparse=self.sparse or False)
        return BiLstmEncoder(embedding, self.hidden_size, self.dropout)

    def saved(self, folder: Path) -> SavedBiLstm:
        """Return the recipe of the trained encoder in the folder."""
        return SavedBiLstm(path=str(folder), max_length=self.max_length, sparse=self.sparse)


@dataclass(frozen=True, kw_only=True)
class SavedBiLstm:
    """The recipe of a BiLSTM that ``BiLstmEncoder.save`` wrote.

    Args:
        path: Folder with ``config.json``, ``model.safetensors`` and the tokenizer.
        max_length: Longest input in words.
        sparse: See ``NewBiLstm``.
    """

    path: str
    max_length: int = 128
    sparse: bool | None = None

    def fingerprint(self) -> str:
        """Return a hash of the files and of the recipe, the same wherever the folder lies."""
        values = {**vars(self), "path": files_hash(Path(self.path))}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the model's own tokenizer; the texts are not looked at."""
        return load_tokenizer(self.path)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> BiLstmEncoder:
        """Return the encoder with its weights.

        Raises:
            UserError: If the folder does not hold a whole one.
        """
        try:
            config = json.loads((Path(self.path) / "config.json").read_text())
            vectors = torch.zeros(config["vocab_size"], config["embedding_size"])
            embedding = WordEmbedding(vectors, config["channels"], config["pad_id"], self.sparse or False)
            encoder = BiLstmEncoder(embedding, config["hidden_size"], config["dropout"])
            encoder.load_state_dict(load_file(Path(self.path) / "model.safetensors"))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"encoder '{self.path}' cannot be loaded: expected a folder with the config.json and model.safetensors "
                f"of a BiLSTM of this version ({type(error).__name__}: {first_line(error)}); train it again"
            ) from error
        return encoder

    def saved(self, folder: Path) -> SavedBiLstm:
        """Return the recipe of the trained encoder in the folder."""
        return replace(self, path=str(folder))
