"""What settings ask of the machine: half precision needs a GPU."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.errors import UserError

GPUS = ("auto", "gpu", "cuda")
"""Accelerators that take a GPU where there is one."""


def takes_gpu(accelerator: Any) -> bool:
    """Tell whether an accelerator's work is done on a GPU; torch is imported only where it has to be asked."""
    if accelerator not in GPUS:
        return False
    import torch

    return torch.cuda.is_available()


def check_precision(cfg: DictConfig, prefix: str) -> None:
    """Check that half precision (fp16) has a GPU.

    Args:
        cfg: The run's configuration.
        prefix: Where the settings of a fit stand: what comes before their names.

    Raises:
        UserError: If it has none.
    """
    where, precision = _of_trainer(cfg, prefix, "precision")
    if str(precision).startswith("16") and not takes_gpu(_of_trainer(cfg, prefix, "accelerator")[1]):
        raise no_half_precision(where, precision)


def no_half_precision(where: str, precision: Any) -> UserError:
    """Return the refusal of half precision on a processor."""
    return UserError(f"{where} is {precision}: fp16 needs a GPU; use bf16-mixed, 32-true or auto")


def _of_trainer(cfg: DictConfig, prefix: str, name: str) -> tuple[str, Any]:
    """Return where a fit's setting of the trainer stands and what it is: its own, a teacher's, or the run's."""
    places = [prefix, *["teacher."] * prefix.startswith("teacher."), ""]
    found = [(f"{place}trainer.{name}", OmegaConf.select(cfg, f"{place}trainer.{name}")) for place in places]
    return next((one for one in found if one[1] is not None), found[-1])
