"""Soft targets of several teachers, joined by example id: side by side, or their mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_lightning.data.soft_targets.manifest import Manifest, refusal, show
from kd_lightning.data.soft_targets.table import SLICE, SoftTargets
from kd_lightning.ensembling import Mean, mean_logits

MEAN_VERSION = 3
"""Of the mean; raise it when the same members give other logits."""


@dataclass(frozen=True)
class StackedTeachers:
    """The logits of several teachers side by side, each where it is: they are joined by id when they are asked for.

    Args:
        members: Of the teachers, of the same examples.

    Raises:
        UserError: If the members differ in task, split, labels or data; the message names the field and both values.
    """

    members: Sequence[SoftTargets]

    def __post_init__(self) -> None:
        """Check that they belong together."""
        _check_alike(self.members)

    @property
    def identity(self) -> str:
        """Content address: of the only member, or of all of them."""
        first, *others = (member.identity for member in self.members)
        return hashlib.sha256(" ".join([first, *others]).encode()).hexdigest()[:16] if others else first

    @property
    def manifest(self) -> Manifest:
        """What they are, but for the teacher."""
        return self.members[0].manifest

    @property
    def folder(self) -> Path:
        """Where the first is, for messages."""
        return self.members[0].folder

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example's logits: teachers, then classes."""
        return (len(self.members), *self.members[0].shape)

    def of(self, example_id: NDArray[np.int64]) -> Tensor:
        """Return the logits of the given ids, ``[n, T, C]``.

        Raises:
            UserError: If an id has no soft target; the message counts them and names the first.
        """
        return torch.stack([member.of(example_id) for member in self.members], dim=1)

    def require(self, example_id: NDArray[np.int64]) -> None:
        """Check that every teacher has logits of the given ids.

        Raises:
            UserError: See ``of``.
        """
        for member in self.members:
            member.require(example_id)


TeacherLogits = SoftTargets | StackedTeachers
"""What a student hears: one teacher (or the mean of several), or several side by side."""


def _check_alike(members: Sequence[SoftTargets]) -> None:
    first, *others = members
    for other in others:
        for name in ("task", "split", "labels", "data", "rows", "both_orders", "augmenter"):
            have, want = getattr(other.manifest, name), getattr(first.manifest, name)
            if have != want:
                reason = f"field {name} is {show(have)}, expected {show(want)} as in {first.folder}"
                raise refusal(other.folder, reason)


def ensemble(
    members: Sequence[SoftTargets],
    *,
    mean: Mean = "probabilities",
    weights: Sequence[float] | None = None,
    group: Tensor | None = None,
) -> SoftTargets:
    """Return the mean of the teachers' predictions (see ``mean_logits``), one weight each.

    Args:
        members: Of the teachers.
        mean: See ``mean_logits``.
        weights: See ``mean_logits``.
        group: The question of each row in order of example id, int64 ``[N]``, of a task that ranks.

    Raises:
        UserError: If the members do not belong together (see ``StackedTeachers``).
        ValueError: If mean or weights are not valid.
    """
    all_of_them, first = StackedTeachers(members), members[0]
    at_once = SLICE if group is None else max(1, len(first.example_id))  # the mean is over all candidates of a question
    logits = first.logits.new_empty(first.logits.shape)
    for start in range(0, len(logits), at_once):
        some = slice(start, start + at_once)
        said = all_of_them.of(first.example_id[some])
        logits[some] = mean_logits(said, mean=mean, weights=weights, group=group)
    recipe = json.dumps([MEAN_VERSION, mean, None if weights is None else list(weights), all_of_them.identity])
    identity = f"mean-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    return replace(first, order=None, logits=logits, identity=identity)
