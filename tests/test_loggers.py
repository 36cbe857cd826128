"""``metrics.csv``: one row per step, no gaps and no repeats, whole at any time."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from kd_lightning.errors import UserError
from kd_lightning.loggers import MetricsCsv


def rows(path: Path) -> dict[int, dict[str, float]]:
    """Return step -> name -> value of a table, empty cells left out."""
    with path.open(newline="") as file:
        return {int(r.pop("step")): {k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)}


@pytest.fixture
def logger(tmp_path):
    """Return a function: a new logger of the same folder."""
    return lambda: MetricsCsv(str(tmp_path / "run"))


def log_steps(table: MetricsCsv, steps: int) -> None:
    """Log a value per step, and save."""
    for step in range(steps):
        table.log_metrics({"x": step}, step=step)
    table.save()


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
    log_steps(logger(), 6)
    two = logger()
    two.truncate(4)
    for step in (4, 5, 6):
        two.log_metrics({"x": 10 * step}, step=step)
    two.save()
    assert {step: row["x"] for step, row in rows(two.path).items()} == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60}


def test_rows_after_the_checkpoint_go(logger):
    """Rows of steps that are being done again stand beside those of the new run, and are not its own."""
    log_steps(logger(), 6)
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
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        one.finalize("success")
    one.finalize("failed")  # what has failed is told, and not this
    assert one.path.read_bytes() == before
    assert [path.name for path in one.path.parent.iterdir()] == ["metrics.csv"]
