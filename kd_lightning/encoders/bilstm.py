"""A one-layer bidirectional LSTM over words or word pieces, siamese for pairs: the student of Tang et al."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.encoders.embedding import WordEmbedding


class BiLstmEncoder(nn.Module):
    """The last states of both texts, at their true lengths: ``[h_a ; h_b]``, each ``[forward ; backward]``.

    Both texts of a pair are read by the same LSTM, and never see each other; of a single text ``h_b`` is 0.
    There are no packed sequences, since the exporters of PyTorch cannot write them: the backward direction reads each
    text reversed within its own length, so that neither direction meets padding before the last token. The result is
    that of ``pack_padded_sequence``.

    Args:
        embedding: From token ids to vectors.
        hidden_size: Size of each direction.
        dropout: Dropout rate on the embedded words.

    Source: Tang et al. 2019, arXiv:1903.12136, section 3.1.
    """

    num_layers = 1

    def __init__(self, embedding: WordEmbedding, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = nn.Dropout(dropout)
        self.forward_lstm = nn.LSTM(embedding.output_dim, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(embedding.output_dim, hidden_size, batch_first=True)
        self.text_dim = 2 * hidden_size
        self.output_dim = 2 * self.text_dim

    def read(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 2 x hidden_size]`` of texts, int64 ``[B, L]``, with ``lengths [B]``; of an empty one it is 0."""
        words = self.dropout(self.embedding(input_ids))  # [B, L, E]
        column = torch.arange(input_ids.shape[1], device=input_ids.device)
        mirrored = (lengths.unsqueeze(1) - 1 - column).clamp(min=0)  # [B, L]: the last token first
        reversed_words = words.gather(1, mirrored.unsqueeze(-1).expand_as(words))
        last = (lengths - 1).clamp(min=0).view(-1, 1, 1)
        states = [self.forward_lstm(words)[0], self.backward_lstm(reversed_words)[0]]  # each [B, L, hidden_size]
        ends = torch.cat([found.gather(1, last.expand(-1, 1, found.shape[2])).squeeze(1) for found in states], dim=1)
        return ends * (lengths > 0).unsqueeze(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return ``[B, 4 x hidden_size]`` of token ids, mask and token types, each int64 ``[B, L]``."""
        rows, longest = input_ids.shape
        second = (token_type_ids * attention_mask).sum(1)
        first = attention_mask.sum(1) - second
        exporting = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
        if not exporting:  # no size of a graph may depend on its data
            of_first, of_second = torch.stack([first.amax(), second.amax()]).tolist()
            if of_second == 0:
                return F.pad(self.read(input_ids, first), (0, self.text_dim))
            longest = max(of_first, of_second)  # columns that neither text reaches cost time, and change nothing
        place = first.unsqueeze(1) + torch.arange(longest, device=input_ids.device)
        second_ids = input_ids.gather(1, place.clamp(max=input_ids.shape[1] - 1))
        texts = torch.cat([input_ids[:, :longest], second_ids])  # [2B, longest text]
        both = self.read(texts, torch.cat([first, second]))  # one pass for both
        return torch.cat([both[:rows], both[rows:]], dim=1)

    def depth(self, name: str) -> int:
        """Return a parameter's depth: 0 the embeddings, 1 the LSTM."""
        return 0 if name.startswith("embedding.") else 1

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, which ``SavedBiLstm`` reads, and no one else."""
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"hidden_size": self.text_dim // 2, "dropout": self.dropout.p}
        embedding = {"vocab_size": self.embedding.vocab_size, "embedding_size": self.embedding.size}
        kind = {"channels": self.embedding.channels, "pad_id": self.embedding.pad_id}
        (folder / "config.json").write_text(json.dumps({**sizes, **embedding, **kind}, indent=2) + "\n")
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / "model.safetensors")
