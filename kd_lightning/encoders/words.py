"""What a BiLSTM reads: words of the training texts or word pieces of a pre-trained model, and where vectors start."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kd_lightning.encoders.pretrained import PretrainedTransformer
from kd_lightning.encoders.vector_file import read_vectors
from kd_lightning.encoders.vocabulary import bare_texts, train_word_tokenizer
from kd_lightning.errors import UserError

log = logging.getLogger(__name__)


class Words(Protocol):
    """A vocabulary, and the vectors that it starts with."""

    def fingerprint(self) -> str:
        """Return a hash of all that vocabulary and vectors depend on, besides the texts, and of no path."""
        ...

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return a tokenizer that puts nothing around and between texts; what it learns, it learns from ``texts``."""
        ...

    def vectors(self, tokenizer: PreTrainedTokenizerBase) -> Tensor:
        """Return ``[V, E]``, a vector per token of the tokenizer; random ones are of torch's global generator."""
        ...


def random_vectors(tokenizer: PreTrainedTokenizerBase, size: int) -> Tensor:
    """Return vectors ``[V, size]``, uniform in [-0.25, 0.25] as in Kim 2014 (arXiv:1408.5882); that of padding is 0."""
    vectors = torch.empty(len(tokenizer), size).uniform_(-0.25, 0.25)
    vectors[tokenizer.pad_token_id] = 0
    return vectors


@dataclass(frozen=True, kw_only=True)
class TrainingWords:
    """The most frequent words of the training texts, with random vectors, or with those of a file.

    Args:
        vocab_size: Upper bound on the words.
        size: Size of a word's vector, which a file decides by itself.
        vectors_file: A text file of vectors as GloVe and word2vec write them; words that it lacks start at random.

    Raises:
        ValueError: If a size is out of range.
    """

    vocab_size: int = 30_000
    size: int = 300
    vectors_file: str | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name, least, what in (
            ("vocab_size", 3, "padding, the unknown word, and one more"),
            ("size", 1, "a number"),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}: {what}")

    def fingerprint(self) -> str:
        """Return a hash of the recipe, and of the file's content.

        Raises:
            UserError: If the file cannot be read.
        """
        content = {} if self.vectors_file is None else {"vectors_file": _content(Path(self.vectors_file))}
        return hashlib.sha256(json.dumps({**asdict(self), **content}, sort_keys=True).encode()).hexdigest()

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return a tokenizer of the words of the texts, in lower case."""
        return train_word_tokenizer(texts, self.vocab_size)

    def vectors(self, tokenizer: PreTrainedTokenizerBase) -> Tensor:
        """Return the words' vectors ``[V, E]``.

        Raises:
            UserError: If the file cannot be read, or has none of the words.
        """
        if self.vectors_file is None:
            return random_vectors(tokenizer, self.size)
        special = set(tokenizer.all_special_tokens)
        numbers = {word: number for word, number in tokenizer.get_vocab().items() if word not in special}
        size, found = _read_once(self.vectors_file, _stamp(self.vectors_file), tuple(sorted(numbers)))
        if not found:
            words = ", ".join(sorted(numbers, key=lambda word: numbers[word])[:3])
            raise UserError(
                f"{self.vectors_file}: found none of the words ({words}, ...), expected vectors of lower-case words"
            )
        vectors = random_vectors(tokenizer, size)
        for word, vector in found.items():
            vectors[numbers[word]] = vector
        return vectors


def _stamp(path: str) -> tuple[int, int]:
    """Return what changes when a file is written anew."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _read_once(path: str, stamp: tuple[int, int], words: tuple[str, ...]) -> tuple[int, dict[str, Tensor]]:
    """Read the vectors of these words; models of one run that have the same words read them once."""
    size, found = read_vectors(Path(path), words)
    level = logging.INFO if 2 * len(found) > len(words) else logging.WARNING
    share = f"{len(found):,} of {len(words):,} words"
    if found:
        log.log(level, "%s: vectors for %s, the others start at random", path, share)
    return size, found


def _unreadable(path: object, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror or error}, expected a text file of word vectors")


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=1)
def _pretrained_vectors(folder: Path, stamps: tuple[tuple[int, int], ...]) -> Tensor:
    """Read a model's vectors ``[V, E]``; models of one run that begin with them load it once."""
    encoder = PretrainedTransformer(path=str(folder), max_length=1)
    return encoder.build(encoder.tokenizer([])).model.get_input_embeddings().weight.detach().clone()


@dataclass(frozen=True, kw_only=True)
class WordPieces:
    """The word pieces of a pre-trained transformer, with its own vectors or with random ones.

    Args:
        model: A hub name, or a folder with the model and its tokenizer: the teacher's encoder.
        revision: Branch, tag or commit on the hub; None takes the newest.
        size: Size of a random vector; None takes the model's vectors, as large as they are.

    Raises:
        ValueError: If no model is named.
    """

    model: str
    revision: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        """Check that there is a model: in a configuration it is the teacher's, where that is pre-trained."""
        if not self.model:
            raise ValueError(
                "model is null, since the teacher's encoder is not pre-trained: encoder.words.model=OWNER/MODEL or a "
                "folder, or encoder=bilstm for words of the training texts"
            )

    @cached_property
    def _pretrained(self) -> PretrainedTransformer:
        return PretrainedTransformer(path=self.model, revision=self.revision, max_length=1)

    def fingerprint(self) -> str:
        """Return a hash of the model's files and of the recipe."""
        value = [self._pretrained.fingerprint(), self.size]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()

    def tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer without its special tokens around texts; the texts are not looked at."""
        return bare_texts(self._pretrained.tokenizer(texts))

    def vectors(self, tokenizer: PreTrainedTokenizerBase) -> Tensor:
        """Return the pieces' vectors ``[V, E]``.

        Raises:
            UserError: If the model cannot be loaded.
        """
        if self.size is not None:
            return random_vectors(tokenizer, self.size)
        folder = self._pretrained.folder
        return _pretrained_vectors(folder, tuple(_stamp(str(path)) for path in sorted(folder.glob("*.safetensors"))))
