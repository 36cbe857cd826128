"""Tokenizers: loaded with a pre-trained encoder, or trained on the texts for an encoder that starts from nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd_lightning.errors import UserError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer trained on the texts, with BERT's layout of single texts and pairs.

    Args:
        texts: Training texts; only these may shape the vocabulary.
        vocab_size: Upper bound on the number of word pieces, special tokens included.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = (tokenizer.token_to_id(SPECIAL[name]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **SPECIAL
    )


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a hub name or folder.

    Raises:
        UserError: If there is none, or it has no vocabulary or no padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer at '{path}': expected a hub name or a folder with tokenizer.json ({error})"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of '{path}' has no fast version, expected a tokenizer.json beside it")
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # what transformers makes up where there is no file
        raise UserError(f"no tokenizer at '{path}': found special tokens only, expected a tokenizer.json beside the model")
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of '{path}' has no padding token, expected an encoder's tokenizer")
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides token ids: vocabulary, rules and special tokens."""
    rules: str = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(rules.encode()).hexdigest()
