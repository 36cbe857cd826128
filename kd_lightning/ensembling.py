"""The mean of several models' predictions, as logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from kd_lightning.losses.ranking import logsumexp_of, places_of

Mean = Literal["probabilities", "logits"]


def mean_logits(
    logits: Tensor,
    *,
    mean: Mean = "probabilities",
    weights: Sequence[float] | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Return the logits of the mean of several models' predictions.

    Logits of given probabilities are free up to a constant. Theirs is the mean of the models' own constants
    (``logsumexp``), so that equal models give what one of them gives, also to a loss over logits. Scores of regression
    are averaged as they are.

    Args:
        logits: ``[N, T, C]`` of T models; scores are ``[N, T, 1]``.
        mean: What is averaged: probabilities, as in MT-DNN-KD, or logits.
        weights: One per model, at least 0 and not all 0, of any sum; None is the same for all.
        group: The question of each row, int64 ``[N]``, where scores rank: probabilities are those of its candidates.

    Returns:
        ``[N, C]``.

    Raises:
        ValueError: If the mean is none of the two, or the weights do not fit.

    Source: Liu et al. 2019 (MT-DNN-KD), arXiv:1904.09482, section 3.
    """
    if mean not in get_args(Mean):
        raise ValueError(f"mean is '{mean}', expected one of {', '.join(get_args(Mean))}")
    models = logits.shape[1]
    share = torch.tensor([1.0] * models if weights is None else list(weights), dtype=logits.dtype, device=logits.device)
    if len(share) != models or not (share >= 0).all() or not 0 < share.sum() < float("inf"):
        raise ValueError(f"weights are {weights}, expected {models} numbers of at least 0, not all 0")
    if models == 1:
        return logits[:, 0]
    share = (share / share.sum()).view(1, models, 1)
    if mean == "logits" or (group is None and logits.shape[-1] == 1):
        return (share * logits).sum(dim=1)
    if group is None:
        level = logits.logsumexp(dim=-1, keepdim=True)  # [N, T, 1]
    else:
        place, count = places_of(group)
        level = logsumexp_of(logits, place, count)[place]  # [N, T, 1]
    return (logits - level + share.log()).logsumexp(dim=1) + (share * level).sum(dim=1)
