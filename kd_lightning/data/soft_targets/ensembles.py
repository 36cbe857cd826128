"""Soft targets of several teachers, joined by example id: side by side, or their mean."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from kd_lightning.data.soft_targets.manifest import refusal, show
from kd_lightning.data.soft_targets.table import SoftTargets

MEAN_VERSION = 2
"""Of the mean; raise it when the same members give other logits."""


def stack(members: Sequence[SoftTargets]) -> SoftTargets:
    """Return the logits of several teachers side by side, ``[N, T, C]``, joined by id.

    Raises:
        UserError: If the members differ in task, split, labels or data; the message names the field and both values.
    """
    first, *others = members
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


def ensemble(members: Sequence[SoftTargets]) -> SoftTargets:
    """Return logits of the mean of the teachers' probabilities; of scores, their mean.

    Logits of given probabilities are free up to a constant. Theirs is the mean of the teachers' own constants
    (``logsumexp``), so that equal teachers teach what one of them does, also to a loss over logits.

    Source: Liu et al. 2019 (MT-DNN-KD), arXiv:1904.09482, section 3.

    Raises:
        UserError: If the members do not belong together (see ``stack``).
    """
    stacked = stack(members)
    if stacked.manifest.labels:
        level = stacked.logits.logsumexp(dim=-1, keepdim=True)  # [N, T, 1]
        logits = (stacked.logits - level).logsumexp(dim=1) - math.log(len(members)) + level.mean(dim=1)
    else:
        logits = stacked.logits.mean(dim=1)
    return replace(stacked, logits=logits, identity=f"mean{MEAN_VERSION}-{stacked.identity}")
