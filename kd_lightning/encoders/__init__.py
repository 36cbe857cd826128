"""Encoders: from token ids ``[B, L]`` to one vector per row ``[B, H]``, each with the recipe that builds it."""

from kd_lightning.encoders.base import Encoder, EncoderSpec
from kd_lightning.encoders.new_transformer import NewTransformer
from kd_lightning.encoders.pretrained import PretrainedTransformer
from kd_lightning.encoders.transformer import TransformerEncoder
from kd_lightning.encoders.vocabulary import load_tokenizer, train_tokenizer

__all__ = [
    "Encoder",
    "EncoderSpec",
    "NewTransformer",
    "PretrainedTransformer",
    "TransformerEncoder",
    "load_tokenizer",
    "train_tokenizer",
]
