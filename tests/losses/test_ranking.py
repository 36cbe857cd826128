"""Losses of whole questions: the paper's formula, question by question, and their laws."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses import ranking_cross_entropy, ranking_loss

GROUP = torch.tensor([5, 9, 5, 5, 2, 9, 2, 5, 7, 7])
RELEVANT = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0, 1, 1])  # of 2 none is relevant, of 7 all are


@pytest.fixture
def scores():
    """Return scores of ten candidates of four questions."""
    return 4 * torch.randn(10, 1, generator=torch.Generator().manual_seed(3))


def test_it_is_the_papers_formula(scores):
    """Candidates of other questions, or other relevant ones, in the sum of the irrelevant."""
    found = ranking_loss(scores, RELEVANT, GROUP) * (GROUP.bincount()[GROUP] * 2 / 10)  # two questions tell
    for question in (5, 9):
        s, right = scores[question == GROUP].squeeze(-1), RELEVANT[question == GROUP].bool()
        wrong = s[~right].exp().sum()
        each = [-(s_a.exp() / (s_a.exp() + wrong)).log() for s_a in s[right]]
        torch.testing.assert_close(found[question == GROUP], torch.stack(each).mean().expand(len(s)))
    assert not found[(GROUP == 2) | (GROUP == 7)].any(), "there is nothing to rank"


def test_the_mean_is_that_of_the_questions(scores):
    """A question of a hundred candidates that counts a hundred times; or questions that tell nothing, and dilute."""
    for loss in (
        lambda s, q: ranking_loss(s, RELEVANT[q], GROUP[q]),
        lambda s, q: ranking_cross_entropy(s, -s, GROUP[q]),
    ):
        every = torch.ones_like(GROUP, dtype=torch.bool)
        own = [loss(scores[question == GROUP], question == GROUP).mean() for question in (5, 9, 2, 7)]
        counting = own if loss(scores, every)[GROUP == 2].any() else own[:2]
        torch.testing.assert_close(loss(scores, every).mean(), torch.stack(counting).mean())


@pytest.mark.parametrize("others", [0, 1, 9])
def test_a_label_weighs_the_same_beside_questions_without(scores, others):
    """One labelled question of ten that counts as all ten: the objective depends on who shares the batch."""
    one = GROUP == 5
    alone = ranking_loss(scores[one], RELEVANT[one], GROUP[one]).mean()
    group = torch.cat([GROUP[one], torch.arange(100, 100 + others).repeat_interleave(3)])
    s = torch.cat([scores[one], torch.randn(3 * others, 1)])
    relevant = torch.cat([RELEVANT[one], torch.zeros(3 * others, dtype=torch.int64)])
    labelled = torch.arange(len(group)) < int(one.sum())
    found = ranking_loss(s, relevant, group, labelled)
    torch.testing.assert_close(found.mean(), alone / (1 + others))
    assert not found[~labelled].any()
    torch.testing.assert_close(ranking_loss(s, 1 - relevant * 0, group, labelled).sum(), torch.tensor(0.0))


def test_it_depends_on_differences_alone(scores):
    """A loss that pulls scores up or down: the questions' levels drift."""
    level = torch.randn(10, 1)[GROUP]
    torch.testing.assert_close(ranking_loss(scores + level, RELEVANT, GROUP), ranking_loss(scores, RELEVANT, GROUP))
    soft, moved = (ranking_cross_entropy(scores + x, scores + 2 * x, GROUP) for x in (0, level))
    torch.testing.assert_close(moved, soft)


@pytest.mark.parametrize("size", [1e3, 1e-3])
def test_gradients_are_finite(scores, size):
    """Questions without an answer, or scores of a thousand: NaN in the gradient of all."""
    scores = (size * scores).requires_grad_()
    (ranking_loss(scores, RELEVANT, GROUP) + ranking_cross_entropy(scores, scores, GROUP)).sum().backward()
    assert scores.grad.isfinite().all()
    scores.grad = None
    ranking_loss(scores, RELEVANT, GROUP).sum().backward()
    told = (GROUP == 5) | (GROUP == 9)
    assert not scores.grad[~told].any()
    if size < 1:
        assert (scores.grad[told & (RELEVANT == 1)] < 0).all()
        assert (scores.grad[told & (RELEVANT == 0)] > 0).all()


def test_the_order_of_rows_means_nothing(scores):
    """Groups by position instead of by name."""
    order = torch.randperm(10)
    gold, soft = ranking_loss(scores, RELEVANT, GROUP), ranking_cross_entropy(scores, 2 * scores, GROUP)
    torch.testing.assert_close(ranking_loss(scores[order], RELEVANT[order], GROUP[order]), gold[order])
    torch.testing.assert_close(ranking_cross_entropy(scores[order], 2 * scores[order], GROUP[order]), soft[order])


def test_soft_targets_are_those_of_the_question(scores):
    teacher = torch.randn(10, 1)
    found = ranking_cross_entropy(scores, teacher, GROUP) * (GROUP.bincount()[GROUP] * 4 / 10)
    for question in GROUP.unique():
        s, t = (x[question == GROUP].squeeze(-1) for x in (scores, teacher))
        expected = -(t.softmax(0) * F.log_softmax(s, 0)).sum()
        torch.testing.assert_close(found[question == GROUP], expected.expand(len(s)))


def test_the_teacher_gets_no_gradient(scores):
    teacher = torch.randn(10, 1, requires_grad=True)
    ranking_cross_entropy(scores.requires_grad_(), teacher, GROUP).sum().backward()
    assert teacher.grad is None
    assert scores.grad.any()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(10,), (10,), (10,)], r"need scores \[B, 1\] of candidates, got \(10,\)"),
        ([(10, 2), (10,), (10,)], r"need scores \[B, 1\] of candidates, got \(10, 2\)"),
        ([(10, 1), (10, 1), (10,)], r"need \[10\], a value for each candidate, got \(10, 1\)"),
        ([(10, 1), (10,), (9,)], r"need \[10\], a value for each candidate, got \(9,\)"),
    ],
)
def test_other_shapes_are_refused(shapes, message):
    """[B] against [B, 1] is [B, B]: every question would have the loss of all."""
    scores, relevant, group = (torch.zeros(shape, dtype=torch.int64) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        ranking_loss(scores.float(), relevant, group)
    if relevant.ndim == 1:
        with pytest.raises(ValueError, match=message):
            ranking_cross_entropy(scores.float(), scores.float(), group)


def test_teacher_and_student_have_one_shape(scores):
    with pytest.raises(ValueError, match=r"equal shape, got \(10, 1\) and \(10,\)"):
        ranking_cross_entropy(scores, scores.squeeze(1), GROUP)
