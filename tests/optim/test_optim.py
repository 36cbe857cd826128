"""Layer-wise rates as BAM's table, BERT's Adam as its formula, the warm-up at its corners."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kd_lightning.encoders import NewTransformer
from kd_lightning.optim import BertAdam, ConstantRate, LayerwiseOptimizer, LinearWarmup, layerwise_groups


def parts(layers: int) -> tuple[nn.Module, nn.ModuleDict]:
    """Return a very thin transformer and two heads."""
    spec = NewTransformer(hidden_size=2, num_layers=layers, num_heads=1, max_length=8)
    return spec.build(range(12)), nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 1)})


def settings_by_name(layers: int, **settings: float) -> dict[str, dict[str, float]]:
    """Return parameter -> its group's settings, heads as ``heads.*``."""
    encoder, heads = parts(layers)
    settings = {"lr": 1e-4, "layer_decay": 0.9, "weight_decay": 0.01, **settings}
    of = {id(p): group for group in layerwise_groups(encoder, heads, **settings) for p in group["params"]}
    named = [*encoder.named_parameters(), *((f"heads.{name}", p) for name, p in heads.named_parameters())]
    return {name: of[id(p)] for name, p in named}


@pytest.mark.parametrize(
    ("layers", "part", "expected"),
    [
        pytest.param(24, "embeddings.word", 6.46e-6, id="24 embeddings"),
        pytest.param(24, "embeddings.LayerNorm", 6.46e-6, id="24 norm of the embeddings"),
        pytest.param(24, "layer.0.", 7.18e-6, id="24 layer 0"),
        pytest.param(24, "layer.23.", 8.1e-5, id="24 top layer"),
        pytest.param(24, "pooler", 9e-5, id="24 pooler"),
        pytest.param(24, "heads", 1e-4, id="24 heads"),
        pytest.param(12, "embeddings", 2.29e-5, id="12 embeddings"),
        pytest.param(12, "layer.0.", 2.54e-5, id="12 layer 0"),
        pytest.param(12, "layer.11.", 8.1e-5, id="12 top layer"),
        pytest.param(12, "heads", 1e-4, id="12 heads"),
    ],
)
def test_bams_table(layers, part, expected):
    """An exponent off by one, or reversed: the embeddings run at full speed and the head stands still."""
    rates = [group["lr"] for name, group in settings_by_name(layers).items() if part in name]
    assert rates
    assert rates == pytest.approx([expected] * len(rates), rel=2e-3)


def test_rates_fall_towards_the_input():
    """Layer "10" sorted as text stands between 1 and 2."""
    rates = {name: group["lr"] for name, group in settings_by_name(12).items()}
    by_layer = [next(lr for name, lr in rates.items() if f".layer.{i}." in name) for i in range(12)]
    np.testing.assert_allclose(np.array(by_layer[:-1]) / by_layer[1:], 0.9)


def test_no_decay_is_one_rate():
    """A layer decay of 1 must be the plain optimiser."""
    assert {group["lr"] for group in settings_by_name(3, layer_decay=1.0).values()} == {1e-4}


def test_every_trainable_parameter_once():
    """A parameter in no group never learns; one in two groups learns twice as fast."""
    encoder, heads = parts(3)
    frozen = next(encoder.parameters()).requires_grad_(False)
    groups = layerwise_groups(encoder, heads, lr=1.0, layer_decay=0.5, weight_decay=0.1)
    found = [id(p) for group in groups for p in group["params"]]
    expected = {id(p) for module in (encoder, heads) for p in module.parameters()} - {id(frozen)}
    assert len(found) == len(expected)
    assert set(found) == expected


def test_weight_decay_spares_vectors():
    """Decay on LayerNorm pulls its gain towards 0 and with it the whole layer."""
    for name, group in settings_by_name(2).items():
        spared = name.endswith("bias") or "LayerNorm" in name
        assert group["weight_decay"] == (0.0 if spared else 0.01), name


def test_the_last_group_is_the_heads():
    """The learning rate that is logged is the last group's: it must be the rate that the user set."""
    encoder, heads = parts(3)
    optimizer = LayerwiseOptimizer(torch.optim.SGD, lr=0.3, layer_decay=0.5)(encoder, heads)
    assert optimizer.param_groups[-1]["lr"] == 0.3
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * 0.5**5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"lr": 0.0}, "lr is 0.0", id="lr"),
        pytest.param({"lr": float("nan")}, "lr is nan", id="lr nan"),
        pytest.param({"lr": 1.0, "layer_decay": 0.0}, "layer_decay is 0.0", id="decay 0"),
        pytest.param({"lr": 1.0, "layer_decay": 1.1}, "layer_decay is 1.1", id="decay above 1"),
        pytest.param({"lr": 1.0, "weight_decay": -0.1}, "weight_decay is -0.1", id="weight decay"),
    ],
)
def test_layerwise_refuses(settings, message):
    """A layer decay of 1.1 makes the embeddings of BERT-Large twelve times faster than the heads."""
    with pytest.raises(ValueError, match=message):
        LayerwiseOptimizer(torch.optim.SGD, **settings)


