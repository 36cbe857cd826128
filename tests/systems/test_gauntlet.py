"""What every system must pass: it learns, padding means nothing to it, it comes back from disk and from a crash.

A new system is one more line in SYSTEMS.
"""

from __future__ import annotations

import copy
import csv
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kd_lightning.annealing import Linear
from kd_lightning.callbacks import ResumeCheckpoint, resume_path
from kd_lightning.data import Part, collate, tokenise
from kd_lightning.encoders import NewBiLstm, TrainingWords
from kd_lightning.ensembling import mean_logits
from kd_lightning.errors import UserError
from kd_lightning.heads import SanHead, linear_head, san_head, siamese_head
from kd_lightning.loggers import MetricsCsv
from kd_lightning.losses import KLDivergence, LogitMSE, SoftCrossEntropy
from kd_lightning.optim import AdaDelta, BertAdam, LayerwiseOptimizer, LinearWarmup
from kd_lightning.systems import BamStudent, BiLstmStudent, MtDnnKdStudent, NLUSystem, Teacher, TmkdStudent

SYSTEMS: dict[str, Callable[..., NLUSystem]] = {
    "teacher": Teacher,
    "bam": partial(BamStudent, distill_loss=SoftCrossEntropy(), annealing=Linear()),
    "bilstm": partial(BiLstmStudent, distill_loss=LogitMSE("sum"), gold_weight=0.25),
    "mt_dnn_kd": partial(MtDnnKdStudent, distill_loss=SoftCrossEntropy(), gold_weight=0.25),
    "tmkd": partial(TmkdStudent, distill_loss=LogitMSE(), gold_weight=0.25, teachers={"mood": 2, "nli": 1, "near": 3}),
}
LEARN_FROM_TEACHERS = ["bam", "bilstm", "mt_dnn_kd", "tmkd"]
ANNEALED = ["bam"]
CONSTANT = ["bilstm", "mt_dnn_kd", "tmkd"]
"""With a constant gold weight."""
RECURRENT = ["bilstm"]
"""With the network of their paper: a BiLSTM, siamese for pairs, sparse gradients of its vectors, AdaDelta."""
SEVERAL_HEADS = ["mt_dnn_kd"]
"""With a head of its own for a pair task, which reads tokens."""

every_system = pytest.mark.parametrize("name", SYSTEMS)
distilled = pytest.mark.parametrize("name", LEARN_FROM_TEACHERS)
annealed = pytest.mark.parametrize("name", ANNEALED)


@pytest.fixture
def recipe(spec):
    """Return a function: name -> the recipe of the system's encoder."""
    recurrent = NewBiLstm(words=TrainingWords(size=16), hidden_size=12, channels="both", sparse=True)
    return lambda name: recurrent if name in RECURRENT else spec


@pytest.fixture
def build(recipe, tokenizer, toys):
    """Return a function: name, changes -> a new system of the three toy tasks; ``lr`` is that of Adam."""

    def build(name: str, *, dropout: float = 0.0, weights: int = 0, lr: float = 1e-3, **changes: Any) -> NLUSystem:
        torch.manual_seed(weights)
        settings = {
            "encoder": replace(recipe(name), dropout=dropout).build(tokenizer),
            "tasks": [toy.task for toy in toys.values()],
            "head": partial(linear_head, dropout=dropout),
            "optimizer": LayerwiseOptimizer(partial(BertAdam), lr=lr, layer_decay=0.9, weight_decay=0.01),
            "scheduler": LinearWarmup(0.1),
            "seed": 3,
            "log_every_n_steps": 1,
        }
        if name in RECURRENT:
            settings["head"] = partial(siamese_head, hidden_size=12, dropout=dropout)
            settings["optimizer"] = LayerwiseOptimizer(AdaDelta, lr=1000 * lr)  # the paper's rate is 1
        if name in SEVERAL_HEADS:
            settings["task_heads"] = {"nli": partial(san_head, dropout=dropout, prediction_dropout=dropout)}
        system = SYSTEMS[name](**{**settings, **changes})
        return system.train()

    return build


@pytest.fixture
def teachers(request, teach):
    """Return a function that gives a part the teachers of the test's system: one, or as many as it has heads."""
    made = SYSTEMS[request.node.callspec.params["name"]]
    heads = getattr(made, "keywords", {}).get("teachers", {})
    return lambda part, seed=0: teach(part, seed, teachers=heads.get(part.task.name))


@pytest.fixture
def taught(parts, teachers):
    """Return the examples of the three tasks, each with the logits of some teacher."""
    return [teachers(part, seed) for seed, part in enumerate(parts)]


