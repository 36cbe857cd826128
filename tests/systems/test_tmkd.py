"""TMKD: each teacher speaks to its own head, labels to the golden one; all of them are asked in the end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kd_lightning.data import collate
from kd_lightning.heads import TeacherHeads, linear_head
from kd_lightning.losses import LogitMSE
from kd_lightning.optim import BertAdam, LayerwiseOptimizer, LinearWarmup
from kd_lightning.systems import TmkdStudent


@pytest.fixture
def build(spec, tokenizer, toys, attach):
    """Return a function: settings -> a student of the toy tasks at its third step; three teach it the first of them."""

    def build(**changes):
        torch.manual_seed(0)
        settings = {
            "encoder": spec.build(tokenizer),
            "tasks": [toy.task for toy in toys.values()],
            "head": partial(linear_head, dropout=0.0),
            "teachers": {"mood": 3},
            "distill_loss": LogitMSE(),
            "optimizer": LayerwiseOptimizer(partial(BertAdam), lr=1e-3),
            "scheduler": LinearWarmup(0.1),
            "log_every_n_steps": 10**9,
        }
        return attach(TmkdStudent(**{**settings, **changes}), step=3)

    return build


@pytest.fixture
def batch(toys, teach, tokenizer):
    """Return the rows of the first task, with three teachers."""
    part = teach(toys["mood"].part, 1, teachers=3)
    count = len(part.tokens)
    return collate([part], np.zeros(count, int), np.arange(count), tokenizer.pad_token_id)


def logits_of(system, batch):
    """Return what each head of the first task says, ``[n, 4, 2]``."""
    with torch.no_grad():
        return system.logits("mood", system.encode(batch), batch["tasks"]["mood"]["rows"]).double()


@pytest.mark.parametrize("gold_weight", [0.0, 0.1, 1.0])
def test_the_papers_loss(build, batch, gold_weight):
    """Equations 2 to 5, written row by row, teacher by teacher and class by class."""
    system, rows = build(gold_weight=gold_weight), batch["tasks"]["mood"]
    every, teachers = logits_of(system, batch).tolist(), rows["teacher_logits"].tolist()
    total = 0.0
    for row, label in enumerate(rows["labels"].tolist()):
        golden, *heads = every[row]
        gold = -np.log(np.exp(golden[label]) / sum(np.exp(golden)))
        soft = 0.0
        for head, teacher in zip(heads, teachers[row], strict=True):
            soft += sum((said - taught) ** 2 for said, taught in zip(head, teacher, strict=True)) / 2 / 3
        total += gold_weight * gold + (1 - gold_weight) * soft
    assert system.training_step(batch, 0).item() == pytest.approx(total / len(every), rel=1e-5)


@pytest.mark.parametrize(
    ("predicts", "chosen"), [("all", [0, 1, 2, 3]), ("gold", [0]), ("soft", [1, 2, 3])], ids=["all", "gold", "soft"]
)
def test_the_heads_that_are_asked(build, batch, toys, predicts, chosen):
    """Equation 6: softmax outputs are averaged, not logits, and the golden head is one among the others."""
    system = build(predicts=predicts, tasks=[toys["mood"].task])
    expected = logits_of(system, batch).softmax(-1)[:, chosen].mean(1)
    with torch.no_grad():
        found = system(batch)["mood"].double().softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, logits_of(system, batch).softmax(-1)[:, 1:2].mean(1), atol=1e-4)


def test_each_teacher_has_its_own_head(build, batch):
    """A head that hears the neighbour's teacher, or the labels: early calibration is that it does not."""
    rows = batch["tasks"]["mood"]

    def gradients():
        system = build(gold_weight=0.1)
        system.training_step(batch, 0).backward()
        heads = system.heads["mood"]
        assert isinstance(heads, TeacherHeads)
        return [head.output.weight.grad for head in (heads.gold, *heads.soft)]

    before = gradients()
    rows["teacher_logits"][:, 1] += 1.0
    for place, (one, other) in enumerate(zip(before, gradients(), strict=True)):
        assert torch.equal(one, other) == (place != 2), place
    rows["labels"] = 1 - rows["labels"]
    for place, (one, other) in enumerate(zip(before, gradients(), strict=True)):
        assert torch.equal(one, other) == (place in (1, 3)), place


