"""Losses over the candidates of one question: against those that are relevant, and against a teacher's scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.checks import check_candidates, check_shapes


def ranking_loss(scores: Tensor, relevant: Tensor, group: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Return losses whose mean over the candidates is the mean over their questions.

    The loss of a question is the mean, over its relevant candidates A, of ``-log(exp(s_A) / (exp(s_A) + sum_B
    exp(s_B)))`` with B the irrelevant ones. A question whose candidates are all relevant, or none, tells nothing: it
    has a loss of 0, and does not count. One without labels has a loss of 0, too, and counts: a label weighs the same
    beside questions that follow a teacher alone.

    Args:
        scores: ``[B, 1]``, unbounded.
        relevant: 1 for a relevant candidate, 0 for another, ``[B]``.
        group: The question of each candidate, int64 ``[B]``; all of its candidates are in the batch.
        labelled: Whether each candidate has a label, bool ``[B]``: all of a question have one, or none; None is all.

    Returns:
        The same for each candidate of a question, ``[B]``.

    Raises:
        ValueError: If there is not one score, one label and one group for each candidate.

    Source: Liu et al. 2019 (MT-DNN), arXiv:1901.11504, equations 5 and 6, with gamma = 1; questions count the same, as
    in the paper's code.

    Example:
        >>> ranking_loss(torch.zeros(3, 1), torch.tensor([0, 1, 0]), torch.tensor([7, 7, 7]))
        tensor([1.0986, 1.0986, 1.0986])
    """
    labelled = torch.ones_like(group, dtype=torch.bool) if labelled is None else labelled
    check_candidates(scores, relevant, group, labelled)
    s, right = scores.float().squeeze(-1), relevant.bool() & labelled
    place, count = places_of(group)
    others = logsumexp_of(s.masked_fill(right, -torch.inf), place, count)  # [G]
    told = right & others.isfinite()[place]
    each = torch.where(told, F.softplus(torch.where(told, others[place] - s, 0.0)), 0.0)
    relevant_ones = torch.zeros_like(others).index_add(0, place, told.to(s.dtype))
    total = torch.zeros_like(others).index_add(0, place, each)
    unlabelled = torch.zeros_like(others).index_add(0, place, (~labelled).to(s.dtype)) > 0
    return _of_questions(total / relevant_ones.clamp(min=1), (relevant_ones > 0) | unlabelled, place)


def ranking_cross_entropy(student: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
    """Return losses whose mean over the candidates is the mean over their questions: cross-entropy with a teacher.

    The loss of a question is ``-sum_A softmax(teacher)_A log softmax(student)_A`` over its candidates A.

    Args:
        student: Scores ``[B, 1]``.
        teacher: Scores ``[B, 1]``; they receive no gradient.
        group: The question of each candidate, int64 ``[B]``; all of its candidates are in the batch.

    Returns:
        The same for each candidate of a question, ``[B]``.

    Raises:
        ValueError: If there is not one score of each, and one group, for each candidate.

    Example:
        >>> ranking_cross_entropy(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([1, 1]))
        tensor([0.6931, 0.6931])
    """
    check_candidates(student, group)
    check_shapes(student, teacher, min_classes=1)
    s, t = student.float().squeeze(-1), teacher.detach().float().squeeze(-1)
    place, count = places_of(group)
    target = (t - logsumexp_of(t, place, count)[place]).exp()
    each = -target * (s - logsumexp_of(s, place, count)[place])
    of_questions = torch.zeros(count, dtype=s.dtype, device=s.device).index_add(0, place, each)
    return _of_questions(of_questions, torch.ones_like(of_questions, dtype=torch.bool), place)


def top_candidates(scores: Tensor, group: Tensor) -> Tensor:
    """Return 1 for the candidate of each question with the highest score (for all of them, if several tie), else 0.

    Args:
        scores: ``[B, 1]``.
        group: The question of each candidate, int64 ``[B]``; all of its candidates are in the batch.

    Returns:
        int64 ``[B]``.

    Raises:
        ValueError: If there is not one score, and one group, for each candidate.

    Example:
        >>> top_candidates(torch.tensor([[0.2], [0.9], [-1.0]]), torch.tensor([7, 7, 8]))
        tensor([0, 1, 1])
    """
    check_candidates(scores, group)
    s = scores.squeeze(-1)
    place, count = places_of(group)
    top = torch.full((count,), -torch.inf, dtype=s.dtype, device=s.device).scatter_reduce(0, place, s, "amax")
    return (s == top[place]).long()


def _of_questions(losses: Tensor, count: Tensor, place: Tensor) -> Tensor:
    """Return the losses of questions ``[G]``, of those that count, on their candidates ``[B]``, with the same mean."""
    candidates = torch.bincount(place, minlength=len(losses))
    shares = count / (candidates * count.sum().clamp(min=1))
    return (len(place) * shares * losses)[place]


def places_of(group: Tensor) -> tuple[Tensor, int]:
    """Return the number of each row's group, from 0, ``[B]``, and how many there are."""
    found, place = torch.unique(group, return_inverse=True)
    return place, len(found)


def logsumexp_of(values: Tensor, place: Tensor, count: int) -> Tensor:
    """Return ``log sum exp`` of the values of each group, ``[B, ...]`` to ``[G, ...]``; -inf where all of them are."""
    top = torch.full((count, *values.shape[1:]), -torch.inf, dtype=values.dtype, device=values.device)
    index = place.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    top = top.scatter_reduce(0, index, values.detach(), "amax")
    base = torch.where(top.isfinite(), top, 0.0)
    return torch.zeros_like(base).index_add(0, place, (values - base[place]).exp()).log() + base
