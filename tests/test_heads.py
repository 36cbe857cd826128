"""Heads: the right width, the paper's or the code's regression, BERT's start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from kd_lightning.encoders import TokenStates
from kd_lightning.heads import (
    ClassificationHead,
    RegressionHead,
    SanHead,
    SiameseHead,
    linear_head,
    san_head,
    siamese_head,
)
from kd_lightning.losses import logit_mse

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


@pytest.fixture
def texts():
    """Return the states of six pairs, of which some have padding; marks count as text."""
    random = torch.Generator().manual_seed(2)
    lengths, starts = torch.tensor([9, 7, 9, 3, 5, 8]), torch.tensor([4, 3, 1, 2, 2, 7])
    column = torch.arange(9)
    inside = column < lengths.unsqueeze(1)
    second = (column >= starts.unsqueeze(1)) & inside
    states = torch.randn(6, 9, 16, generator=random)
    return TokenStates(torch.randn(6, 16, generator=random), states, inside & ~second, second)


def plain_san(head, texts, row):
    """Return the probabilities of each step of one row, token by token, as the papers write it."""
    first, second = texts.tokens[row][texts.first[row]], texts.tokens[row][texts.second[row]]
    w1, w2 = head.summary.weight[0], head.attention.weight
    a = torch.stack([w1 @ h for h in second]).softmax(0)
    state = sum(weight * h for weight, h in zip(a, second, strict=True))
    steps, x = [], None
    for step in range(head.num_steps):
        if step:
            state = head.cell(x.unsqueeze(0), state.unsqueeze(0))[0]
        b = torch.stack([(w2 @ state) @ p for p in first]).softmax(0)
        x = sum(weight * p for weight, p in zip(b, first, strict=True))
        features = torch.cat([state, x, (state - x).abs(), state * x])
        steps.append((head.output.weight @ features + head.output.bias).softmax(0))
    return torch.stack(steps)


def lively_san(**settings):
    """Return a head whose steps differ."""
    head = SanHead(16, 3, **settings)
    with torch.no_grad():
        head.output.weight.normal_(std=0.5)
    return head


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_san_is_its_formula(texts, num_steps):
    """Premise and hypothesis exchanged, padding that is attended to, logits averaged instead of probabilities."""
    head = lively_san(num_steps=num_steps).eval()
    found = head(texts)
    for row in range(6):
        torch.testing.assert_close(found[row].softmax(0), plain_san(head, texts, row).mean(0))
    assert found.std(0).min() > 0.01


@pytest.mark.parametrize("level", [-5.0, 0.0, 40.0])
def test_a_squared_error_of_logits_finds_the_teachers_probabilities(texts, level):
    """Logarithms of probabilities have a level that is not free: the student moves its distribution to that level."""
    head = lively_san(dropout=0.0, prediction_dropout=0.0)
    teacher = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)) + level
    torch.testing.assert_close(head(texts).mean(1), torch.zeros(6), atol=1e-6, rtol=0)
    states = texts.tokens.clone().requires_grad_()
    learning = torch.optim.Adam([states, *head.parameters()], lr=0.02)
    for _ in range(600):
        learning.zero_grad()
        logit_mse(head(replace(texts, tokens=states)), teacher).sum().backward()
        learning.step()
    found = head(replace(texts, tokens=states)).softmax(-1)
    torch.testing.assert_close(found, teacher.softmax(-1), atol=0.02, rtol=0)


def test_san_drops_states_and_features(texts):
    """Rates that are taken and not used."""
    head, seen = lively_san(num_steps=3, dropout=0.4).train(), []
    head.dropout.register_forward_hook(lambda module, given, found: seen.append((given[0].shape[1], found)))
    head(texts)
    assert [width for width, _ in seen] == [64, 16, 64, 16, 64], "before each prediction, and each move of the state"
    assert all((found == 0).float().mean() > 0.2 for _, found in seen)


@pytest.mark.parametrize(("rate", "both_stay"), [(0.5, 0.25), (0.2, 0.64)])
def test_prediction_dropout_leaves_some_steps_out(texts, rate, both_stay):
    """A rate that is taken and not used, or upside down; or all steps left out, and a row of NaN."""
    head = lively_san(num_steps=2, dropout=0.0, prediction_dropout=rate).train()
    both = torch.stack([plain_san(head, texts, row) for row in range(6)])  # [6, 2, 3]
    options = torch.stack([both[:, 0], both[:, 1], both.mean(1)])
    drawn = torch.stack([head(texts).softmax(-1) for _ in range(400)])  # [400, 6, 3]
    distance = (drawn.unsqueeze(1) - options).abs().amax(-1)  # [400, 3, 6]
    assert distance.amin(1).max() < 1e-5
    share = (distance.argmin(1).flatten().bincount(minlength=3) / drawn[..., 0].numel()).tolist()
    one_stays = (1 - both_stay) / 2  # where both would go, one stays
    assert share == pytest.approx([one_stays, one_stays, both_stay], abs=0.04)


def test_san_is_for_classes_of_pairs(toys):
    """MT-DNN keeps linear heads for single texts and scores; a second text that is not there is no question."""
    kinds = {name: type(san_head(toys[name].task, 16, sigmoid=False)) for name in ("mood", "nli", "near")}
    assert kinds == {"mood": ClassificationHead, "nli": SanHead, "near": RegressionHead}
    plain = [san_head(toys[name].task, 16, dropout=0.3, sigmoid=False) for name in ("mood", "near")]
    assert [head.dropout.p for head in plain] == [0.3, 0.3]
    assert not plain[1].sigmoid
    head = san_head(toys["nli"].task, 16, num_steps=3, dropout=0.2, prediction_dropout=0.3)
    assert (head.num_steps, head.dropout.p, head.prediction_dropout) == (3, 0.2, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_steps": 0}, "num_steps is 0"), ({"prediction_dropout": 1.0}, "prediction_dropout is 1.0")],
)
def test_san_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SanHead(16, 3, **settings)
