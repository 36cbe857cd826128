"""The loss against gold labels, for classes and for scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_lightning.losses import gold_loss


def test_classes_against_numpy():
    """A loss already averaged over the batch cannot be weighted row by row."""
    logits, labels = torch.randn(4, 3), torch.tensor([2, 0, 1, 1])
    x = logits.double().numpy()
    expected = np.log(np.exp(x).sum(-1)) - x[np.arange(4), labels.numpy()]
    np.testing.assert_allclose(gold_loss(logits, labels).numpy(), expected, rtol=1e-5)


def test_scores_against_numpy():
    """[n, 1] minus [n] is [n, n]: every row is pulled to every label, that is, to their mean."""
    scores, labels = torch.randn(4, 1), torch.rand(4)
    found = gold_loss(scores, labels)
    assert found.shape == (4,)
    np.testing.assert_allclose(found.numpy(), (scores.numpy()[:, 0] - labels.numpy()) ** 2, rtol=1e-6)


def test_perfect_predictions_cost_nothing():
    """A sign or an offset wrong: the optimum is not where the labels are."""
    assert gold_loss(torch.tensor([[50.0, -50.0]]), torch.tensor([0])).item() == pytest.approx(0.0, abs=1e-6)
    assert gold_loss(torch.tensor([[0.25]]), torch.tensor([0.25])).item() == 0.0


def test_scores_with_classes_are_refused():
    """A regression label on a classification head would train its first logit."""
    with pytest.raises(ValueError, match=r"scores as labels need logits \[B, 1\], got \(4, 3\)"):
        gold_loss(torch.randn(4, 3), torch.rand(4))


def test_computed_in_float32():
    """A cross-entropy in bf16 has two digits."""
    for labels, width in ((torch.tensor([0, 1]), 2), (torch.rand(2), 1)):
        assert gold_loss(torch.randn(2, width).bfloat16(), labels).dtype == torch.float32
