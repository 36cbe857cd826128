"""Soft targets of several teachers, joined by example id: side by side, or their mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kd_lightning.data.soft_targets.manifest import refusal, show
from kd_lightning.data.soft_targets.table import SoftTargets
from kd_lightning.ensembling import Mean, mean_logits

MEAN_VERSION = 3
"""Of the mean; raise it when the same members give other logits."""


def stack(members: Sequence[SoftTargets]) -> SoftTargets:
    """Return the logits of several teachers side by side, ``[N, T, C]``, joined by id.

    Raises:
        UserError: If the members differ in task, split, labels or data; the message names the field and both values.
    """
    first, *others = members
    if not others:  # as it is, without a copy
        return replace(first, logits=first.logits.unsqueeze(1))
    for other in others:
        for name in ("task", "split", "labels", "data", "rows", "both_orders", "augmenter"):
            have, want = getattr(other.manifest, name), getattr(first.manifest, name)
            if have != want:
                reason = f"field {name} is {show(have)}, expected {show(want)} as in {first.folder}"
                raise refusal(other.folder, reason)
    ids = first.example_id
    logits = torch.stack([m.logits[torch.from_numpy(m.find(ids))] for m in members], dim=1)
    identity = hashlib.sha256(" ".join(m.identity for m in members).encode()).hexdigest()[:16]
    return SoftTargets(ids, None, logits, first.manifest, first.folder, identity)


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
        UserError: If the members do not belong together (see ``stack``).
        ValueError: If mean or weights are not valid.
    """
    stacked = stack(members)
    logits = mean_logits(stacked.logits, mean=mean, weights=weights, group=group)
    recipe = json.dumps([MEAN_VERSION, mean, None if weights is None else list(weights), stacked.identity])
    return replace(stacked, logits=logits, identity=f"mean-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}")
