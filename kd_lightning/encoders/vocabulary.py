"""Tokenizers: loaded with a pre-trained encoder, or trained on the texts for an encoder that starts from nothing."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd_lightning.errors import UserError, first_line
from kd_lightning.treebank import word_splitter

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

BARE = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
"""The layout of texts with nothing around and between them."""

INSIDE = 0xF0000
"""Offset of the private characters that stand for letters inside a word while a vocabulary is learned."""


def learn_pieces(words: Iterable[str], vocab_size: int) -> dict[str, int]:
    """Return word pieces learned by byte-pair merges: piece -> id, the special tokens first.

    The WordPiece trainer of ``tokenizers`` gives another vocabulary at each call, its BPE trainer does not. Letters
    inside a word are moved to characters of their own, so that pieces that begin a word and pieces that continue one
    (``##ing``) are learned as different ones.

    Args:
        words: All words of the texts, as often as they occur.
        vocab_size: Upper bound on the number of pieces.
    """
    counts = Counter(words)
    room = sys.maxunicode - INSIDE  # words with rarer letters teach nothing
    shifted = {w: w[0] + "".join(chr(INSIDE + ord(c)) for c in w[1:]) for w in counts if max(map(ord, w)) <= room}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lines = (" ".join([shifted[word]] * count) for word, count in counts.items() if word in shifted)
    special = list(SPECIAL.values())
    learner.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )

    def spelled(piece: str) -> str:
        plain = "".join(chr(ord(c) - INSIDE) if ord(c) >= INSIDE else c for c in piece)
        return f"##{plain}" if ord(piece[0]) >= INSIDE else plain

    return {piece if piece in special else spelled(piece): number for piece, number in learner.get_vocab().items()}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer trained on the texts, with BERT's layout of single texts and pairs.

    The same texts give the same tokenizer, on every machine and at every call.

    Args:
        texts: Training texts; only these may shape the vocabulary.
        vocab_size: Upper bound on the number of word pieces, special tokens included.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = (word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    pieces = learn_pieces(words, vocab_size)
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, pieces[token]) for token in (SPECIAL["cls_token"], SPECIAL["sep_token"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **SPECIAL
    )


def train_word_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing tokenizer of whole words, the most frequent of the texts; no special tokens around texts.

    Words are as in ``treebank.WORD``, apostrophes straight as GloVe has them.

    Args:
        texts: Training texts; only these may shape the vocabulary.
        vocab_size: Upper bound on the number of words, padding and the unknown word included.
    """
    normalizer = normalizers.Sequence([normalizers.Replace("\u2019", "'"), normalizers.BertNormalizer(lowercase=True)])
    splitter = word_splitter()
    counts = Counter(w for text in texts for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    special = [SPECIAL["pad_token"], SPECIAL["unk_token"]]
    ranked = sorted(counts, key=lambda word: (-counts[word], word))  # ties by the alphabet, on every machine
    words = {word: number for number, word in enumerate([*special, *ranked][:vocab_size])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = BARE
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token=SPECIAL["pad_token"],
        unk_token=SPECIAL["unk_token"],
    )


def bare_texts(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy of a fast tokenizer that puts no special token around or between texts, and has none for a mask."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = BARE
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
    )


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a hub name or folder.

    Raises:
        UserError: If there is none, or it has no vocabulary or no padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        why = "" if Path(path).is_dir() else f" ({first_line(error)})"  # of a folder it is a page of guesses
        raise UserError(
            f"no tokenizer at '{path}': expected a hub name or a folder with tokenizer.json{why}"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of '{path}' has no fast version, expected a tokenizer.json beside it")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # what transformers makes up where there is no file
        raise UserError(
            f"no tokenizer at '{path}': found special tokens only, expected a tokenizer.json beside the model"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of '{path}' has no padding token, expected an encoder's tokenizer")
    return tokenizer


def masked_as(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a model reads for a masked word: its mask if it has one, else its unknown word.

    Raises:
        UserError: If the tokenizer has neither.
    """
    found: str | None = tokenizer.mask_token or tokenizer.unk_token
    if found is None:
        raise UserError(
            f"the tokenizer of '{tokenizer.name_or_path}' has neither a mask nor an unknown word, expected an encoder's"
        )
    return found


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides token ids: vocabulary, rules, special tokens, and how long texts are cut."""
    rules: str = tokenizer.backend_tokenizer.to_str()
    value = [rules, tokenizer.truncation_side, tokenizer.split_special_tokens]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
