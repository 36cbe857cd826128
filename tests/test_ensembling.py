"""Means of predictions: an ensemble of one is that one, equals give what one gives, weights are shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_lightning.ensembling import mean_logits

LOGITS = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(1)) * 3
MEANS = pytest.mark.parametrize("mean", ["probabilities", "logits"])


@MEANS
@pytest.mark.parametrize("times", [1, 3])
def test_equals_give_what_one_gives(mean, times):
    """A level of its own: a student of five equal teachers by logit regression learns something else than of one."""
    equal = LOGITS[:, :1].expand(-1, times, -1)
    torch.testing.assert_close(mean_logits(equal, mean=mean), LOGITS[:, 0])


def test_probabilities_are_averaged():
    """The mean of logits lets the surest teacher decide alone."""
    expected = LOGITS.double().softmax(-1).mean(1)
    torch.testing.assert_close(mean_logits(LOGITS).double().softmax(-1), expected, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(mean_logits(LOGITS).logsumexp(-1), LOGITS.logsumexp(-1).mean(1), rtol=1e-5)


def test_logits_are_averaged():
    torch.testing.assert_close(mean_logits(LOGITS, mean="logits"), LOGITS.mean(1))


@MEANS
def test_weights_are_shares(mean):
    """Weights that do not sum to one move the level; one of 0 leaves its teacher out."""
    one = mean_logits(LOGITS, mean=mean, weights=[2, 1, 0])
    torch.testing.assert_close(mean_logits(LOGITS, mean=mean, weights=[4, 2, 0]), one)
    torch.testing.assert_close(mean_logits(LOGITS[:, :2], mean=mean, weights=[2, 1]), one)
    torch.testing.assert_close(mean_logits(LOGITS[:, [0, 0, 1]], mean=mean), one)
    torch.testing.assert_close(mean_logits(LOGITS, mean=mean, weights=[0, 3, 0]), LOGITS[:, 1])


def test_scores_are_averaged_as_they_are():
    """The softmax of one score is 1: an ensemble of regressions that always says the same."""
    scores = torch.tensor([[[0.1], [0.5]], [[1.0], [0.0]]])
    torch.testing.assert_close(mean_logits(scores), torch.tensor([[0.3], [0.5]]))
    torch.testing.assert_close(mean_logits(scores, weights=[3, 1]), torch.tensor([[0.2], [0.75]]))


@pytest.mark.parametrize("weights", [None, [2, 1, 1]])
def test_probabilities_of_candidates_are_averaged(weights):
    """The mean of scores lets the teacher of the largest scores decide alone; or other questions' candidates count."""
    scores, group = LOGITS[:, :, :1] * torch.tensor([1.0, 5.0, 0.2]).view(1, 3, 1), torch.arange(20) % 4
    share = torch.tensor([1.0, 1.0, 1.0] if weights is None else weights) / (3 if weights is None else 4)
    found = mean_logits(scores, weights=weights, group=group)
    assert found.shape == (20, 1)
    for question in range(4):
        expected = scores[group == question].double().softmax(0).mul(share.view(1, 3, 1)).sum(1)
        torch.testing.assert_close(found[group == question].double().softmax(0), expected, atol=1e-6, rtol=1e-5)
    equal = scores[:, :1].expand(-1, 3, -1)
    torch.testing.assert_close(mean_logits(equal, weights=weights, group=group), scores[:, 0])
    torch.testing.assert_close(mean_logits(scores, mean="logits", group=group), scores.mean(1))


@pytest.mark.parametrize("weights", [[1, 1], [0, 0, 0], [1, -1, 1], [1, float("nan"), 1], [1, float("inf"), 1]])
def test_weights_are_refused(weights):
    """Shares of other teachers, or none at all."""
    with pytest.raises(ValueError, match="expected 3 numbers of at least 0"):
        mean_logits(LOGITS, weights=weights)


def test_mean_is_refused():
    with pytest.raises(ValueError, match="mean is 'median', expected one of probabilities, logits"):
        mean_logits(LOGITS, mean="median")
