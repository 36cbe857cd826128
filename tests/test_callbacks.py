"""What is written while a fit runs: one checkpoint that is always whole, and a table that has no gaps or repeats."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from kd_lightning import callbacks as module
from kd_lightning.callbacks import MetricsCsv, ResumeCheckpoint, resume_path
from kd_lightning.errors import UserError
from kd_lightning.heads import linear_head
from kd_lightning.optim import BertAdam, LayerwiseOptimizer, LinearWarmup
from kd_lightning.systems import Teacher


def rows(path: Path) -> dict[int, dict[str, float]]:
    """Return step -> name -> value of a table, empty cells left out."""
    with path.open(newline="") as file:
        return {int(r.pop("step")): {k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)}


@pytest.fixture
def logger(tmp_path):
    """Return a function: a new logger of the same folder."""
    return lambda: MetricsCsv(str(tmp_path / "run"))


def test_values_of_a_step_share_a_row(logger):
    """Lightning logs losses and scores apart; two rows for one step double every curve."""
    one = logger()
    one.log_metrics({"train/loss": 0.5}, step=3)
    one.log_metrics({"val/average": 0.7}, step=3)
    one.log_metrics({"train/loss": 0.25, "train/lr": 0.1}, step=4)
    one.save()
    assert rows(one.path) == {3: {"train/loss": 0.5, "val/average": 0.7}, 4: {"train/loss": 0.25, "train/lr": 0.1}}
    assert one.path.read_text().splitlines()[0] == "step,train/loss,val/average,train/lr"


def test_rows_stand_in_order_of_steps(logger):
    """A table in the order of writing has its evaluation rows after later steps."""
    one = logger()
    for step in (2, 0, 1):
        one.log_metrics({"x": step}, step=step)
    one.finalize("success")
    assert list(rows(one.path)) == [0, 1, 2]
    assert rows(one.path)[2] == {"x": 2.0}


def test_new_columns_keep_old_rows(logger):
    """A header written with the first row has no place for the first evaluation."""
    one = logger()
    one.log_metrics({"x": 1.0}, step=0)
    one.save()
    one.log_metrics({"y": 2.0}, step=1)
    one.save()
    assert rows(one.path) == {0: {"x": 1.0}, 1: {"y": 2.0}}


def test_a_resumed_run_continues_the_table(logger):
    """Steps that are done again after a crash stand twice; or the table starts anew and the first half is gone."""
    one = logger()
    for step in range(6):
        one.log_metrics({"x": step}, step=step)
    one.save()
    two = logger()
    two.truncate(4)
    for step in (4, 5, 6):
        two.log_metrics({"x": 10 * step}, step=step)
    two.save()
    assert {step: row["x"] for step, row in rows(two.path).items()} == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60}


def test_rows_after_the_checkpoint_go(logger):
    """Rows of steps that are being done again stand beside those of the new run, and are not its own."""
    one = logger()
    for step in range(6):
        one.log_metrics({"x": step}, step=step)
    one.save()
    two = logger()
    two.truncate(3)
    assert set(rows(two.path)) == {0, 1, 2}
    two.truncate(0)
    assert not two.path.exists()


def test_a_second_logger_joins_the_table(logger):
    """Scores after the fit, from a process that did not train: they must not wipe the curves of the one that did."""
    one, two = logger(), logger()
    one.log_metrics({"x": 1.0}, step=0)
    one.log_metrics({"x": 2.0}, step=1)
    one.save()
    two.log_metrics({"y": 3.0}, step=0)
    two.save()
    assert rows(two.path) == {0: {"x": 1.0, "y": 3.0}, 1: {"x": 2.0}}


def test_a_damaged_table_is_named(logger):
    """A raw KeyError after hours of training."""
    one = logger()
    one.path.parent.mkdir()
    one.path.write_text("time,loss\n1,2\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged, expected a column 'step'"):
        one.log_metrics({"x": 1.0}, step=1)


def test_a_run_that_logs_nothing_keeps_the_table(logger):
    """A resumed run that stops before its first step must not empty the table."""
    one = logger()
    one.log_metrics({"x": 1.0}, step=0)
    one.save()
    two = logger()
    two.finalize("failed")
    assert rows(one.path) == {0: {"x": 1.0}}


def test_the_table_is_replaced_whole(logger, monkeypatch):
    """Written in place, a crash in the middle of a save leaves half a table."""
    one = logger()
    one.log_metrics({"x": 1.0}, step=0)
    one.save()
    before = one.path.read_bytes()
    one.log_metrics({"x": 2.0}, step=1)
    monkeypatch.setattr(module.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        one.save()
    assert one.path.read_bytes() == before


@pytest.fixture
def system(spec, tokenizer, toys):
    """Return a new teacher of the toy tasks."""
    return Teacher(
        encoder=spec.build(len(tokenizer)),
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
    assert names == {f"train/{x}" for x in ("mood/gold_loss", "nli/gold_loss", "near/gold_loss", "loss", "lr")}
    assert {"val/mood/f1", "val/nli/accuracy", "val/near/spearman"} <= set(found[13])
    assert found[0]["train/lr"] == 0.0
    assert found[4]["train/lr"] == pytest.approx(1e-3 * (1 - 4 / 14) / 0.9)
