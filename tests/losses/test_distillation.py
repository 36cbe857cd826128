"""Laws that every distillation loss keeps, and each against its formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses import (
    KLDivergence,
    LogitMSE,
    SoftCrossEntropy,
    gold_loss,
    kl_divergence,
    logit_mse,
    soft_cross_entropy,
)
from kd_lightning.losses.checks import check_per_row

TEMPERATURES = [0.5, 1.0, 4.0]
SOFT = [pytest.param(kl_divergence, id="kl"), pytest.param(soft_cross_entropy, id="soft_ce")]
ALL = [*SOFT, pytest.param(logit_mse, id="logit_mse")]


def logits(rows: int = 5, classes: int = 3, seed: int = 0) -> torch.Tensor:
    """Return random logits of ordinary size."""
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def gradient(loss, student: torch.Tensor, *others: object) -> torch.Tensor:
    """Return the gradient of the summed loss with respect to the student's logits."""
    student = student.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(student, *others).sum(), student)
    return found


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_of_a_model_with_itself_is_zero(temperature):
    """A cross-entropy under a KL name passes every golden test and fails this one."""
    x = logits()
    torch.testing.assert_close(kl_divergence(x, x, temperature), torch.zeros(5))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_positive(temperature):
    """A divergence in the other sign maximises the distance to the teacher."""
    assert (kl_divergence(logits(), logits(seed=1), temperature) > 1e-3).all()


def test_one_hot_teacher_is_gold():
    """Student and teacher swapped: the loss of a certain teacher is no longer the cross-entropy of its class."""
    student, labels = logits(), torch.tensor([0, 2, 1, 1, 0])
    teacher = 1000.0 * F.one_hot(labels, 3)
    expected = F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(student, teacher), expected)
    torch.testing.assert_close(gold_loss(student, labels), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_ce_is_kl_plus_entropy(temperature):
    """T^2 on one and not on the other: the recipes' losses cannot be compared or exchanged."""
    student, teacher = logits(), logits(seed=1)
    q = F.softmax(teacher / temperature, dim=-1)
    entropy = -(q * q.log()).sum(-1) * temperature**2
    difference = soft_cross_entropy(student, teacher, temperature) - kl_divergence(student, teacher, temperature)
    torch.testing.assert_close(difference, entropy)
    torch.testing.assert_close(
        gradient(soft_cross_entropy, student, teacher, temperature),
        gradient(kl_divergence, student, teacher, temperature),
    )


@pytest.mark.parametrize("loss", ALL)
def test_classes_have_no_order(loss):
    """A loss that softmaxes over the batch, or that drops a class, depends on the order of columns or rows."""
    student, teacher = logits(), logits(seed=1)
    columns, rows = torch.tensor([2, 0, 1]), torch.tensor([4, 1, 0, 3, 2])
    torch.testing.assert_close(loss(student[:, columns], teacher[:, columns]), loss(student, teacher))
    torch.testing.assert_close(loss(student[rows], teacher[rows]), loss(student, teacher)[rows])
    torch.testing.assert_close(loss(student[:1], teacher[:1]), loss(student, teacher)[:1])


@pytest.mark.parametrize("loss", SOFT)
def test_hot_limit_is_logit_mse(loss):
    """Without T^2 a high temperature switches the teacher off: the gradient falls as 1 / T^2."""
    student, teacher = logits(), logits(seed=1)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(gradient(loss, student, teacher, 500.0), centred / 3, rtol=0.02, atol=2e-3)
    centre = teacher - teacher.mean(-1, keepdim=True)
    half_mse = gradient(logit_mse, student - student.mean(-1, keepdim=True), centre) / 2
    torch.testing.assert_close(half_mse, centred / 3)


@pytest.mark.parametrize("loss", SOFT)
def test_gradient_keeps_its_scale(loss):
    """A factor T or T^3 makes the best learning rate a function of the temperature."""
    student, teacher = logits() / 10, logits(seed=1) / 10
    sizes = [gradient(loss, student, teacher, temperature).norm() for temperature in (1.0, 4.0, 20.0)]
    assert max(sizes) / min(sizes) < 1.3


@pytest.mark.parametrize("loss", SOFT)
def test_temperature_one_is_no_exception(loss):
    """A special case at T = 1 that forgets a term jumps there."""
    student, teacher = logits(), logits(seed=1)
    near, at = loss(student, teacher, 1.0 + 1e-4), loss(student, teacher, 1.0)
    torch.testing.assert_close(near, at, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss(student, teacher), at)


@pytest.mark.parametrize("loss", ALL)
def test_teacher_gets_no_gradient(loss):
    """Cached logits hide it; a teacher in the loop would be trained to please its student."""
    student, teacher = logits().requires_grad_(), logits(seed=1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", SOFT)
def test_one_class_is_refused(loss):
    """Softmax over one class is constant: loss 0, gradient 0, a perfect-looking run that learns nothing."""
    with pytest.raises(ValueError, match="need at least 2 classes, got 1: use logit_mse"):
        loss(logits(classes=1), logits(classes=1, seed=1))


def test_logit_mse_takes_scores():
    """Regression is the one use of a single output, and must stay possible."""
    torch.testing.assert_close(logit_mse(torch.tensor([[0.5]]), torch.tensor([[0.25]])), torch.tensor([0.0625]))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        pytest.param((5, 3), (5, 2), id="classes"),
        pytest.param((5, 3), (1, 3), id="broadcast over rows"),
        pytest.param((5, 3), (5, 1), id="broadcast over classes"),
        pytest.param((5, 3), (4, 3), id="rows"),
        pytest.param((5,), (5,), id="no classes"),
        pytest.param((5, 2, 3), (5, 2, 3), id="several teachers"),
    ],
)
def test_shapes_are_refused(loss, student, teacher):
    """[B, 1] minus [B] is [B, B]: broadcasting turns a wrong teacher into a plausible loss."""
    with pytest.raises(ValueError, match=r"need two \[B, C\] of equal shape"):
        loss(torch.zeros(student), torch.zeros(teacher))