def gradients(steps: int, count: int = 3) -> np.ndarray:
    """Return gradients of changing size and sign, ``[steps, count]``."""
    return np.random.default_rng(0).normal(size=(steps, count)) * np.array([1.0, 1e-3, 30.0])[:count]


def run(optimizer: torch.optim.Optimizer, p: torch.Tensor, before=lambda step: None) -> np.ndarray:
    """Return the parameter after each of eight steps."""
    path = []
    for step, gradient in enumerate(gradients(8), start=1):
        before(step)
        p.grad = torch.from_numpy(gradient).to(p)
        optimizer.step()
        path.append(p.detach().double().numpy().copy())
    return np.stack(path)


START = [0.5, -2.0, 3.0]


def test_bert_adam_is_its_formula():
    """The second moment of the gradient's mean, or eps inside the root, or decay scaled by Adam's step."""
    lr, b1, b2, eps, decay = 0.01, 0.8, 0.95, 1e-3, 0.1
    p = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    found = run(BertAdam([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay), p)
    x, m, v = np.array(START), np.zeros(3), np.zeros(3)
    for step, g in enumerate(gradients(8)):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - lr * (m / (np.sqrt(v) + eps) + decay * x)
        np.testing.assert_allclose(found[step], x, rtol=1e-10)


def test_bert_adam_is_adamw_without_bias_correction():
    """With the correction the first steps are three times longer: another optimiser under BERT's name."""
    lr, b1, b2, eps, decay = 0.01, 0.9, 0.999, 1e-6, 0.05
    p = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    found = run(BertAdam([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay), p)
    q = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    adamw = torch.optim.AdamW([q], betas=(b1, b2))

    def undo(step: int) -> None:
        root = (1 - b2**step) ** 0.5
        rate = lr * (1 - b1**step) / root
        adamw.param_groups[0].update(lr=rate, eps=eps / root, weight_decay=lr * decay / rate)

    np.testing.assert_allclose(found, run(adamw, q, undo), rtol=1e-10)
    plain = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    corrected = run(torch.optim.AdamW([plain], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay), plain)
    assert abs(found[0] - START)[0] > 3 * abs(corrected[0] - START)[0]


def test_bert_adam_keeps_its_defaults():
    """BERT's eps is 1e-6; torch's 1e-8 takes longer steps where gradients are tiny."""
    optimizer = BertAdam([torch.zeros(1, requires_grad=True)])
    expected = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0}
    assert {name: optimizer.defaults[name] for name in expected} == expected


def test_bert_adam_leaves_unused_parameters():
    """A head whose task is not in the batch must not drift by weight decay or old momentum."""
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = BertAdam([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert (used < 0.96).all()


def test_bert_adam_resumes():
    """Moments lost at a checkpoint: the first steps after a resume are those of a new run."""
    p = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    one = BertAdam([p], lr=0.01)
    run(one, p)
    q = p.detach().clone().requires_grad_()
    two = BertAdam([q], lr=1.0)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    np.testing.assert_array_equal(run(one, p), run(two, q))


@pytest.mark.parametrize("warmup", [0.1, 0.5])
def test_warmup_is_continuous_but_for_berts_drop(warmup):
    """Decay from the end of the warm-up meets it at 1; BERT's own code drops to 1 - warmup there."""
    below, at = warmup * (1 - 1e-9), warmup
    assert LinearWarmup(warmup)(below) == pytest.approx(1.0)
    assert LinearWarmup(warmup)(at) == pytest.approx(1.0)
    assert LinearWarmup(warmup, decay_from_start=True)(below) == pytest.approx(1.0)
    assert LinearWarmup(warmup, decay_from_start=True)(at) == pytest.approx(1 - warmup)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        pytest.param(LinearWarmup(0.1), {0: 0, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0, 1.1: 0}, id="from the warm-up"),
        pytest.param(LinearWarmup(0.1, True), {0: 0, 0.05: 0.5, 0.1: 0.9, 0.55: 0.45, 1: 0, 1.1: 0}, id="from step 0"),
        pytest.param(LinearWarmup(0.0), {0: 1, 0.5: 0.5, 1: 0}, id="no warm-up"),
        pytest.param(ConstantRate(), {0: 1, 0.5: 1, 1: 1}, id="constant"),
    ],
)
def test_schedule_values(schedule, values):
    """A rate that does not end at 0, or that turns negative past the end."""
    assert {progress: schedule(progress) for progress in values} == pytest.approx(values)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 100])
def test_warmup_refuses(warmup):
    """A warm-up of 100 is meant as steps: as a share the rate never leaves 0."""
    with pytest.raises(ValueError, match=r"warmup is .*, expected a number in \[0, 1\)"):
        LinearWarmup(warmup)
