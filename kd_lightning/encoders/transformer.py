"""A transformer encoder over any Hugging Face encoder model, optionally cut to its first layers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from kd_lightning.encoders.base import TokenStates
from kd_lightning.errors import UserError
from kd_lightning.fields import is_whole

Pooling = Literal["auto", "pooler", "first_token", "mean"]
"""How a text becomes one vector; see ``TransformerEncoder``."""


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
        pooling: ``"pooler"`` is the model's own pooler over the first token (BERT), ``"first_token"`` that token's last
            state, ``"mean"`` the mean of the last states without padding; ``"auto"`` the pooler if the model has one,
            else the first token.

    Raises:
        UserError: If the model has fewer layers than asked for, or no pooler.
    """

    def __init__(self, model: PreTrainedModel, *, num_layers: int | None = None, pooling: Pooling = "auto") -> None:
        super().__init__()
        self._layers_name, layers = _layers(model)
        if num_layers is not None:
            if not is_whole(num_layers, 1) or num_layers > len(layers):
                raise UserError(
                    f"encoder.num_layers is {num_layers}, the model has {len(layers)}: choose 1 to {len(layers)}"
                )
            del layers[num_layers:]
            model.config.num_hidden_layers = num_layers
        if pooling not in get_args(Pooling):
            raise UserError(f"encoder.pooling is '{pooling}', expected one of {', '.join(get_args(Pooling))}")
        has_pooler = getattr(model, "pooler", None) is not None
        if pooling == "pooler" and not has_pooler:
            raise UserError(f"{type(model).__name__} has no pooler: set encoder.pooling=first_token or mean")
        if pooling == "auto":
            pooling = "pooler" if has_pooler else "first_token"
        if pooling != "pooler" and has_pooler:
            model.pooler = None  # weights that nothing trains
        self.model = model
        self.pooling = pooling
        self.num_layers = len(layers)
        self.output_dim: int = model.config.hidden_size
        self._has_types = getattr(model.config, "type_vocab_size", 0) > 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return ``[B, H]`` of token ids, mask and token types, each int64 ``[B, L]``."""
        return self._pool(self._read(input_ids, attention_mask, token_type_ids), attention_mask)

    def tokens(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> TokenStates:
        """Return the vectors ``[B, H]`` with the last states of the tokens, ``[B, L, H]``."""
        output = self._read(input_ids, attention_mask, token_type_ids)
        second = token_type_ids.bool() & attention_mask.bool()
        first = attention_mask.bool() & ~second
        return TokenStates(self._pool(output, attention_mask), output.last_hidden_state, first, second)

    def _read(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> BaseModelOutputWithPooling:
        types = {"token_type_ids": token_type_ids} if self._has_types else {}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types)

    def _pool(self, output: BaseModelOutputWithPooling, attention_mask: Tensor) -> Tensor:
        if self.pooling == "pooler":
            return output.pooler_output
        if self.pooling == "first_token":
            return output.last_hidden_state[:, 0]
        mask = attention_mask.unsqueeze(-1)
        return (output.last_hidden_state * mask).sum(1) / mask.sum(1)

    @property
    def layers(self) -> nn.ModuleList:
        """The stack of layers that is kept."""
        found = self.model.get_submodule(self._layers_name)
        assert isinstance(found, nn.ModuleList)
        return found

    def depth(self, name: str) -> int:
        """Return a parameter's depth: 0 embeddings, i + 1 layer i, ``num_layers + 1`` the pooler and final norms."""
        inside = name.removeprefix("model.")
        if inside.startswith(self._layers_name + "."):
            return int(inside.removeprefix(self._layers_name + ".").split(".")[0]) + 1
        return 0 if "embed" in inside else self.num_layers + 1

    def save(self, folder: Path) -> None:
        """Write a folder that any Hugging Face tool can load."""
        self.model.save_pretrained(folder)
