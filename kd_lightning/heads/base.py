"""What the systems ask of a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from kd_lightning.tasks import Task

HeadFactory = Callable[[Task, int], nn.Module]
"""(task, H) -> a module from ``[n, H]`` to ``[n, task.num_labels]``.

A module with ``reads_texts_apart = True`` takes ``[first ; second]``, of an encoder that reads the two texts of a pair
apart; one with ``reads_tokens = True`` takes ``TokenStates`` instead of vectors.
"""


def build_heads(
    tasks: Sequence[Task], input_dim: int, head: HeadFactory, task_heads: Mapping[str, HeadFactory] | None = None
) -> nn.ModuleDict:
    """Return task -> its head.

    Args:
        tasks: The tasks.
        input_dim: Width of what the encoder returns.
        head: Builds the heads.
        task_heads: Task -> what builds its head instead.

    Raises:
        ValueError: If a head refuses its settings; of a task's own head the message names the task.
    """
    found, own = nn.ModuleDict(), task_heads or {}
    for task in tasks:
        try:
            found[task.name] = own.get(task.name, head)(task, input_dim)
        except ValueError as error:
            raise ValueError(f"{error} (the head of {task.name})" if task.name in own else str(error)) from error
    return found


def check_readers(heads: nn.ModuleDict, encoder: Any) -> None:
    """Check that heads find what they read in what an encoder returns.

    Args:
        heads: Task -> its head.
        encoder: See ``kd_lightning.encoders.Encoder``.

    Raises:
        ValueError: If one does not; the message says what fits.
    """
    apart = any(getattr(head, "reads_texts_apart", False) for head in heads.values())
    if apart and not hasattr(encoder, "text_dim"):
        raise ValueError(
            f"the head takes two texts that were read apart, a {type(encoder).__name__} reads them as one: choose "
            "encoder=bilstm (the teacher's is encoder@teacher.encoder), or "
            "system.head._target_=kd_lightning.heads.linear_head"
        )
    reading = [name for name, head in heads.items() if getattr(head, "reads_tokens", False)]
    if reading and not hasattr(encoder, "tokens"):
        raise ValueError(
            f"the head of {reading[0]} reads tokens, a {type(encoder).__name__} returns one vector of a text: "
            "choose a transformer, or kd_lightning.heads.linear_head for this task"
        )
