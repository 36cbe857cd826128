"""Runs in Weights & Biases, read back from the files that they are without a key."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from wandb.sdk.lib.wbauth import read_netrc_auth

from kd_lightning.apps import train
from kd_lightning.apps.fits.dashboards import OWN_ID, Shown, run_id
from kd_lightning.apps.results.job_run import summary_numbers
from kd_lightning.apps.settings.wandb_key import has_wandb_key
from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.errors import UserError
from kd_lightning.files import write_text
from kd_lightning.loggers import MlflowRun, WandbRun, ending, finished, wandb_run
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

    def in_sweep(*arguments):
        now = HydraConfig.instance().cfg
        OmegaConf.set_readonly(now.hydra, False)
        now.hydra.mode, now.hydra.sweep.dir = RunMode.MULTIRUN, "outputs/mine/sweep_x"
        return prepare(*arguments)

    prepare = train.check_fit
    monkeypatch.setattr(train, "check_fit", in_sweep)
    settings = ["system=teacher", "task=[animals]", "trainer.max_epochs=1", "logger=wandb", "seed=3"]
    (run,) = wandb_runs(kd("train", *settings))
    assert run["group"] == "sweep_x"
    assert run["kind"] == "teacher"
    assert run["name"].startswith("train data=files")
    assert run["name"].endswith("system=teacher task=[animals] trainer.max_epochs=1 seed=3")
    assert len(run["name"]) == 120
    assert "seed" not in run["config"]["job"]["settings"]


def test_a_name_from_other_settings_is_a_run(kd, wandb_runs):
    """A logger is told the arguments, and its settings are resolved once more, where there is no ``seed``."""
    (run,) = wandb_runs(kd("train", "system=teacher", *SMALL[:2], "logger=wandb", "seed=3", "name='x_${seed}'"))
    assert run["name"].endswith("seed=3 name='x_{seed}'")
    assert "x_3" in run["tags"]
    assert "name='x_{seed}'" in run["config"]["job"]["settings"]
    assert run["config"]["name"] == "x_3"


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
    time.sleep(1)  # the library names a run's folder by its id and the second
    kd("train", *settings, "ckpt_path=last", folder="outputs/one")
    first, second = wandb_runs(workplace / "outputs" / "one")
    assert first["id"] == second["id"]
    assert (first["exit"], second["exit"]) == (255, 0)
    kd("train", *settings, folder="outputs/two")
    (third,) = wandb_runs(workplace / "outputs" / "two")
    assert third["id"] != first["id"], "the same settings in another folder are another run"
    kd("train", *settings, folder="outputs/one")
    fourth = wandb_runs(workplace / "outputs" / "one")[-1]
    assert fourth["id"] not in (first["id"], third["id"]), "what begins anew is another run, in the same folder, too"


def test_a_job_that_is_queued_again_goes_on_with_its_run(kd, workplace, monkeypatch, wandb_runs):
    """Of an interrupted job; what has ended well is begun anew, and its run is left as it is."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NLUSystem, "validation_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kd("distill", *SMALL, folder="outputs/job")
    time.sleep(1)
    for _ in range(2):
        kd("distill", *SMALL, folder="outputs/job")
    first, second, third = (run["id"] for run in wandb_runs(workplace / "outputs" / "job"))
    assert first == second != third


