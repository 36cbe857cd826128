"""What a command was told."""

from __future__ import annotations

from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import ListConfig, OmegaConf


def as_told(arguments: ListConfig | list[str]) -> list[str]:
    """Return arguments as they were told: what stands for a value in one (``${hydra.job.num}``) may have none yet.

    Args:
        arguments: Hydra's list of them, ``overrides.task`` or ``overrides.hydra``.
    """
    told: Any = OmegaConf.to_container(arguments, resolve=False)
    return [str(argument) for argument in told]


def told_by(hydra: Any) -> list[str]:
    """Return what a job or a command was told, without what is Hydra's, from its settings of Hydra."""
    return as_told(hydra.overrides.task)


def name_of(argument: str) -> str:
    """Return the setting, or the config group, that an argument is of, whether or not it is new."""
    return argument.partition("=")[0].lstrip("+~")


def quoted(text: str) -> str:
    """Return a text as an argument's value that means this text, whatever letters it has, or if it is a number."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()
