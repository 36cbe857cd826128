"""What the systems ask of a head."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from kd_lightning.tasks import Task

HeadFactory = Callable[[Task, int], nn.Module]
"""(task, H) -> a module from ``[n, H]`` to ``[n, task.num_labels]``.

A module with ``reads_texts_apart = True`` takes ``[first ; second]``, of an encoder that reads the two texts of a pair
apart; one with ``reads_tokens = True`` takes ``TokenStates`` instead of vectors.
"""
