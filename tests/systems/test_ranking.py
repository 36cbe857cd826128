"""A task that ranks, in every system that can learn it: whole questions, with and without a teacher."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kd_lightning.annealing import Constant
from kd_lightning.data import Part, SoftTargets, collate, tokenise
from kd_lightning.heads import linear_head
from kd_lightning.losses import SoftCrossEntropy, ranking_cross_entropy, ranking_loss, top_candidates
from kd_lightning.optim import BertAdam, LayerwiseOptimizer, LinearWarmup
from kd_lightning.systems import BamStudent, BiLstmStudent, MtDnnKdStudent, Teacher
from kd_lightning.tasks import Task

ANSWERS = Task(
    name="answers",
    kind="ranking",
    texts=("question", "answer"),
    labels=("irrelevant", "relevant"),
    group="question",
    metrics=("map", "mrr", "accuracy"),
)
STUDENTS = {
    "bam": partial(BamStudent, distill_loss=SoftCrossEntropy(), annealing=Constant(0.25)),
    "bilstm": partial(BiLstmStudent, distill_loss=SoftCrossEntropy(), gold_weight=0.25),
    "mt_dnn_kd": partial(MtDnnKdStudent, distill_loss=SoftCrossEntropy(), gold_weight=0.25),
}


@pytest.fixture
def part(write_rows, tokenizer, tmp_path):
    """Return nine candidates of three questions."""
    questions = ["the cup", "a dog", "the man"]
    columns = {
        "question": [question for question in questions for _ in range(3)],
        "answer": ["red cup", "old dog", "new film", "dog sees", "cup holds", "a plot", "man has", "the man", "a cup"],
        "label": ["relevant", "irrelevant", "irrelevant"] * 2 + ["relevant", "relevant", "irrelevant"],
    }
    rows = write_rows("answers", ANSWERS, columns)
    tokens = tokenise(rows, tokenizer, max_length=32, both_orders=False, cache=tmp_path, name="answers")
    return Part(ANSWERS, "train", tokens)


@pytest.fixture
def taught(part):
    """Return the candidates with a teacher's scores."""
    scores = torch.randn(9, 1, generator=torch.Generator().manual_seed(4))
    return replace(part, soft_targets=SoftTargets(part.tokens.example_id, None, scores, None, None, "test"))


@pytest.fixture
def build(spec, tokenizer):
    """Return a function: system -> it, of the task."""

    def build(make):
        torch.manual_seed(2)
        system = make(
            encoder=spec.build(tokenizer),
            tasks=[ANSWERS],
            head=partial(linear_head, dropout=0.0),
            optimizer=LayerwiseOptimizer(partial(BertAdam), lr=1e-3),
            scheduler=LinearWarmup(0.1),
            log_every_n_steps=10**9,
        )
        with torch.no_grad():
            for parameter in system.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return system.train()

    return build


def batch_of(part, tokenizer):
    """Return all rows."""
    return collate([part], np.zeros(9, int), np.arange(9), tokenizer.pad_token_id)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_loss_is_that_of_whole_questions(build, attach, part, taught, tokenizer, name):
    """A cross-entropy over one score is 0, and a squared error pulls at its level."""
    system = attach(build(STUDENTS[name]), step=3)
    batch = batch_of(taught, tokenizer)
    rows, scores = batch["tasks"]["answers"], system(batch)["answers"].detach()
    assert scores.shape == (9, 1)
    gold = ranking_loss(scores, rows["labels"], rows["group"])
    soft = ranking_cross_entropy(scores, rows["teacher_logits"], rows["group"])
    torch.testing.assert_close(system.training_step(batch, 0), (0.25 * gold + 0.75 * soft).mean())
    torch.testing.assert_close(system.training_step(batch_of(part, tokenizer), 0), gold.mean())


@pytest.mark.parametrize("gold_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", ["bilstm", "mt_dnn_kd"])
def test_a_question_without_labels_follows_its_teacher(build, attach, taught, tokenizer, name, gold_weight):
    """Labels that are not there, read as irrelevant: the gold loss is 0, and takes its share from the teacher's.

    Tang's student takes the candidate that its teacher puts first for the relevant one.
    """
    system = attach(build(partial(STUDENTS[name], gold_weight=gold_weight)), step=3)
    batch = batch_of(taught, tokenizer)
    rows, scores = batch["tasks"]["answers"], system(batch)["answers"].detach()
    rows["has_label"] = torch.zeros_like(rows["has_label"])
    rows["labels"] = torch.zeros_like(rows["labels"])
    teacher, group = rows["teacher_logits"], rows["group"]
    expected = ranking_cross_entropy(scores, teacher, group)
    if name == "bilstm":
        first = torch.cat([F.one_hot(part.squeeze(1).argmax(), 3) for part in teacher.split(3)])
        assert first.sum() == 3
        expected = gold_weight * ranking_loss(scores, first, group) + (1 - gold_weight) * expected
    torch.testing.assert_close(system.training_step(batch, 0), expected.mean())


@pytest.mark.parametrize("name", ["bam", "mt_dnn_kd"])
def test_a_label_weighs_the_same_beside_questions_without(build, attach, taught, tokenizer, name):
    """Of three questions one has labels: its gold loss is a third of the batch's, as of a row of three."""
    system = attach(build(STUDENTS[name]), step=3)
    batch = batch_of(taught, tokenizer)
    rows, scores = batch["tasks"]["answers"], system(batch)["answers"].detach()
    first = rows["group"] == rows["group"][0]
    rows["has_label"] = first
    rows["labels"] = rows["labels"] * first
    own = ranking_loss(scores[first], rows["labels"][first], rows["group"][first])
    soft = ranking_cross_entropy(scores, rows["teacher_logits"], rows["group"])
    expected = (0.25 * own.sum() + (torch.where(first, 0.75, 1.0) * soft).sum()) / 9
    torch.testing.assert_close(system.training_step(batch, 0), expected)


def test_top_candidates():
    """Of each question, wherever its candidates stand; -inf and ties have a first one, too."""
    scores = torch.tensor([0.1, -2.0, 0.3, -1.0, 5.0, 5.0, -torch.inf]).unsqueeze(1)
    group = torch.tensor([4, 9, 4, 9, 1, 1, 2])
    assert top_candidates(scores, group).tolist() == [0, 0, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"need scores \[B, 1\]"):
        top_candidates(torch.zeros(7, 2), group)


def test_a_teacher_learns_to_rank(build, part, tokenizer, make_trainer):
    """One batch by heart: the relevant candidates come first."""
    batch = batch_of(part, tokenizer)
    system = build(Teacher)
    trainer = make_trainer(max_epochs=1, gradient_clip_val=5.0)
    loaders = [DataLoader(some, batch_size=None) for some in ([batch] * 80, [{**batch, "split": "validation"}])]
    trainer.fit(system, *loaders)
    assert {name: value.item() for name, value in trainer.callback_metrics.items() if "answers" in name} == {
        "val/answers/map": 1.0,
        "val/answers/mrr": 1.0,
        "val/answers/accuracy": 1.0,
    }
