"""Encoders: from token ids ``[B, L]`` to one vector per row ``[B, H]``, each with the recipe that builds it."""

from kd_lightning.encoders.base import Encoder, EncoderSpec, TokenStates
from kd_lightning.encoders.bilstm import BiLstmEncoder
from kd_lightning.encoders.by_length import read_by_length
from kd_lightning.encoders.compiled import CompiledReading
from kd_lightning.encoders.embedding import WordEmbedding
from kd_lightning.encoders.new_bilstm import NewBiLstm, SavedBiLstm
from kd_lightning.encoders.new_transformer import NewTransformer
from kd_lightning.encoders.pretrained import PretrainedTransformer
from kd_lightning.encoders.transformer import TransformerEncoder
from kd_lightning.encoders.vocabulary import load_tokenizer, train_tokenizer
from kd_lightning.encoders.words import TrainingWords, WordPieces, Words

__all__ = [
    "BiLstmEncoder",
    "CompiledReading",
    "Encoder",
    "EncoderSpec",
    "NewBiLstm",
    "NewTransformer",
    "PretrainedTransformer",
    "SavedBiLstm",
    "TokenStates",
    "TrainingWords",
    "TransformerEncoder",
    "WordEmbedding",
    "WordPieces",
    "Words",
    "load_tokenizer",
    "read_by_length",
    "train_tokenizer",
]
