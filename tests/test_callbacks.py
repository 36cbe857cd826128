"""The checkpoint to resume from: always whole, at a step's end, with the table beside it; progress in the log."""

from __future__ import annotations

import csv
import io
import logging
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from kd_lightning import callbacks as module
from kd_lightning import progress
from kd_lightning.callbacks import LogProgress, ResumeCheckpoint, StageProgressBar, is_evaluated, resume_path
from kd_lightning.data import EvaluationStream
from kd_lightning.heads import linear_head
from kd_lightning.loggers import MetricsCsv
from kd_lightning.optim import BertAdam, LayerwiseOptimizer, LinearWarmup
from kd_lightning.systems import Teacher


def rows(path: Path) -> dict[int, dict[str, float]]:
    """Return step -> name -> value of a table, empty cells left out."""
    with path.open(newline="") as file:
        return {int(r.pop("step")): {k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)}


@pytest.fixture
def system(spec, tokenizer, toys):
    """Return a new teacher of the toy tasks."""
    return Teacher(
        encoder=spec.build(tokenizer),
        tasks=[toy.task for toy in toys.values()],
        head=partial(linear_head),
        optimizer=LayerwiseOptimizer(partial(BertAdam), lr=1e-3),
        scheduler=LinearWarmup(0.1),
        log_every_n_steps=1,
    )


class Saved(ResumeCheckpoint):
    """A checkpoint callback that notes the step of each save, and what lies in the folder."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.steps: list[int] = []

    def save(self, trainer: pl.Trainer) -> None:
        """Save, and take note."""
        super().save(trainer)
        self.steps.append(trainer.global_step)
        assert [path.name for path in resume_path(Path(trainer.default_root_dir)).parent.iterdir()] == ["last.ckpt"]
        state = torch.load(resume_path(Path(trainer.default_root_dir)), weights_only=True)
        assert state["global_step"] == trainer.global_step


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        pytest.param({"every_minutes": None}, [7, 14], id="epochs alone"),
        pytest.param({"every_minutes": None, "every_n_steps": 3}, [3, 6, 7, 9, 12, 14], id="every third step"),
        pytest.param({"every_minutes": None, "every_n_steps": 7}, [7, 14], id="once at the end of an epoch"),
        pytest.param({"every_minutes": 60.0}, [7, 14], id="not yet time"),
        pytest.param({"every_minutes": -1.0}, list(range(1, 15)), id="always time"),
    ],
)
def test_when_it_saves(system, make_trainer, make_data, parts, settings, steps):
    """A checkpoint before the epoch's evaluation resumes without ever evaluating; none at all loses a night."""
    saved = Saved(**settings)
    make_trainer(callbacks=[saved]).fit(system, datamodule=make_data(parts))
    assert saved.steps == steps


def test_no_checkpoint_inside_a_step(system, make_trainer, make_data, parts):
    """Half of an accumulated gradient is in no checkpoint: a run resumed from there takes another step."""
    saved = Saved(every_minutes=-1.0)
    trainer = make_trainer(callbacks=[saved], accumulate_grad_batches=3)
    trainer.fit(system, datamodule=make_data(parts))
    assert saved.steps == [1, 2, 3, 4, 5, 6]


def test_the_clock_runs_from_the_last_save(system, make_trainer, make_data, parts, monkeypatch):
    """A clock that is never set back saves after every step once the first five minutes are over."""
    now = iter(range(0, 10_000, 60))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    saved = Saved(every_minutes=3.5)
    make_trainer(callbacks=[saved]).fit(system, datamodule=make_data(parts))
    assert saved.steps == [4, 7, 11, 14]


def test_the_old_checkpoint_stays_until_the_new_one_is_whole(system, make_trainer, make_data, parts, tmp_path):
    """Killed while it writes, a run must find its last whole checkpoint, not half of the next."""

    class Killed(ResumeCheckpoint):
        def save(self, trainer):
            if trainer.global_step == 14:
                write = trainer.save_checkpoint

                def half(path):
                    write(path)
                    Path(path).write_bytes(Path(path).read_bytes()[:1000])
                    raise KeyError("killed")

                trainer.save_checkpoint = half
            super().save(trainer)

    with pytest.raises(KeyError, match="killed"):
        make_trainer(callbacks=[Killed(every_minutes=None)]).fit(system, datamodule=make_data(parts))
    assert torch.load(resume_path(tmp_path / "fit"), weights_only=True)["global_step"] == 7