def test_rows_without_labels_leave_the_golden_head_alone(build, batch):
    """The paper's first stage: soft heads and encoder learn, nothing is made up for the golden head."""
    system = build()
    batch["tasks"]["mood"]["has_label"][:] = False
    system.training_step(batch, 0).backward()
    heads = system.heads["mood"]
    assert not heads.gold.output.weight.grad.any()
    assert all(head.output.weight.grad.any() for head in heads.soft)
    assert any(p.grad is not None and p.grad.any() for p in system.encoder.parameters())


def test_one_teacher_is_one_more_head(build, batch):
    """The mean of teachers as one teacher (1avg-o-1), or the best alone (1-o-1): the same system with one soft head."""
    rows = batch["tasks"]["mood"]
    batch["tasks"]["mood"] = {**rows, "teacher_logits": rows["teacher_logits"][:, :1]}
    system = build(teachers={"mood": 1}, gold_weight=0.0)
    said = logits_of(system, batch)
    expected = (said[:, 1] - rows["teacher_logits"][:, 0]).square().mean()
    assert system.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_heads_of_other_teachers_are_refused(build, batch):
    """Three heads that all learn the same mean, silently: a broadcast."""
    rows = batch["tasks"]["mood"]
    for logits in (rows["teacher_logits"][:, :1], rows["teacher_logits"].mean(1)):
        batch["tasks"]["mood"] = {**rows, "teacher_logits": logits}
        with pytest.raises(ValueError, match="expected a head for each teacher"):
            build().training_step(batch, 0)


def test_scores_are_averaged(build, toys, teach, tokenizer):
    """A softmax over one score is 1; the mean of scores is a score."""
    part = teach(toys["near"].part, 1, teachers=2)
    batch = collate([part], np.zeros(6, int), np.arange(6), tokenizer.pad_token_id)
    system = build(teachers={"near": 2}, gold_weight=0.0)
    rows = batch["tasks"]["near"]
    with torch.no_grad():
        every = system.logits("near", system.encode(batch), rows["rows"])
        torch.testing.assert_close(system(batch)["near"], every.mean(1))
    expected = (every[:, 1:] - rows["teacher_logits"]).square().mean()
    torch.testing.assert_close(system.training_step(batch, 0).detach(), expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"predicts": "golden"}, "predicts is 'golden', expected one of all, gold, soft"),
        ({"predicts": "soft"}, "predicts is 'soft', but nli has no teacher, and no soft head"),
        ({"teachers": {"mod": 3}}, "teachers names the task mod, expected some of mood, nli, near"),
        ({"teachers": {"mood": -1}}, r"teachers.mood is -1, expected a whole number of at least 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(build, changes, said):
    """A misspelt task has no soft head, and nobody notices."""
    with pytest.raises(ValueError, match=said):
        build(**changes)


def test_logits_of_missing_teachers_have_the_shape_of_the_others(toys, teach, tokenizer):
    """Rows of one task, some of them without teachers: NaN for each teacher, and joined with the rest."""
    own = toys["mood"].part
    parts = [own, replace(teach(own, 1, teachers=3), split="more")]
    batch = collate(parts, np.array([0, 1, 0]), np.array([0, 1, 2]), tokenizer.pad_token_id)
    rows = batch["tasks"]["mood"]
    assert rows["teacher_logits"].shape == (3, 3, 2)
    missing = rows["teacher_logits"].isnan()
    assert missing.flatten(1).any(1).tolist() == missing.flatten(1).all(1).tolist() == (~rows["has_teacher"]).tolist()
    assert rows["has_teacher"].sum() == 1
