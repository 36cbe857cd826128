"""Runs in MLflow, read back from the store that is a file."""

import logging
import multiprocessing
import shutil
import sqlite3

import pytest

pytest.importorskip("mlflow")

from kd_lightning.errors import UserError
from kd_lightning.loggers import MlflowRun, finished
from kd_lightning.systems import NLUSystem

pytestmark = pytest.mark.filterwarnings("ignore")  # SQLAlchemy's, of MLflow
SMALL = ["system=teacher", "task=animals", "trainer.max_epochs=1", "logger=mlflow"]


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A store without runs: MLflow takes seconds to make its tables."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with finished([run := MlflowRun("none", f"sqlite:///{path}")]):
        run.log_hyperparams({})
    with sqlite3.connect(path) as store:
        for table in ("tags", "runs", "experiments"):
            store.execute(f"DELETE FROM {table}")
    return path


@pytest.fixture
def made(workplace, empty):
    """A store that is there already."""
    (workplace / "outputs").mkdir()
    shutil.copy(empty, workplace / "outputs" / "mlflow.db")


@pytest.fixture
def stored(workplace):
    """Return a function: the runs of the store, each with its experiment, its settings, its last values."""

    def read():
        with sqlite3.connect(workplace / "outputs" / "mlflow.db") as store:
            runs = store.execute(
                "SELECT run_uuid, r.name, e.name, status FROM runs r JOIN experiments e USING (experiment_id)"
            ).fetchall()
            found = [{"name": name, "experiment": of, "status": status} for _, name, of, status in runs]
            for run, (uuid, *_) in zip(found, runs, strict=True):
                for key, table in (("told", "params"), ("last", "latest_metrics")):
                    run[key] = dict(store.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", [uuid]))
        return found

    return read


def test_each_fit_and_each_evaluation_is_a_run(kd, made, stored):
    """One store for all of them, with what each was told and has logged."""
    trained = kd("train", *SMALL)
    kd("evaluate", f"run={trained}", "logger=mlflow")
    fit, evaluation = stored()
    assert (fit["experiment"], fit["status"], fit["told"]["seed"]) == ("train", "FINISHED", "1")
    assert (evaluation["experiment"], evaluation["status"]) == ("evaluate", "FINISHED")
    assert evaluation["last"]["scores/animals/accuracy"] == pytest.approx(fit["last"]["val/animals/accuracy"])
    assert evaluation["told"]["run"] == str(trained)


def test_a_distillation_is_a_run_beside_its_fits(kd, made, stored):
    """Which has the gain, that no fit knows."""
    kd("distill", "task=[animals]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "logger=mlflow")
    runs = stored()
    assert len(runs) == 4
    (job,) = [run for run in runs if "tasks/animals/gain" in run["last"]]
    assert job["last"]["tasks/animals/gain"] == pytest.approx(
        job["last"]["tasks/animals/student"] - job["last"]["tasks/animals/baseline"]
    )


@pytest.mark.parametrize(("error", "status"), [(UserError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_what_ends_a_fit_ends_its_run(kd, made, monkeypatch, stored, error, status):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(NLUSystem, "validation_step", fail)
    with pytest.raises(type(error)):
        kd("train", *SMALL)
    assert [run["status"] for run in stored()] == [status]


def log_rows(name, begin):
    """Write a run of twenty rows; what is said goes to a file."""
    logging.basicConfig(filename=f"{name}.log", force=True)
    begin.wait()
    with finished([run := MlflowRun("mine", "sqlite:///outputs/mlflow.db", name)]):
        run.log_hyperparams({"a": 1})
        for step in range(20):
            run.log_metrics({"x": float(step)}, step)


def test_two_processes_begin_one_store(workplace, stored):
    """As two jobs of a sweep do: each makes the tables, and fails at those of the other."""
    forked = multiprocessing.get_context("fork")
    begin = forked.Event()
    each = [forked.Process(target=log_rows, args=(name, begin)) for name in ("one", "two")]
    for one in each:
        one.start()
    begin.set()
    for one in each:
        one.join(60)
    assert [one.exitcode for one in each] == [0, 0]
    said = [(workplace / f"{name}.log").read_text() for name in ("one", "two")]
    assert not any("goes on without it" in text for text in said), said
    assert sorted(run["name"] for run in stored()) == ["one", "two"]
    assert [run["status"] for run in stored()] == ["FINISHED"] * 2
    with sqlite3.connect(workplace / "outputs" / "mlflow.db") as store:
        assert store.execute("SELECT count(*) FROM metrics").fetchone() == (40,)


def test_a_store_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    """A training of days ends because a dashboard does."""
    (tmp_path / "mlflow.db").write_text("something else, of many words")
    run = MlflowRun("mine", f"sqlite:///{tmp_path}/mlflow.db", "one")
    with finished([run]):
        run.log_hyperparams({"a": 1})
        run.log_metrics({"x": 1.0}, 1)
    (warning,) = [record.message for record in caplog.records if record.name.startswith("kd_lightning")]
    assert warning.startswith("mlflow: ")
    assert warning.endswith("; one goes on without it")