def test_a_checkpoint_holds_tensors_and_plain_values(system, make_trainer, make_data, parts, tmp_path):
    """A checkpoint that must be unpickled can run code, and loads with one version of the package only."""
    make_trainer(callbacks=[ResumeCheckpoint()]).fit(system, datamodule=make_data(parts))
    state = torch.load(resume_path(tmp_path / "fit"), weights_only=True)
    assert state["global_step"] == 14
    assert state["MultiTaskData"]["taken"] == 14
    assert set(state["state_dict"]) == set(system.state_dict())
    assert not any("metrics" in name for name in state["state_dict"])


def test_the_table_goes_with_the_checkpoint(system, make_trainer, make_data, parts, tmp_path):
    """Rows in memory that a kill loses while the checkpoint behind them stays: a gap in every curve."""

    class Kill(Exception):
        pass

    class At(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                table.finalize = lambda status: None  # a kill asks nobody
                raise Kill

    table = MetricsCsv(str(tmp_path / "fit"))
    trainer = make_trainer(callbacks=[ResumeCheckpoint(None, 4), At()], logger=[table])
    with pytest.raises(Kill):
        trainer.fit(system, datamodule=make_data(parts))
    assert set(rows(table.path)) >= {0, 1, 2, 3}
    assert torch.load(resume_path(tmp_path / "fit"), weights_only=True)["global_step"] == 4


def test_what_is_logged(system, make_trainer, make_data, parts, tmp_path):
    """The names that reports and dashboards read, at the steps where they belong."""
    system.log_every_n_steps = 4
    table = MetricsCsv(str(tmp_path / "fit"))
    make_trainer(logger=[table]).fit(system, datamodule=make_data(parts))
    found = rows(table.path)
    trained = {step for step, row in found.items() if "train/loss" in row}
    evaluated = {step for step, row in found.items() if "val/average" in row}
    assert trained == {0, 4, 8, 12, 13}
    assert evaluated == {6, 13}
    names = {name for row in found.values() for name in row if name.startswith("train/")}
    means = ("mood/gold_loss", "nli/gold_loss", "near/gold_loss", "loss")
    assert names == {f"train/{name}" for name in (*means, "lr", "progress")}
    assert {"val/mood/f1", "val/nli/accuracy", "val/near/spearman"} <= set(found[13])
    assert found[0]["train/lr"] == 0.0
    assert found[4]["train/lr"] == pytest.approx(1e-3 * (1 - 4 / 14) / 0.9)
    assert [found[step]["train/progress"] for step in (0, 4, 13)] == pytest.approx([0, 4 / 14, 13 / 14])


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of progress."""
    return [record.getMessage() for record in caplog.records if record.name == progress.__name__]


@pytest.fixture
def clock(monkeypatch, caplog):
    """A clock that goes on by 31 seconds whenever progress reads it."""
    caplog.set_level(logging.INFO, progress.__name__)
    now = iter(range(0, 1_000_000, 31))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))


def test_a_fit_says_how_far_it_is(system, make_trainer, make_data, parts, caplog, clock):
    """A night in a cluster's log without a line, and no one knows whether it will end in an hour or in a week."""
    make_trainer(callbacks=[LogProgress("student")]).fit(system, datamodule=make_data(parts))
    written = lines(caplog)
    assert written[:3] == [
        f"student: {n} of 14 steps, {left} left" for n, left in ((2, "6 min"), (4, "5 min"), (6, "4 min"))
    ]
    assert [line.split(", ")[0] for line in written[3:]] == [f"student: {n} of 14 steps" for n in (8, 10, 12)]
    assert all(", average " in line for line in written[3:])


def test_a_resumed_fit_counts_its_own_time(system, make_trainer, make_data, parts, tmp_path, caplog, clock):
    """What an earlier run took says nothing of this one."""

    class Kill(Exception):
        pass

    class At(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 8:
                raise Kill

    with pytest.raises(Kill):
        make_trainer(callbacks=[ResumeCheckpoint(None), At()]).fit(system, datamodule=make_data(parts))
    trainer = make_trainer(callbacks=[LogProgress("student")])
    trainer.fit(system, datamodule=make_data(parts), ckpt_path=resume_path(tmp_path / "fit"), weights_only=True)
    written = lines(caplog)
    assert written[0].startswith("student: 9 of 14 steps")
    assert written[0].endswith(", 3 min left")


def test_a_prediction_says_how_far_it_is(system, make_trainer, parts, caplog, clock):
    """A teacher may label for as long as a student trains; of batches, the first are the longest."""
    stream = EvaluationStream(parts[0], batch_size=3, pad_id=0)
    make_trainer(callbacks=[LogProgress("mood train")]).predict(system, dataloaders=stream)
    sizes = [batch["input_ids"].numel() for batch in EvaluationStream(parts[0], batch_size=3, pad_id=0)]
    assert sizes[0] > sizes[-1]
    shown = [int(line.split()[2].replace(",", "")) for line in lines(caplog)]
    assert shown == [sum(sizes[: 2 * n]) for n in range(1, len(shown) + 1)]
    assert lines(caplog)[0].startswith(f"mood train: {sum(sizes[:2]):,} of {sum(sizes):,} tokens, ")


def test_a_bar_of_a_prediction_is_named_and_vanishes(system, parts, tmp_path):
    """Six nameless ones stood above the results."""
    shown = io.StringIO()
    bar = StageProgressBar("mood train", console_kwargs={"file": shown, "force_terminal": True, "width": 80})
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=str(tmp_path), callbacks=[bar], **quiet)
    trainer.predict(system, dataloaders=EvaluationStream(parts[0], batch_size=3, pad_id=0))
    *_, drawn, left = shown.getvalue().split("\n")
    assert "\x1b[2Kmood train " in drawn
    assert left.endswith("\x1b[1A\x1b[2K"), "the bar's line is taken away"


def test_one_process_says_how_far_it_is(system, make_trainer, make_data, parts, caplog, clock, monkeypatch):
    """Of eight processes each would write its lines."""
    trainer = make_trainer(callbacks=[LogProgress("student")])
    monkeypatch.setattr(type(trainer), "is_global_zero", False)
    trainer.fit(system, datamodule=make_data(parts))
    assert lines(caplog) == []


def test_lines_become_rare(monkeypatch, caplog):
    """One a minute for ten minutes, then one in a tenth of the time that has passed: a week has not a thousand."""
    caplog.set_level(logging.INFO, progress.__name__)
    seconds = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    week = 7 * 24 * 60
    done = progress.LoggedProgress("read", week)
    for minute in range(1, week + 1):
        seconds[0] = 60.0 * minute
        done.advance(1)
    assert lines(caplog)[0] == "read: 1 of 10,080, 167 h 59 min left"
    assert 40 < len(lines(caplog)) < 100


@pytest.mark.parametrize(
    ("interval", "accumulated", "evaluated"),
    [
        (3, 1, [2, 5, 6]),
        (math.inf, 1, [6]),
        (None, 1, [6]),
        (7, 1, [6]),
        (1, 1, [6]),
        (2, 2, [6]),
        (4, 2, [3, 6]),
        (3, 4, [2, 5, 6]),
    ],
)
def test_a_batch_that_is_evaluated_is_known(interval, accumulated, evaluated):
    """Of seven; where each step is, a job that is told to end would train on to the end of the epoch."""

    def trainer(batch):
        loop = SimpleNamespace(total_batch_idx=batch)
        known = {"val_check_batch": interval, "accumulate_grad_batches": accumulated, "fit_loop": loop}
        return SimpleNamespace(check_val_every_n_epoch=1, is_last_batch=batch == 6, **known)

    assert [batch for batch in range(7) if is_evaluated(trainer(batch), batch)] == evaluated


def test_an_interval_may_go_over_epochs():
    """Four batches an epoch, an evaluation after every sixth of all."""
    known = {"val_check_batch": 6, "accumulate_grad_batches": 1, "check_val_every_n_epoch": None}
    found = []
    for batch in range(12):
        loop = SimpleNamespace(total_batch_idx=batch)
        trainer = SimpleNamespace(is_last_batch=batch % 4 == 3, fit_loop=loop, **known)
        found += [batch] if is_evaluated(trainer, batch % 4) else []
    assert found == [3, 5, 7, 11]