@pytest.mark.parametrize("loss", ALL)
def test_computed_in_float32(loss):
    """Under bf16 autocast a softmax of bf16 logits has two digits; the loss of close models drowns in rounding."""
    student, teacher = logits().bfloat16(), logits(seed=1).bfloat16()
    found = loss(student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(student.float(), teacher.float()))


def reference(name: str, s: np.ndarray, t: np.ndarray, temperature: float) -> np.ndarray:
    """Return the loss per row as the papers write it, in float64."""
    if name == "logit_mse":
        return ((s - t) ** 2).mean(-1)  # Tang et al., equation 2, over C
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True) for x in (s, t))
    terms = {"soft_ce": -q * np.log(p), "kl": q * np.log(q / p)}[name]  # Hinton et al., section 2
    return terms.sum(-1) * temperature**2


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        pytest.param("soft_ce", SoftCrossEntropy, id="soft_ce"),
        pytest.param("kl", KLDivergence, id="kl"),
        pytest.param("logit_mse", lambda temperature: LogitMSE(), id="logit_mse"),
    ],
)
def test_against_numpy(name, build, temperature):
    """A module that drops its temperature, or a formula off by a factor of C."""
    student, teacher = logits(classes=4), logits(classes=4, seed=1)
    found = build(temperature)(student, teacher)
    expected = reference(name, student.double().numpy(), teacher.double().numpy(), temperature)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("module", [SoftCrossEntropy, KLDivergence])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_is_refused(module, temperature):
    """Temperature 0 divides by zero in the first step, hours after the typing error."""
    with pytest.raises(ValueError, match=r"temperature is .*, expected a number above 0"):
        module(temperature)


@pytest.mark.parametrize("loss", ALL)
def test_extreme_logits_stay_finite(loss):
    """log(softmax) of logits 1e4 apart is -inf, and 0 * -inf is nan."""
    student, teacher = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert loss(student, teacher).isfinite().all()
    assert loss(student, student).isfinite().all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_of_the_batch_is_no_loss_of_its_rows(reduction):
    """A mean over the batch, spread over all rows, teaches labelled rows what their neighbours' teachers say."""
    check_per_row(logit_mse)
    check_per_row(SoftCrossEntropy(2.0))
    with pytest.raises(ValueError, match=r"distill_loss gives .* for logits \(2, 3\), expected \(2,\)"):
        check_per_row(torch.nn.MSELoss(reduction=reduction))


def test_the_squared_distance_is_the_sum_over_classes():
    """Tang et al.'s, against a cross-entropy beside it: with the mean, ten classes weigh a tenth."""
    student, teacher = logits(seed=1), logits(seed=2)
    expected = ((student - teacher).norm(dim=1) ** 2).float()
    torch.testing.assert_close(LogitMSE("sum")(student, teacher), expected)
    torch.testing.assert_close(LogitMSE()(student, teacher) * 3, expected)
    with pytest.raises(ValueError, match="over_classes is 'max', expected 'mean' or 'sum'"):
        LogitMSE("max")