def test_a_job_of_other_settings_has_a_run_of_its_own(kd, workplace, monkeypatch, wandb_runs):
    """The curve of one seed, and that of the next one on top of it: a folder that is told twice."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NLUSystem, "validation_step", interrupt)
        for told in ("seed=1", "seed=2", "skip_finished=true seed=2"):
            with pytest.raises(KeyboardInterrupt):
                kd("distill", *SMALL, *told.split(), folder="outputs/job")
    runs = wandb_runs(workplace / "outputs" / "job")  # in any order: they begin in one second
    assert sorted(run["config"]["seed"] for run in runs) == [1, 2, 2]
    assert len({(run["id"], run["config"]["seed"]) for run in runs}) == len({run["id"] for run in runs}) == 2


@pytest.mark.parametrize("stage", ["distill", "teacher rte", "teacher " + "long" * 40])
def test_a_folder_keeps_the_id_of_one_purpose(tmp_path, stage):
    """Also of a name that the service would not take whole, with letters that it would not take."""
    shown = Shown(stage, stage, stage, "0123456789abcdef", tmp_path, resumed=True)
    known = run_id(shown)
    assert run_id(shown) == known
    assert re.fullmatch(r"[\w-]{1,128}", known)
    for other in (replace(shown, identity="f" * 16), replace(shown, stage=f"{stage}s"), replace(shown, resumed=False)):
        write_text(tmp_path / OWN_ID, known)
        assert run_id(other) != known
    for damaged in ("", f"{known}-1", known[:-1]):
        write_text(tmp_path / OWN_ID, damaged)
        assert run_id(shown) not in (damaged, known)


def test_the_command_of_the_docs_finds_all_runs(kd, workplace):
    """Those of single jobs, of a sweep's, and of fits in the store; each once, and the older of a fit's two first."""
    text = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
    command = re.search(r"`(find outputs .*? \| sort -z) \| xargs -0 wandb sync`", text)[1]
    train = ["system=teacher", "task=animals", "trainer.max_epochs=1", "logger=wandb"]
    for _ in range(2):
        kd("train", *train, folder="outputs/train/one")
    kd("distill", *SMALL, folder="outputs/distill/sweep_x/0")
    (workplace / "outputs" / "train" / "one").rename(workplace / "outputs" / "train" / "it's one")
    found = subprocess.check_output(command, shell=True, cwd=workplace, text=True).split("\0")[:-1]
    there = {str(path.parent.relative_to(workplace)) for path in workplace.rglob("*.wandb")}
    assert set(found) == there
    assert len(found) == len(there) == 2 + 4
    assert found == sorted(found)


def test_two_processes_write_one_whole_run(kd, wandb_runs):
    """A process beside the first would write a second one."""
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


def test_a_service_that_is_not_there_costs_no_run(tmp_path, wandb_runs):
    """The library keeps the id of the run that it could not begin: the same run, as files, is refused."""
    code = "from kd_lightning.loggers import WandbRun, finished\n"
    code += "for name in ('one', 'two'):\n    run = WandbRun(name, 'p', name=name, id=f'mine-{name}', timeout=1)\n"
    code += "    with finished([run]):\n        run.log_hyperparams({})\n        run.log_metrics({'x': 1.0})\n"
    mine = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_SILENT": "true"}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **mine}, check=True, capture_output=True
    )
    (warning,) = told.stderr.decode().splitlines()
    assert warning.startswith("wandb: ")
    assert warning.endswith("; runs are written to files, which wandb sync sends")
    found = wandb_runs(tmp_path)
    assert [run["history"][0]["x"] for run in found] == [1, 1]
    assert [run["id"] for run in found] == ["mine-one-offline", "mine-two"]


@pytest.mark.parametrize(
    ("error", "times", "said"),
    [
        (wandb.errors.CommError("no route to host"), 1, "no route to host; runs are written to files"),
        (TimeoutError("60 s"), 1, "60 s; runs are written to files"),
        (wandb.errors.AuthenticationError("key too short"), 2, "key too short; one is written to files"),
        (wandb.errors.UsageError("invalid tag"), 2, "invalid tag; one is written to files"),
    ],
)
def test_only_a_service_that_does_not_answer_is_given_up(tmp_path, caplog, monkeypatch, wandb_runs, error, times, said):
    """A run that the service refuses says nothing of the next one, which the service may take."""
    asked, init = [], wandb.init

    def refuse(mode, **settings):
        asked.append(mode)
        if mode == "online":
            raise error
        return init(mode=mode, **settings)

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr(WandbRun, "_unreachable", False)
    for name in ("one", "two"):
        run = WandbRun(str(tmp_path / name), "p", name=name)
        with finished([run]):
            run.log_hyperparams({})
            run.log_metrics({"x": 1.0})
    assert asked.count("online") == times
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == times
    assert warnings[0] == f"wandb: {said}, which wandb sync sends"
    assert [run["history"][0]["x"] for run in wandb_runs(tmp_path)] == [1, 1]


def test_a_run_that_breaks_is_a_warning_and_is_ended(tmp_path, caplog, monkeypatch, wandb_runs):
    """A training of days ends because a dashboard does; or the run is shown as running for ever."""
    run = WandbRun(str(tmp_path), "p", name="mine", offline=True)
    with finished([run]):
        run.log_hyperparams({})
        monkeypatch.setattr(type(run._run), "log", lambda *_: 1 / 0)
        run.log_metrics({"x": 1.0}, step=1)
        run.log_metrics({"x": 2.0}, step=2)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "wandb: division by zero; mine goes on without it"
    (found,) = wandb_runs(tmp_path)
    assert found["exit"] == 1


@pytest.mark.slow
def test_a_scheduler_ends_the_library_too(tmp_path, wandb_runs):
    """Fifteen seconds of each curve are lost at each preemption, and the library's traceback is all that is told."""
    code = f"""
import os, signal, subprocess, time
from pathlib import Path
from kd_lightning.loggers import WandbRun, finished
for name in ("one", "two"):
    run = WandbRun("runs", "p", name=name, id=name, offline=True)
    with finished([run]):
        run.log_hyperparams({{}})
        run.log_metrics({{"x": 1.0}}, step=1)
        if name == "one":
            time.sleep(3 * float({wandb_run.FLUSHED[1]}))
            mine = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
            os.kill(int(mine.stdout), signal.SIGTERM)
            while Path("/proc", mine.stdout.strip(), "cmdline").read_bytes():  # empty once it has ended
                time.sleep(0.1)
            run.log_metrics({{"x": 2.0}}, step=2)
            time.sleep(1)
            run.log_metrics({{"x": 3.0}}, step=3)
"""
    environment = {**os.environ, "WANDB_SILENT": "true"}
    environment.pop("WANDB_SERVICE", None)  # of the process that runs this test
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert told.stderr == "wandb: its own process has ended; one goes on without it\n"
    assert [len(run["history"]) for run in wandb_runs(tmp_path, patience=1)] == [1, 1]


