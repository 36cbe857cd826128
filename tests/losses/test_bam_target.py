"""BAM mixes targets, MT-DNN averages losses, we mix losses: the student must not feel the difference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.annealing import Constant
from kd_lightning.data import collate
from kd_lightning.heads import linear_head
from kd_lightning.losses import SoftCrossEntropy
from kd_lightning.optim import BertAdam, ConstantRate
from kd_lightning.systems import BamStudent


@pytest.fixture
def step(spec, tokenizer, toys, teach, attach):
    """Return a function: (task, gold weight) -> student, its batch."""

    def step(name, gold_weight):
        part = teach(toys[name].part)
        count = len(part.tokens)
        rows = torch.arange(count).numpy()
        batch = collate([part], 0 * rows, rows, tokenizer.pad_token_id)
        student = BamStudent(
            encoder=spec.build(tokenizer),
            tasks=[part.task],
            head=partial(linear_head, dropout=0.0, sigmoid=False),
            optimizer=lambda encoder, heads: BertAdam([*encoder.parameters(), *heads.parameters()]),
            scheduler=ConstantRate(),
            distill_loss=SoftCrossEntropy(),
            annealing=Constant(gold_weight),
        )
        return attach(student), batch

    return step


def gradients(student, loss):
    """Return the gradient of every parameter, of those without influence as zeros."""
    return torch.autograd.grad(loss, list(student.parameters()), materialize_grads=True)


@pytest.mark.parametrize("gold_weight", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", ["mood", "nli", "near"])
def test_gradient_of_the_papers_target(step, name, gold_weight):
    """lambda and 1 - lambda exchanged (BAM's own code has both), or the teacher's temperature let in."""
    student, batch = step(name, gold_weight)
    rows = batch["tasks"][name]
    logits, teacher, labels = student(batch)[name], rows["teacher_logits"], rows["labels"]
    if name == "near":  # section 3: loss(lambda y + (1 - lambda) teacher, student), the squared error
        target = gold_weight * labels + (1 - gold_weight) * teacher[:, 0]
        paper = (target - logits[:, 0]).square().mean()
    else:
        target = gold_weight * F.one_hot(labels, logits.shape[1]) + (1 - gold_weight) * teacher.softmax(-1)
        paper = -(target * logits.log_softmax(-1)).sum(-1).mean()
    expected = gradients(student, paper)
    found = gradients(student, student.training_step(batch, 0))
    assert sum(g.abs().sum() for g in expected) > 1e-3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["mood", "nli"])
def test_half_is_mt_dnn(step, name):
    """MT-DNN-KD's (hard + soft) / 2 is a recipe of ours: gold_weight 0.5, value and gradient."""
    student, batch = step(name, 0.5)
    rows = batch["tasks"][name]
    logits = student(batch)[name]
    hard = F.cross_entropy(logits, rows["labels"])
    soft = F.cross_entropy(logits, rows["teacher_logits"].softmax(-1))
    loss = student.training_step(batch, 0)
    torch.testing.assert_close(loss, (hard + soft) / 2)
    for a, b in zip(gradients(student, loss), gradients(student, (hard + soft) / 2), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
