"""What a command was told."""

from __future__ import annotations

from typing import Any

from omegaconf import ListConfig, OmegaConf


def as_told(arguments: ListConfig | list[str]) -> list[str]:
    """Return arguments as they were told: what stands for a value in one (``${hydra.job.num}``) may have none yet.

    Args:
        arguments: Hydra's list of them, ``overrides.task`` or ``overrides.hydra``.
    """
    told: Any = OmegaConf.to_container(arguments, resolve=False)
    return [str(argument) for argument in told]
