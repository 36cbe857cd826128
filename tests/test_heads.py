"""Heads: the right width, the paper's or the code's regression, BERT's start."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from kd_lightning.heads import ClassificationHead, RegressionHead, SiameseHead, linear_head, siamese_head

HIDDEN = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "kind"), [("mood", ClassificationHead), ("nli", ClassificationHead), ("near", RegressionHead)]
)
def test_kind_chooses_the_head(toys, name, kind):
    """A regression task with a classification head learns a softmax over one class: nothing."""
    task = toys[name].task
    head = linear_head(task, 16)
    assert isinstance(head, kind)
    assert head(HIDDEN).shape == (64, task.num_labels)


@pytest.mark.parametrize("build", [partial(ClassificationHead, 16, 3), partial(RegressionHead, 16, sigmoid=False)])
def test_linear_in_evaluation(build):
    """A hidden activation changes the published head; dropout left on makes predictions random."""
    head = build(dropout=0.5).eval()
    bias = head(torch.zeros(1, 16))
    torch.testing.assert_close(bias, torch.zeros_like(bias))
    torch.testing.assert_close(head(2 * HIDDEN), 2 * head(HIDDEN))
    torch.testing.assert_close(head(HIDDEN), HIDDEN @ head.output.weight.T)


@pytest.mark.parametrize(
    "build",
    [partial(RegressionHead, 16, 0.0), partial(SiameseHead, 8, 1, is_pair=True, hidden_size=5, dropout=0.0)],
)
def test_sigmoid_is_the_papers_option(build):
    """BAM's paper ends in a sigmoid, its code does not; scores outside [0, 1] under the paper's name."""
    one, other = build(sigmoid=True), build(sigmoid=False)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(100 * HIDDEN), other(100 * HIDDEN).sigmoid())
    assert (one(1000 * HIDDEN) <= 1).all()
    assert (other(1000 * HIDDEN).abs() > 1).any()


@pytest.mark.parametrize(
    "build",
    [
        partial(ClassificationHead, 400, 50),
        partial(RegressionHead, 400, sigmoid=False),
        partial(SiameseHead, 200, 50, is_pair=False, hidden_size=400, sigmoid=False),
    ],
)
def test_dropout_in_training(build):
    """A dropout rate that is taken and not used: the teacher over-fits and nobody knows why."""
    x = torch.ones(200, 400)
    kept, half = build(dropout=0.0).train(), build(dropout=0.5).train()
    half.load_state_dict(kept.state_dict())
    assert torch.equal(kept(x), kept(x))
    assert half(x).std(0).min() > 0
    torch.testing.assert_close(half(x).mean(0), kept(x)[0], atol=0.15, rtol=0)  # inverted dropout keeps the mean


def test_options_reach_the_head(toys):
    """Options of a recipe that stop at the factory."""
    head = linear_head(toys["near"].task, 16, dropout=0.3, sigmoid=False)
    assert (head.dropout.p, head.sigmoid) == (0.3, False)
    assert linear_head(toys["mood"].task, 16, dropout=0.3).dropout.p == 0.3
    head = siamese_head(toys["near"].task, 16, hidden_size=7, dropout=0.3, sigmoid=False)
    assert (head.hidden.out_features, head.dropout.p, head.sigmoid) == (7, 0.3, False)
    assert siamese_head(toys["near"].task, 16).sigmoid
    assert not siamese_head(toys["nli"].task, 16).sigmoid, "logits"


@pytest.mark.parametrize("build", [partial(ClassificationHead, 400, 50), partial(RegressionHead, 4000)])
def test_starts_as_bert(build):
    """Torch's own initialisation is several times wider; the first steps then move the encoder for nothing."""
    head = build()
    assert head.output.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not head.output.bias.any()
