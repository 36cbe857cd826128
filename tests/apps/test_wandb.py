"""Runs in Weights & Biases, read back from the files that they are without a key."""

import json

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning import loggers
from kd_lightning.apps.results.job_run import summary_numbers
from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.errors import UserError
from kd_lightning.loggers import WandbRun, finished, wandb_run
from kd_lightning.systems import NLUSystem

SMALL = ["task=[animals]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "logger=wandb"]
SMALL += ["trainer.log_every_n_steps=1"]

pytestmark = pytest.mark.usefixtures("no_key")


def test_jobs_and_fits_are_runs_of_their_own(kd, workplace, wandb_runs):
    """Two jobs in one process, one run for both: the second one's settings over the first one's curves."""
    jobs = [kd("distill", *SMALL, f"seed={seed}") for seed in (1, 2)]
    found = wandb_runs(workplace / "outputs")
    kinds = sorted(run["kind"] for run in found)
    assert kinds == ["baseline"] * 2 + ["distill"] * 2 + ["student"] * 2 + ["teacher"], "the teacher is found again"
    assert {run["exit"] for run in found} == {0}
    assert len({run["id"] for run in found}) == len(found)
    for seed, folder in enumerate(jobs, 1):
        (job,) = wandb_runs(folder)
        summary = json.loads((folder / "summary.json").read_text())
        assert job["name"].endswith(f"seed={seed}")
        assert job["config"]["seed"] == seed
        assert job["config"]["distill_loss"]["temperature"] == 1.0, "resolved, not ${...}"
        row = summary["tasks"]["animals"]
        assert job["summary"]["tasks/animals/student"] == row["student"]
        assert job["summary"]["tasks/animals/gain"] == pytest.approx(row["student"] - row["baseline"])
        assert job["summary"]["objective"] == summary["objective"]
        assert job["summary"]["latency_ms/student"] > 0
        assert job["summary"]["status"] == "finished"
        assert {run["group"] for run in found if run["config"]["seed"] == seed and run["kind"] == "student"} == {
            folder.name
        }
        assert {"distill", "BamStudent", "animals"} <= set(job["tags"])
    student = next(run for run in found if run["kind"] == "student")
    steps = [row["trainer/global_step"] for row in student["history"] if "train/loss" in row]
    assert steps == list(range(len(steps)))
    assert len(steps) == 6
    scores = [row["val/animals/accuracy"] for row in student["history"] if "val/animals/accuracy" in row]
    assert student["summary"]["val/animals/accuracy"] == {"max": max(scores)}
    assert student["summary"]["final/animals/accuracy"] == scores[-1]


def test_a_sweep_is_a_group(kd, monkeypatch, wandb_runs):
    """The name of its folder, which launchers give each of its jobs."""

    def in_sweep(self, *arguments):
        now = HydraConfig.instance().cfg
        OmegaConf.set_readonly(now.hydra, False)
        now.hydra.mode, now.hydra.sweep.dir = RunMode.MULTIRUN, "outputs/mine/sweep_x"
        return prepare(self, *arguments)

    from kd_lightning.apps.fits.fit import Fit

    prepare = Fit.check
    monkeypatch.setattr(Fit, "check", in_sweep)
    settings = ["system=teacher", "task=[animals]", "trainer.max_epochs=1", "logger=wandb", "seed=3"]
    (run,) = wandb_runs(kd("train", *settings))
    assert run["group"] == "sweep_x"
    assert run["kind"] == "teacher"
    assert run["name"].startswith("train data=files")
    assert run["name"].endswith("system=teacher task=[animals] trainer.max_epochs=1 seed=3")
    assert len(run["name"]) == 120
    assert "seed" not in run["config"]["job"]["settings"]


@pytest.mark.parametrize(("error", "code"), [(UserError("no"), 1), (ValueError("no"), 1), (KeyboardInterrupt(), 255)])
def test_what_ends_a_job_ends_its_runs(kd, workplace, monkeypatch, error, code, wandb_runs):
    """A run that nobody ends is shown as running for ever, and the next job writes into it."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(NLUSystem, "validation_step", fail)
    with pytest.raises(type(error)):
        kd("distill", *SMALL)
    found = wandb_runs(workplace / "outputs")
    assert [(run["kind"], run["exit"]) for run in found] == [("distill", code), ("teacher", code)]
    assert found[0]["summary"]["status"] == ("interrupted" if code == 255 else "failed")
    assert not wandb_run.open_runs


def test_what_goes_on_goes_on_with_its_run(kd, workplace, monkeypatch, wandb_runs):
    """A second run for the second half."""
    save = ResumeCheckpoint.save

    def interrupt(callback, trainer):
        save(callback, trainer)
        raise KeyboardInterrupt

    settings = ["system=teacher", "task=animals", "trainer.max_epochs=2", "logger=wandb"]
    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kd("train", *settings, folder="outputs/one")
    kd("train", *settings, "ckpt_path=last", folder="outputs/one")
    first, second = wandb_runs(workplace / "outputs" / "one")
    assert first["id"] == second["id"]
    assert (first["exit"], second["exit"]) == (255, 0)
    kd("train", *settings, folder="outputs/two")
    (third,) = wandb_runs(workplace / "outputs" / "two")
    assert third["id"] != first["id"], "the same settings in another folder are another run"


def test_two_processes_write_one_whole_run(kd, wandb_runs):
    """Opened in a process that the fit forks, it would be empty."""
    length = ["trainer.max_epochs=-1", "trainer.max_steps=4", "trainer.log_every_n_steps=1"]
    settings = ["system=teacher", "task=animals", *length, "logger=wandb", "accelerator=ddp_cpu"]
    (run,) = wandb_runs(kd("train", *settings))
    assert [row["trainer/global_step"] for row in run["history"] if "train/loss" in row] == [0, 1, 2, 3]
    assert "final/animals/accuracy" in run["summary"]
    assert run["exit"] == 0


def test_an_evaluation_is_a_run(kd, wandb_runs):
    trained = kd("train", "system=teacher", "task=animals", "trainer.max_epochs=1")
    (run,) = wandb_runs(kd("evaluate", f"run={trained}", "logger=wandb"))
    assert run["kind"] == "evaluate"
    summary = run["summary"]
    both = [summary[f"scores/animals/{metric}"] for metric in ("accuracy", "f1")]
    assert summary["average"] == pytest.approx(sum(both) / 2)


def test_in_a_sweep_of_the_service_the_job_is_its_run(kd, workplace, monkeypatch, wandb_runs):
    """All runs of a process that an agent starts get the id that it gives: fits would write over the job."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    kd("distill", *SMALL)
    assert [run["kind"] for run in wandb_runs(workplace / "outputs")] == ["distill"]


def test_without_a_key_nobody_is_asked_for_one(kd, wandb_runs):
    """``offline=false`` would stop at a question, or at an error after the teachers."""
    settings = ["system=teacher", "task=animals", "trainer.max_epochs=1", "logger=wandb", "logger.wandb.offline=false"]
    assert len(wandb_runs(kd("train", *settings))) == 1


def test_a_service_that_is_not_there_is_a_warning(tmp_path, caplog, monkeypatch, wandb_runs):
    """Runs are files, then; and the next one does not wait again."""
    import wandb

    asked, init = [], wandb.init

    def unreachable(mode, **settings):
        asked.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no route to host")
        return init(mode=mode, **settings)

    monkeypatch.setattr(wandb, "init", unreachable)
    monkeypatch.setattr(WandbRun, "_unreachable", False)
    for name in ("one", "two"):
        run = WandbRun(str(tmp_path / name), "p", name=name)
        with finished([run]):
            run.log_hyperparams({})
            run.log_metrics({"x": 1.0})
    assert asked == ["online", "offline", "offline"]
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "wandb: no route to host; runs are written to files, which wandb sync sends"
    assert [run["history"][0]["x"] for run in wandb_runs(tmp_path)] == [1, 1]


def test_a_run_that_breaks_is_a_warning(tmp_path, caplog):
    """A training of days ends because a dashboard does."""
    run = WandbRun(str(tmp_path), "p", name="mine", offline=True)
    with finished([run]):
        run.log_hyperparams({})
        run._run.finish()
        run.log_metrics({"x": 1.0}, step=1)
        run.log_metrics({"x": 2.0}, step=2)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("wandb: ")
    assert warning.endswith("; mine goes on without it")


def test_a_process_that_leaves_ends_its_runs(tmp_path, wandb_runs):
    """What a job that is queued again does, which must not raise anything."""
    made = [WandbRun(str(tmp_path / name), "p", name=name, offline=True) for name in ("job", "fit")]
    for run in made:
        run.log_hyperparams({})
    loggers.finish_open_runs(1)
    assert [run["exit"] for run in wandb_runs(tmp_path)] == [1, 1]


def test_gains_are_of_scores_alone():
    """The seconds of the student less those of the baseline are no gain."""
    summary = {"average": {"student": 0.5, "baseline": 0.25, "teacher": None}, "seconds": {"student": 2.0}}
    summary["seconds"]["baseline"] = 1.0
    found = {"average/student": 0.5, "average/baseline": 0.25, "average/gain": 0.25}
    assert summary_numbers(summary) == found | {"seconds/student": 2.0, "seconds/baseline": 1.0}