@pytest.fixture
def batch_of(tokenizer):
    """Return a function: parts, how many rows of each -> a batch of its first rows."""

    def batch_of(parts, count=None):
        counts = [len(part.tokens) if count is None else count for part in parts]
        part_of = np.repeat(np.arange(len(parts)), counts)
        return collate(parts, part_of, np.concatenate([np.arange(n) for n in counts]), tokenizer.pad_token_id)

    return batch_of


def one_row(part: Part, row: int, tokenizer: Any, beside: Sequence[Part] = ()) -> dict[str, Any]:
    """Return a batch of a single example, of data that has other parts beside it."""
    return collate([part, *beside], np.array([0]), np.array([row]), tokenizer.pad_token_id)


def heads_of(system: NLUSystem, batch: dict[str, Any], task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits that learn from labels ``[n, C]`` and from each teacher ``[n, T, C]``, mostly the same."""
    with torch.no_grad():
        if not isinstance(system, TmkdStudent):
            logits = system(batch)[task]
            return logits, logits.unsqueeze(1)
        every = system.logits(task, system.encode(batch), batch["tasks"][task]["rows"])
        return every[:, 0], every[:, 1:]


def teachers_of(rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of each teacher, ``[n, T, C]``."""
    found = rows["teacher_logits"]
    return found if found.ndim == 3 else found.unsqueeze(1)


def lively(system: NLUSystem) -> NLUSystem:
    """Return the system with weights large enough to tell texts apart."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return system


def gradients_of(system: NLUSystem) -> dict[str, torch.Tensor | None]:
    """Return name -> gradient of each parameter that is trained, in full where it is sparse."""
    found = {name: p.grad for name, p in system.named_parameters() if p.requires_grad}
    return {name: g.to_dense() if g is not None and g.is_sparse else g for name, g in found.items()}


def quietly(system: NLUSystem) -> NLUSystem:
    """Return a system that logs rarely: outside a trainer there is nowhere to log."""
    system.log_every_n_steps = 10**9
    return system


class Again:
    """One batch, some times (trap 4: overfit_batches=1 takes another batch each epoch)."""

    def __init__(self, batch: dict[str, Any], times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        """Return how many times."""
        return self.times

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batch."""
        yield from [self.batch] * self.times


@every_system
def test_one_batch_is_learned_exactly(build, batch_of, taught, make_trainer, name):
    """A system that cannot learn twelve rows by heart has a wrong join, a frozen part or a reversed sign."""
    batch = batch_of(taught, 6)
    if name in LEARN_FROM_TEACHERS and name not in ANNEALED:  # to the end it is its teacher that it learns
        for task, rows in batch["tasks"].items():
            mean = mean_logits(teachers_of(rows))
            rows["teacher_logits"] = mean.unsqueeze(1).expand(teachers_of(rows).shape).view_as(rows["teacher_logits"])
            rows["labels"] = mean.squeeze(-1) if task == "near" else mean.argmax(-1)
    system = lively(build(name, lr=0.006))
    trainer = make_trainer(max_epochs=1, gradient_clip_val=5.0)
    trainer.fit(system, Again(batch, 120), Again({**batch, "split": "validation"}, 1))
    scores = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert {scores["val/mood/accuracy"], scores["val/nli/accuracy"]} == {1.0}
    assert scores["val/near/pearson"] > 0.95


@every_system
def test_gradient_reaches_what_is_used(build, batch_of, taught, attach, name):
    """A detached encoder trains heads on random features; a head that drifts without its task forgets it."""
    used = 1 if name in SEVERAL_HEADS else 0
    system = attach(quietly(build(name)))
    assert isinstance(system.heads["nli"], SanHead) == (name in SEVERAL_HEADS)
    system.training_step(batch_of(taught[used : used + 1]), 0).backward()
    others = tuple(f"heads.{part.task.name}" for place, part in enumerate(taught) if place != used)
    for parameter_name, gradient in gradients_of(system).items():
        reads_tokens = isinstance(system.heads[taught[used].task.name], SanHead)
        if parameter_name.startswith(others) or (reads_tokens and "pooler" in parameter_name):
            assert gradient is None, parameter_name
        else:
            assert gradient is not None, parameter_name
            if not parameter_name.endswith("key.bias"):  # adds the same to all attention scores: no effect
                assert gradient.any(), parameter_name


@every_system
def test_padding_changes_nothing(build, batch_of, taught, tokenizer, name):
    """An example whose prediction depends on its company: scores move with the batch size."""
    system = lively(build(name)).eval()
    batch = batch_of(taught)
    more = 32 - batch["input_ids"].shape[1]
    assert more > 10
    wide = {key: F.pad(x, (0, more)) if getattr(x, "ndim", 0) == 2 else x for key, x in batch.items()}
    with torch.no_grad():
        together, padded = system(batch), system(wide)
        for part in taught:
            logits = together[part.task.name]
            torch.testing.assert_close(padded[part.task.name], logits, rtol=1e-4, atol=1e-5)
            assert logits.std(0).min() > 3e-3
            for row in range(0, len(part.tokens), 5):
                (alone,) = system(one_row(part, row, tokenizer)).values()
                torch.testing.assert_close(logits[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@every_system
def test_saved_system_predicts_the_same(build, batch_of, taught, recipe, tokenizer, tmp_path, name):
    """What is published must be what was measured."""
    system, batch = lively(build(name)).eval(), batch_of(taught)
    system.encoder.save(tmp_path / "encoder")
    torch.save(system.heads.state_dict(), tmp_path / "heads")
    again = build(name, weights=9, encoder=recipe(name).saved(tmp_path / "encoder").build(tokenizer))
    again.heads.load_state_dict(torch.load(tmp_path / "heads", weights_only=True))
    with torch.no_grad():
        before, after = system(batch), again.eval()(batch)
    for task, logits in before.items():
        torch.testing.assert_close(after[task], logits, rtol=0, atol=0)


@every_system
def test_predictions_carry_their_ids(build, batch_of, taught, name):
    """Logits written under the wrong ids are another example's teacher."""
    system = lively(build(name)).eval()
    part = taught[1]
    order = np.random.default_rng(0).permutation(len(part.tokens))
    batch = collate([part], np.zeros(len(order), int), order, 0)
    with torch.no_grad():
        found, straight = system.predict_step(batch, 0), system(batch_of([part]))["nli"]
    assert found["example_id"].tolist() == part.tokens.example_id[order].tolist()
    torch.testing.assert_close(found["logits"], straight[torch.from_numpy(order)], rtol=1e-4, atol=1e-5)


def loss_of(system: NLUSystem, batch: dict[str, Any]) -> torch.Tensor:
    """Return the loss of a batch."""
    with torch.no_grad():
        return system.training_step(batch, 0)


@every_system
def test_batch_loss_is_the_mean_of_its_rows(build, batch_of, taught, attach, tokenizer, name):
    """Rows weighted by the size of their task (BAM does not), or joined with another row's teacher."""
    system = attach(quietly(lively(build(name))), step=3)
    alone = [loss_of(system, one_row(part, row, tokenizer)) for part in taught for row in range(len(part.tokens))]
    torch.testing.assert_close(loss_of(system, batch_of(taught)), torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


@every_system
def test_sum_and_mean(build, batch_of, taught, attach, name):
    """BAM's code sums, and clips: a mean under that recipe is another optimiser."""
    batch = batch_of(taught)
    mean, total = (
        attach(quietly(lively(build(name, weights=1, reduction=how)))).training_step(batch, 0)
        for how in ("mean", "sum")
    )
    torch.testing.assert_close(total, mean * len(batch["example_id"]))


@every_system
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_any_number_of_ranks_has_one_gradient(build, batch_of, taught, attach, tokenizer, name, reduction):
    """DDP averages gradients: without the factor, two processes train a summed loss at half the rate."""
    system = quietly(lively(build(name, reduction=reduction)))
    whole = loss_of(attach(system), batch_of(taught[:1], 12))
    attach(system, world_size=2)
    halves = [collate(taught[:1], np.zeros(6, int), np.arange(12)[i::2], tokenizer.pad_token_id) for i in (0, 1)]
    torch.testing.assert_close(torch.stack([loss_of(system, half) for half in halves]).mean(), whole)


@every_system
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batches_that_share_a_step_have_one_gradient(build, batch_of, taught, make_trainer, name, reduction):
    """Two batches accumulated are one of twice the size; Lightning divides each loss by two, a sum must not shrink."""
    half = batch_of(taught, 6)
    gradients = {}
    for times in (1, 2):
        system = lively(build(name, reduction=reduction, lr=1e-9))
        norms: list[torch.Tensor] = []
        system.on_before_optimizer_step = lambda _, s=system, n=norms: n.append(
            torch.cat([g.flatten() for g in gradients_of(s).values() if g is not None])
        )
        trainer = make_trainer(max_epochs=1, accumulate_grad_batches=times, gradient_clip_val=None)
        trainer.fit(system, Again(half, times), Again({**half, "split": "validation"}, 1))
        gradients[times] = norms[0] / (times if reduction == "sum" else 1)
    torch.testing.assert_close(gradients[2], gradients[1], rtol=1e-4, atol=1e-6)


@every_system
def test_heads_do_not_round(build, batch_of, taught, name):
    """In bfloat16 a thousand different scores are five hundred, and equal scores have no order."""
    system, batch = lively(build(name)), batch_of(taught)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = system(batch)
    for task, logits in found.items():
        assert logits.dtype == torch.float32, task
        assert not torch.equal(logits, logits.bfloat16().float()), task


@every_system
def test_rows_without_a_label_are_not_scored(build, batch_of, unlabelled, name):
    """Their labels read as 0: a share of predictions under the name of an accuracy."""
    batch = {**batch_of([unlabelled("mood")], 4), "split": "validation"}
    with pytest.raises(ValueError, match="validation has rows without a label"):
        build(name).validation_step(batch, 0)


def test_reduction_is_refused(build):
    """A misspelt reduction that falls back on the other one."""
    with pytest.raises(ValueError, match="reduction is 'avg', expected 'mean' or 'sum'"):
        build("teacher", reduction="avg")


@pytest.fixture
def unlabelled(toys, tokenizer, write_rows, tmp_path):
    """Return rows of a toy task without labels."""

    def unlabelled(name):
        toy = toys[name]
        columns = {column: values for column, values in toy.columns.items() if column != "label"}
        rows = write_rows("unlabelled", toy.task, columns, labelled=False)
        tokens = tokenise(rows, tokenizer, max_length=32, both_orders=False, cache=tmp_path, name="unlabelled")
        return Part(toy.task, "unlabelled", tokens)

    return unlabelled


def soft_loss(name: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the distillation loss of rows ``[n, T, C]``, as the papers write it."""
    squares = (student - teacher).square()
    if student.shape[-1] == 1 or name == "tmkd":
        return squares.mean()
    if name == "bilstm":
        return squares.sum(-1).mean()
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()


def unlabelled_loss(name: str, logits: torch.Tensor, soft: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return what a row without a label costs: the soft loss; Tang's, whose hard label is the teacher's choice."""
    if name != "bilstm" or logits.shape[1] == 1:  # of a score, label and soft target are the same number
        return soft_loss(name, soft, teacher)
    chosen = -logits.log_softmax(-1)[0, teacher.argmax()]
    return 0.25 * chosen + 0.75 * soft_loss(name, soft, teacher)


@distilled
@pytest.mark.parametrize("task", ["mood", "near"])
def test_an_unlabelled_row_follows_its_teacher(build, attach, unlabelled, teachers, tokenizer, name, task):
    """A missing label read as class 0: augmented text teaches one class only, more so as gold takes over."""
    system = attach(quietly(lively(build(name))), step=8)
    part = teachers(unlabelled(task), 2)
    for row in range(4):
        batch = one_row(part, row, tokenizer)
        rows = batch["tasks"][task]
        expected = unlabelled_loss(name, *heads_of(system, batch, task), teachers_of(rows))
        torch.testing.assert_close(loss_of(system, batch), expected)
        other = {**rows, "labels": 1 - rows["labels"]}
        torch.testing.assert_close(loss_of(system, {**batch, "tasks": {task: other}}), expected)


@pytest.mark.parametrize("gold_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("task", ["mood", "nli", "near"])
@pytest.mark.parametrize("name", CONSTANT)
def test_label_and_teacher_have_their_weights(build, attach, taught, tokenizer, name, task, gold_weight):
    """Weights exchanged, or labels replaced by what the teacher finds; at 0 no label counts, at 1 no teacher."""
    system = attach(quietly(lively(build(name, gold_weight=gold_weight))), step=8)
    (part,) = (part for part in taught if part.task.name == task)
    for row in range(6):
        batch = one_row(part, row, tokenizer)
        rows, (logits, soft_logits) = batch["tasks"][task], heads_of(system, batch, task)
        label = rows["labels"]
        gold = (logits[0] - label).square().mean() if task == "near" else F.cross_entropy(logits, label)
        soft = soft_loss(name, soft_logits, teachers_of(rows))
        torch.testing.assert_close(loss_of(system, batch), gold_weight * gold + (1 - gold_weight) * soft)
        assert not torch.isclose(gold, soft)


def untaught(name: str, **teachers: int) -> dict[str, Any]:
    """Return the settings of a system whose other tasks have no teacher."""
    return {"teachers": teachers} if name == "tmkd" else {}


@distilled
@pytest.mark.parametrize("task", ["mood", "near"])
def test_a_row_without_teacher_follows_gold(build, attach, toys, tokenizer, name, task):
    """A missing teacher is NaN: weighed by zero it makes the whole batch's loss NaN, or the encoder learns nothing."""
    system = attach(quietly(lively(build(name, **untaught(name)))), step=1)
    part = toys[task].part
    for row in range(4):
        batch = one_row(part, row, tokenizer)
        logits, label = system(batch)[task], batch["tasks"][task]["labels"]
        expected = (logits[0] - label).square().mean() if task == "near" else F.cross_entropy(logits, label)
        loss = system.training_step(batch, 0)
        torch.testing.assert_close(loss, expected)
        system.zero_grad()
        loss.backward()
        found = gradients_of(system)
        system.zero_grad()
        expected.backward()
        for parameter, gradient in gradients_of(system).items():
            if gradient is None:
                assert found[parameter] is None, parameter
            else:
                torch.testing.assert_close(found[parameter], gradient)
        assert any(found[parameter].any() for parameter in found if parameter.startswith("encoder."))


@distilled
def test_mixed_company(build, batch_of, attach, toys, teachers, unlabelled, tokenizer, name):
    """Rows with and without teacher in one batch: a NaN that leaks, or a weight for all rows."""
    system = attach(quietly(lively(build(name, **untaught(name, mood=2, nli=1)))), step=4)
    parts = [toys["mood"].part, teachers(unlabelled("mood"), 1), teachers(toys["nli"].part, 2), toys["near"].part]
    rows = [(part, row) for part in parts for row in range(len(part.tokens))]
    alone = [loss_of(system, one_row(part, row, tokenizer, parts)) for part, row in rows]
    loss = system.training_step(batch_of(parts), 0)
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients_of(system).values())


@every_system
def test_no_row_teaches_a_label_it_has_not(build, attach, unlabelled, teachers, tokenizer, name):
    """A system of gold labels alone that is given unlabelled rows must not learn that all of them are class 0."""
    part = teachers(unlabelled("mood"), 1)
    system = attach(quietly(lively(build(name))), step=8)
    batch = one_row(part, 0, tokenizer)
    rows = batch["tasks"]["mood"]
    losses = [
        loss_of(system, {**batch, "tasks": {"mood": {**rows, "labels": torch.tensor([label])}}}) for label in (0, 1)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


class Crash(Exception):
    """What ends a run in the middle."""


class CrashBefore(pl.Callback):
    """Raise before a given optimiser step, counted from 0."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Raise if it is time."""
        if trainer.global_step == self.step:
            raise Crash


@pytest.fixture
def fit(build, make_data, make_trainer, taught, tmp_path):
    """Return a function that trains for two epochs of seven steps, from a checkpoint or until a crash."""

    def fit(name, folder, *, resume=False, crash=None, weights=0, **changes):
        system = build(name, dropout=0.2, weights=weights, **changes)
        callbacks = [ResumeCheckpoint(every_minutes=None, every_n_steps=3)]
        callbacks += [] if crash is None else [CrashBefore(crash)]
        root = tmp_path / folder
        trainer = make_trainer(folder, callbacks=callbacks, logger=[MetricsCsv(str(root))])
        path = str(resume_path(root)) if resume else None
        try:
            trainer.fit(system, datamodule=make_data(taught), ckpt_path=path, weights_only=True)
        except Crash:
            assert trainer.global_step == crash
        else:
            assert trainer.global_step == 14
        return system

    return fit


def same(one: NLUSystem, other: NLUSystem) -> bool:
    """Tell whether two systems have the same weights to the bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@every_system
def test_a_resumed_run_is_the_same_run(fit, tmp_path, name):
    """A run that forgets its dropout, its place in the data, its moments or its schedule when it is interrupted."""
    straight = fit(name, "straight")
    for crash in (
        4,
        7,
        11,
    ):  # from a checkpoint in the first epoch, at its end, in the second; up to two steps are lost
        folder = f"crash {crash}"
        cut = fit(name, folder, crash=crash)
        assert not same(cut, straight)
        again = fit(name, folder, resume=True, weights=99)
        assert same(again, straight), crash
        assert (tmp_path / folder / "metrics.csv").read_text() == (tmp_path / "straight" / "metrics.csv").read_text()


@pytest.fixture
def logged(tmp_path):
    """Return a function: folder of a run -> step -> the training loss that was logged there."""

    def logged(folder):
        with (tmp_path / folder / "metrics.csv").open() as file:
            return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}

    return logged


@every_system
def test_losses_of_the_steps_before_a_crash_are_logged(fit, logged, tmp_path, name):
    """Means over five steps of which a checkpoint forgot one: a jump in the curve wherever a job was interrupted."""
    fit(name, "every step")
    fit(name, "straight", log_every_n_steps=5)
    fit(name, "cut", log_every_n_steps=5, crash=8)  # its checkpoint is of step 6, what was logged last of step 5
    fit(name, "cut", log_every_n_steps=5, resume=True)
    straight, each = logged("straight"), logged("every step")
    assert list(straight) == [0, 5, 10, 13]
    assert straight[10] == pytest.approx(sum(each[step] for step in range(6, 11)) / 5, rel=1e-4)
    assert (tmp_path / "cut" / "metrics.csv").read_text() == (tmp_path / "straight" / "metrics.csv").read_text()


@every_system
def test_losses_are_of_all_batches_of_their_step(build, batch_of, taught, make_trainer, tmp_path, logged, name):
    """Of three that share a step the first is logged, two go to the next step, and the last of the run nowhere."""
    system, batches = build(name), [batch_of([part], 6) for part in taught]
    losses: list[float] = []
    inner = system.reduce
    system.reduce = lambda found: losses.append(inner(found).item()) or inner(found)
    csv_log = MetricsCsv(str(tmp_path / "fit"))
    trainer = make_trainer("fit", max_epochs=1, accumulate_grad_batches=3, logger=[csv_log])
    stream = DataLoader([*batches, *batches[:2]], batch_size=None)
    trainer.fit(system, stream, Again({**batches[0], "split": "validation"}, 1))
    assert logged("fit") == pytest.approx({0: sum(losses[:3]) / 3, 1: sum(losses[3:]) / 2}, rel=1e-4)


@every_system
def test_losses_that_were_kept_are_taken_up_once(build, batch_of, attach, taught, name):
    """On each of two ranks: the losses of the steps before the checkpoint would count twice."""
    system = attach(quietly(build(name)), step=4)
    system.training_step(batch_of(taught, 3), 0)
    checkpoint: dict[str, Any] = {}
    system.on_save_checkpoint(checkpoint)
    taken = {}
    for rank in (0, 1):
        again = attach(quietly(build(name)), step=4)
        again.trainer.global_rank = rank
        again.on_load_checkpoint(checkpoint)
        again.training_step(batch_of(taught, 3), 0)
        again._losses.take(lambda sums, rank=rank: taken.update({rank: sums.clone()}) or sums)
    torch.testing.assert_close(taken[0], 2 * taken[1])


@every_system
def test_long_and_short_rows_are_read_apart(build, batch_of, taught, name):
    """Rows padded to the longest of the batch at any price, since a head of another task reads tokens."""
    system, read = build(name), []
    inner = system.encoder.forward
    system.encoder.forward = lambda ids, *rest: read.append(tuple(ids.shape)) or inner(ids, *rest)
    batch = batch_of(taught[:1])
    more = 32 - batch["input_ids"].shape[1]
    batch = {key: F.pad(x, (0, more)) if getattr(x, "ndim", 0) == 2 else x for key, x in batch.items()}
    batch["attention_mask"][0] = 1
    with torch.no_grad():
        system(batch)
    (short, long) = sorted(read, key=lambda shape: shape[1])
    assert (short[0] + long[0], long) == (24, (1, 32))
    assert short[1] < 32


@every_system
def test_the_seed_is_the_run(fit, name):
    """Dropout drawn from a shared generator: two runs of one seed differ, or the seed changes nothing."""
    assert same(fit(name, "one"), fit(name, "same"))
    assert not same(fit(name, "one"), fit(name, "other", seed=4))


@every_system
def test_each_step_has_its_own_dropout(build, make_data, make_trainer, taught, attach, name):
    """Masks that come again with each epoch, or on each rank, drop the same units of the same rows."""
    seeds = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_):
            seeds.append(torch.initial_seed())

    make_trainer(callbacks=[Watch()]).fit(build(name), datamodule=make_data(taught))
    system = attach(build(name))
    for rank, seed in ((0, 3), (1, 3), (0, 4)):
        system.trainer.fit_loop, system.trainer.global_rank = SimpleNamespace(total_batch_idx=3), rank
        system.seed = seed
        system.on_train_batch_start(None, 3)
        seeds.append(torch.initial_seed())
    assert seeds[14] == seeds[3]
    assert len(set(seeds)) == 16


class Watched:
    """An annealing that notes its progress."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, progress: float) -> float:
        """Return the progress itself, not clamped."""
        self.seen.append(progress)
        return progress


@annealed
def test_progress_counts_the_true_steps(fit, name):
    """Steps of one epoch as the total: the gold weight passes 1 and the teacher's is negative; BAM ports do this."""
    watched = Watched()
    fit(name, "straight", annealing=watched)
    assert watched.seen == [step / 14 for step in range(14)]
    assert watched.seen[0] == 0
    assert max(watched.seen) < 1


@annealed
@pytest.mark.parametrize(("crash", "restart"), [(5, 3), (7, 7), (13, 12)])
def test_progress_goes_on_after_a_crash(fit, name, crash, restart):
    """An annealing that starts anew with each job of a pre-empted run never reaches the gold labels."""
    before, after = Watched(), Watched()
    fit(name, "cut", annealing=before, crash=crash)
    fit(name, "cut", annealing=after, resume=True)
    assert before.seen == [step / 14 for step in range(crash)]
    assert after.seen == [step / 14 for step in range(restart, 14)]


@annealed
def test_progress_counts_optimiser_steps(build, make_data, make_trainer, taught, name):
    """With accumulated gradients there are fewer steps than batches; counted in batches gold takes over too early."""
    watched = Watched()
    trainer = make_trainer(accumulate_grad_batches=2)
    trainer.fit(build(name, annealing=watched), datamodule=make_data(taught))
    assert trainer.global_step == 8
    assert watched.seen == [step / 8 for step in (0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 7)]


@every_system
def test_task_sampling_counts_the_whole_run(build, make_data, make_trainer, taught, name):
    """An annealed task sampler that believes each run to be of one epoch is at its end after the first."""
    seen = []

    def sampler(sizes, progress):
        seen.append(progress)
        return sizes

    make_trainer().fit(build(name), datamodule=make_data(taught, task_sampler=sampler))
    assert sorted(set(seen)) == pytest.approx([first / 14 for first in (0, 3, 6, 7, 10, 13)])


@every_system
def test_learning_rate_follows_the_schedule(build, make_data, make_trainer, taught, name):
    """A schedule that is stepped once an epoch stays in its warm-up."""
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[-1]["lr"])

    make_trainer(callbacks=[Watch()]).fit(build(name), datamodule=make_data(taught))
    full = 1.0 if name in RECURRENT else 1e-3
    assert rates == pytest.approx([full * LinearWarmup(0.1)(step / 14) for step in range(14)])


@every_system
def test_evaluation_is_of_all_examples(build, make_data, make_trainer, taught, batch_of, name):
    """The mean of the batches' scores is not the score: F1 and correlations have no mean."""
    system = lively(build(name))
    trainer = make_trainer()
    trainer.validate(system, datamodule=make_data(taught), verbose=False)
    found = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    expected = {}
    system.eval()
    for part in taught:
        batch = batch_of([part])
        with torch.no_grad():
            (logits,) = system(batch).values()
        labels = batch["tasks"][part.task.name]["labels"]
        metrics = part.task.build_metrics()
        metrics.update(logits.squeeze(-1) if part.task.kind == "regression" else logits.argmax(-1), labels)
        expected |= {f"val/{part.task.name}/{key}": value.item() for key, value in metrics.compute().items()}
    per_task = [np.mean([v for key, v in expected.items() if f"/{part.task.name}/" in key]) for part in taught]
    assert found == pytest.approx({**expected, "val/average": float(np.mean(per_task))}, abs=1e-5)


@every_system
def test_an_encoder_that_is_no_module_is_refused(build, spec, tokenizer, name):
    """Nothing of it would be trained, saved or put into evaluation mode, and nothing would say so."""
    encoder = spec.build(tokenizer)
    members = {key: getattr(encoder, key) for key in ("output_dim", "num_layers", "depth", "save", "named_parameters")}
    with pytest.raises(TypeError, match=r"the encoder is a SimpleNamespace, expected a torch\.nn\.Module"):
        build(name, encoder=SimpleNamespace(**members))


@every_system
def test_a_copy_is_the_same_system(build, batch_of, attach, taught, name):
    """A copy that reads the original's loss is none."""
    system = build(name)
    for copied in (pickle.loads(pickle.dumps(system)), copy.deepcopy(system)):
        batch = batch_of(taught, 3)
        losses = [attach(quietly(one), step=4).training_step(batch, 0) for one in (system, copied)]
        torch.testing.assert_close(*losses, rtol=0, atol=0)
        losses[1].backward()
        assert all(gradient is None for gradient in gradients_of(system).values())


@every_system
def test_logged_losses_are_of_the_rows_that_have_them(build, attach, taught, tokenizer, batch_of, name, monkeypatch):
    """A gold loss over rows that have no label is one of made-up labels."""
    system = attach(lively(build(name)), step=4)
    batch = batch_of([part for part in taught if part.task.name == "mood"], 6)
    rows, (logits, soft_logits) = batch["tasks"]["mood"], heads_of(system, batch, "mood")
    rows["has_label"] = torch.tensor([True, True, False, False, True, False])
    rows["has_teacher"] = torch.tensor([True, False, True, True, True, True])
    logged = {}
    monkeypatch.setattr(system, "log_losses", lambda losses, **values: logged.update(losses["mood"]))
    loss = system.training_step(batch, 0)
    means = {key: value[counts].mean() for key, (value, counts) in logged.items()}
    gold = F.cross_entropy(logits, rows["labels"], reduction="none")[rows["has_label"]]
    torch.testing.assert_close(means["gold_loss"], gold.mean())
    if name in LEARN_FROM_TEACHERS:
        taught_rows = rows["has_teacher"]
        soft = soft_loss(name, soft_logits[taught_rows], teachers_of(rows)[taught_rows])
        torch.testing.assert_close(means["soft_loss"], soft)
        torch.testing.assert_close(means["loss"], loss)


@distilled
def test_the_loss_belongs_to_the_system(build, name):
    """Class weights of a loss of one's own stay on the processor when the rest moves to a GPU."""
    loss = SoftCrossEntropy()
    loss.register_buffer("weights", torch.ones(3))
    assert "distill_loss.weights" in build(name, distill_loss=loss).state_dict()


@every_system
def test_scaled_gradients_are_not_clipped_by_a_fused_optimiser(build, attach, name):
    """fp16 with the default optimiser: Lightning's own refusal is a traceback at the first step."""
    system = attach(build(name, optimizer=lambda e, h: torch.optim.AdamW(e.parameters(), fused=True)))
    system.trainer.precision, system.trainer.precision_plugin = "16-mixed", SimpleNamespace(scaler=object())
    system.trainer.gradient_clip_val = 1.0
    with pytest.raises(UserError, match=r"trainer.precision=16-mixed cannot clip .* optimizer\.optimizer\.fused=false"):
        system.configure_optimizers()


@every_system
@pytest.mark.parametrize("scaler", [None, object()], ids=["unscaled", "fp16"])
@pytest.mark.parametrize(("clip", "expected"), [(None, None), (0.5, 0.5), (1e6, None)])
def test_the_global_norm_is_clipped(build, batch_of, taught, attach, name, clip, expected, scaler):
    """BAM clips the norm of all gradients together, not each parameter's, nor each value."""
    system, optimizer, before = clipped(build, batch_of, taught, attach, name, scaler)
    system.configure_gradient_clipping(optimizer, clip)
    norm = torch.cat([gradient.flatten() for gradient in before.values()]).norm()
    assert norm > 1
    scale = 1.0 if expected is None else expected / norm
    for key, gradient in gradients_of(system).items():
        torch.testing.assert_close(gradient, before[key] * scale, rtol=1e-4, atol=1e-8)


@every_system
def test_values_are_clipped_if_asked(build, batch_of, taught, attach, name):
    """``trainer.gradient_clip_algorithm=value``, also with gradients of single rows."""
    system, optimizer, before = clipped(build, batch_of, taught, attach, name, None)
    system.configure_gradient_clipping(optimizer, 0.01, "value")
    for key, gradient in gradients_of(system).items():
        torch.testing.assert_close(gradient, before[key].clamp(-0.01, 0.01))
    assert any(not gradient.equal(before[key]) for key, gradient in gradients_of(system).items())


def clipped(build, batch_of, taught, attach, name, scaler):
    """Return a system with large gradients, its optimiser, and the gradients before they are clipped."""
    system = attach(quietly(lively(build(name, reduction="sum"))))
    system.trainer.precision_plugin = SimpleNamespace(scaler=scaler)  # which has unscaled them by then
    system.training_step(batch_of(taught), 0).backward()
    before = {key: gradient.clone() for key, gradient in gradients_of(system).items()}
    return system, SimpleNamespace(param_groups=[{"params": list(system.parameters())}]), before


@distilled
@pytest.mark.parametrize("loss", [SoftCrossEntropy(), KLDivergence(2.0)])
def test_scores_learn_by_the_squared_error(build, batch_of, attach, teachers, parts, name, loss):
    """A softmax over one score is 1: a loss of classes would teach nothing, or fail."""
    (near,) = [part for part in parts if part.task.name == "near"]
    part = teachers(near, 1)
    system = attach(quietly(lively(build(name, distill_loss=loss))))
    batch = batch_of([part], 8)
    rows = batch["tasks"]["near"]
    rows["has_label"] = torch.zeros_like(rows["has_label"])
    found = system.training_step(batch, 0)
    _, scores = heads_of(system, batch, "near")
    torch.testing.assert_close(found.detach(), (scores - teachers_of(rows)).square().mean())


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", CONSTANT)
def test_a_gold_weight_out_of_range_is_refused(build, name, weight):
    with pytest.raises(ValueError, match=rf"gold_weight is {weight}, expected a number in \[0, 1\]"):
        build(name, gold_weight=weight)


def test_a_siamese_head_needs_texts_that_were_read_apart(build):
    """It would take the halves of one vector for two texts, and learn from the first alone."""
    with pytest.raises(ValueError, match=r"a TransformerEncoder reads them as one: choose encoder=bilstm"):
        build("teacher", head=partial(siamese_head, hidden_size=8))
