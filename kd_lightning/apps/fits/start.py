"""A fit that goes on from a trained model: its encoder, and its heads where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file

from kd_lightning.apps.fits.build import build_encoder
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.encoders import Encoder
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem

Shapes = Mapping[str, tuple[int, ...]]
"""Weight of a system's heads (``TASK.NAME``) -> its shape."""


def check_kept_heads(where: str, begun: Shapes, tuned: Shapes) -> None:
    """Check that heads can go on from those of another system.

    Args:
        where: The settings that ask for it.
        begun: Of the system that they come from; it may have more tasks.
        tuned: Of the system that goes on.

    Raises:
        UserError: If they differ.
    """
    tasks = {name.partition(".")[0] for name in tuned}
    own = {name: shape for name, shape in begun.items() if name.partition(".")[0] in tasks}
    if own != dict(tuned):
        other = min(name for name in {*own, *tuned} if own.get(name) != tuned.get(name))
        raise UserError(
            f"{where}.heads is kept, but the head would have {other} {tuned.get(other, 'no more')} where it has "
            f"{own.get(other, 'none')}: set {where}.heads=new"
        )


@dataclass(frozen=True)
class Start:
    """Where a fit begins.

    Args:
        model: The trained model.
        keep_heads: Whether the heads go on too, or begin anew.
    """

    model: TrainedModel
    keep_heads: bool

    def identity(self) -> list[Any]:
        """Return what the fit's result depends on, and no path."""
        return [self.model.result["weights"], self.keep_heads]

    def encoder(self, spec: Any) -> Encoder:
        """Return the trained encoder, of its recipe ``spec``.

        Raises:
            UserError: If the folder was changed after its fit.
        """
        self.model.check_weights()
        return build_encoder(spec, self.model.tokenizer)

    def load_heads(self, system: NLUSystem) -> None:
        """Give the system's heads the trained weights, where heads are kept; see ``check_kept_heads``."""
        if self.keep_heads:
            found = load_file(self.model.folder / "heads.safetensors")
            own = {name: value for name, value in found.items() if name.partition(".")[0] in system.heads}
            system.heads.load_state_dict(own)