@pytest.mark.parametrize("error", [ConnectionResetError("Connection lost"), OSError(104, "reset"), BrokenPipeError()])
def test_a_process_that_has_gone_is_told_as_that(tmp_path, caplog, monkeypatch, error):
    """On a busy machine it was ``[Errno 104] Connection reset by peer``."""

    def gone(*values):
        raise error

    run = WandbRun(str(tmp_path), "p", name="mine", offline=True)
    run._run = SimpleNamespace(log=gone, finish=gone)
    run.log_metrics({"x": 1.0}, step=1)
    assert caplog.messages == ["wandb: its own process has ended; mine goes on without it"]


def test_an_end_is_not_waited_for_without_end(tmp_path, caplog, monkeypatch):
    """The library's process may hang, as on a disk that is gone; the model is trained, and the command waits."""
    monkeypatch.setattr(wandb_run, "GRACE", 0.0)
    run = WandbRun(str(tmp_path), "p", name="mine", offline=True, timeout=0.01)
    answered = threading.Event()
    run._run = SimpleNamespace(finish=lambda exit_code: answered.wait())
    run.finish()
    answered.set()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "has not answered" in warning


def test_a_signal_leaves_services_little_time(tmp_path, caplog, monkeypatch):
    """Two minutes for two services that hang, of the two that a scheduler gives: the job is not queued again."""
    monkeypatch.setattr(ending, "HURRY", 0.2)
    answered, quick = threading.Event(), []
    runs = [WandbRun(str(tmp_path), "p", name=name, offline=True) for name in ("hangs", "answers")]
    runs.append(MlflowRun("p", str(tmp_path / "mlflow.db"), run_name="hangs, too"))
    runs[0]._run = SimpleNamespace(finish=lambda exit_code: answered.wait(60))
    runs[1]._run = SimpleNamespace(finish=lambda exit_code: quick.append(exit_code))
    runs[2]._run = SimpleNamespace(finalize=lambda status: answered.wait(60))
    with pytest.raises(KeyboardInterrupt), finished(runs):
        raise KeyboardInterrupt
    answered.set()
    assert quick == [255]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.partition(":")[0] for warning in warnings] == ["hangs", "hangs, too"]


NETRCS = [
    "",
    "machine api.wandb.ai\n  login user\n  password {key}\n",
    "machine api.forge.coreweave.com\n  login user\n  password {key}\n",
    "machine wandb.example.org:8080\n  login user\n  password {key}\n",
    "machine example.org\n  login wandb\n  password {key}\n",
    "default login user password {key}\n",
    "machine api.wandb.ai login\n  password\n# wandb\n",
]


@pytest.mark.parametrize("url", ["", "https://api.wandb.ai", "http://wandb.example.org:8080/", "https://example.com"])
@pytest.mark.parametrize("text", NETRCS)
@pytest.mark.parametrize("noted", [False, True])
def test_a_key_is_where_the_library_finds_it(tmp_path, monkeypatch, text, url, noted):
    """Another machine's password in a netrc that speaks of wandb is no key, and a question stops the job."""
    (tmp_path / "netrc").write_text(text.format(key="0" * 40))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if noted:  # as `wandb login --host` does
        (tmp_path / "settings").write_text(f"[default]\nbase_url = {url}\n" if url else "[default]\n")
    elif url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
    assert has_wandb_key() == (read_netrc_auth(host=url or wandb.Settings().base_url) is not None)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_key_of_the_environment_is_one(monkeypatch, name):
    assert not has_wandb_key()
    monkeypatch.setenv(name, "0" * 40)
    assert has_wandb_key()


def test_gains_are_of_scores_alone():
    """The seconds of the student less those of the baseline are no gain."""
    summary = {"average": {"student": 0.5, "baseline": 0.25, "teacher": None}, "seconds": {"student": 2.0}}
    summary["seconds"]["baseline"] = 1.0
    found = {"average/student": 0.5, "average/baseline": 0.25, "average/gain": 0.25}
    assert summary_numbers(summary) == found | {"seconds/student": 2.0, "seconds/baseline": 1.0}
