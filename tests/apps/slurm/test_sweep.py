"""Sweeps on a real SLURM of one node: preempted, failing and killed jobs, and a second call."""

import csv
import json
import os
import re
import subprocess
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.slurm

OPTIMIZERS = """
import os, signal, time
from pathlib import Path
from torch.optim import AdamW

class Breaks(AdamW):
    def step(self, closure=None):
        if not Path("mended").exists():
            raise RuntimeError("no step")
        return super().step(closure)

class Dies(AdamW):
    def step(self, closure=None):
        if not Path("mended").exists():
            time.sleep(3)  # a dashboard's file has all but the last second
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)

class Slow(AdamW):
    def __init__(self, *args, pause, **settings):
        super().__init__(*args, **settings)
        self.pause = pause

    def step(self, closure=None):
        time.sleep(self.pause * ("SLURM_JOB_ID" in os.environ))
        return super().step(closure)
"""
SHORT, LONG, TWO = {"max_epochs": 1}, {"max_epochs": 60}, {"devices": 2, "strategy": "ddp"}


def slowly(pause):
    """Return the settings of a job that still trains when the slowest of those beside it has begun."""
    return {"optimizer": {"optimizer": {"_target_": "own_optimizers.Slow", "pause": pause}}}


JOBS = {
    "long": {"seed": 1, "trainer": LONG, **slowly(0.05)},
    "ddp": {"seed": 2, "trainer": {**LONG, **TWO}, **slowly(0.05)},
    "first": {"seed": 3, "trainer": SHORT},
    "second": {"seed": 4, "trainer": SHORT},
    "third": {"seed": 5, "trainer": SHORT},
    "broken": {"seed": 6, "trainer": SHORT, "optimizer": {"optimizer": {"_target_": "own_optimizers.Breaks"}}},
    "killed": {"seed": 7, "trainer": SHORT, "optimizer": {"optimizer": {"_target_": "own_optimizers.Dies"}}},
}
TOY = ["--config-dir", "mine", "data=embedded", "task=toy_sentiment", "encoder=tiny", "encoder.hidden_size=16"]
TOY += ["encoder.num_layers=1", "trainer.precision=32-true", "accelerator=cpu"]
SMALL = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
SWEEP = [
    "-m",
    *TOY,
    "name=six",
    "logger=wandb",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.tasks_per_node=2",
    *SMALL,
]


SLOW = {"seed": 8, "trainer": LONG, **slowly(0.2)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the jobs of a sweep as configurations of one's own."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "own_optimizers.py").write_text(OPTIMIZERS)
    (folder / "mine" / "job").mkdir(parents=True)
    for name, settings in {**JOBS, "slow": SLOW}.items():
        (folder / "mine" / "job" / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(settings)}")
    return folder


def begin(command, *arguments, cwd):
    """Start ``python -m kd_lightning.COMMAND``."""
    path = os.pathsep.join(filter(None, (str(cwd), os.environ.get("PYTHONPATH"))))
    with (cwd / "out.txt").open("w") as out, (cwd / "err.txt").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", f"kd_lightning.{command}", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=err,
        )


def end(process, cwd, seconds=300):
    """Return the exit code of a command, what it said, and the lines of its errors."""
    code = process.wait(seconds)
    return code, (cwd / "out.txt").read_text(), (cwd / "err.txt").read_text().splitlines()


def jobs(place, name):
    """Return job -> its folder, of the newest sweep of a name."""
    sweep = max(place.glob(f"outputs/{name}/sweep_*"))
    told = {path.parents[1]: yaml.safe_load(path.read_text()) for path in sweep.glob("*/.hydra/overrides.yaml")}
    return {next(one for one in each if "job=" in one).partition("=")[2]: folder for folder, each in told.items()}


def steps(folder):
    """Return the steps that a job has logged."""
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def at_once(slurm):
    """Let jobs that were queued again begin without SLURM's two minutes between; at once its node would refuse them."""
    lines = slurm("squeue", "-h", "-r", "-o", "%i|%r").split()
    waiting = [line.partition("|")[0] for line in lines if line.endswith("|BeginTime")]
    if waiting:
        time.sleep(3)
    for job in waiting:
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now")


def over(slurm, process, place):
    """Return how a sweep has ended; what is queued again meanwhile begins at once."""

    def ended():
        at_once(slurm)
        return process.poll() is not None

    slurm.until(ended, 300, "the end of the sweep")
    return end(process, place)


def assert_alike(folder, alone):
    """Check that two runs have the same curve, weights and scores."""
    assert (folder / "metrics.csv").read_bytes() == (alone / "metrics.csv").read_bytes()
    of = [json.loads((run / "fit.json").read_text()) for run in (folder, alone)]
    assert of[0]["weights"] == of[1]["weights"]
    assert of[0]["scores"] == of[1]["scores"]


def lacking(place):
    """Return what ``kd-report`` says is missing."""
    line = [sys.executable, "-m", "kd_lightning.report", "outputs/six"]
    report = subprocess.run(line, cwd=place, capture_output=True, text=True)
    assert report.returncode == 0, report.stderr
    return (place / "outputs" / "six" / "report" / "report.md").read_text().partition("What is missing")[2]


@pytest.fixture(scope="module")
def swept(slurm, place):
    """Seven jobs; while the long and the two-task one train, others of a higher priority take the node."""
    process = begin("train", *SWEEP, f"+job={','.join(JOBS)}", cwd=place)
    slurm.until(lambda: len(list(place.glob("outputs/six/sweep_*/[01]/metrics.csv"))) == 2, 300, "two jobs that train")
    (place / "urgent.sh").write_text("#!/bin/sh\nsleep 1\n")
    slurm("sbatch", "-p", "urgent", "-c", "4", "--chdir", str(place), str(place / "urgent.sh"))
    slurm.until(lambda: "BeginTime" in slurm("squeue", "-h", "-r", "-o", "%r"), 60, "a job that is queued again")
    (place / "waiting.md").write_text(lacking(place))

    return over(slurm, process, place)


def test_what_was_preempted_goes_on_to_the_bit(swept, place):
    """One process, and two that SLURM started: with the steps, losses and weights of a run that nobody disturbed."""
    for job in ("long", "ddp"):
        folder = jobs(place, "six")[job]
        log = (folder / "six.log").read_text()
        assert "this job is queued again, and goes on from its last step" in log
        assert ", from step " in log
        code, _, errors = end(
            begin("train", *TOY, f"+job={job}", "name=alone", f"hydra.run.dir={job}", cwd=place), place
        )
        assert code == 0, errors
        assert_alike(folder, place / job)


def test_a_job_that_is_queued_again_waits_and_is_not_missing(swept, place):
    """Who is told that it was interrupted trains it twice."""
    assert ": queued again, and goes on by itself" in (place / "waiting.md").read_text()


def test_failed_and_killed_jobs_are_named_and_end_nothing_else(swept, slurm, place):
    """The launcher has waited for neither in vain: this cluster keeps no accounts."""
    code, _, errors = swept
    folders = jobs(place, "six")
    assert code == 1
    assert [name for name, folder in folders.items() if not (folder / "fit.json").exists()] == ["broken", "killed"]
    *_, broken, killed, last = errors
    assert broken.startswith("kd-train: error: job 5: crashed: RuntimeError: no step; traceback in ")
    assert killed.startswith("kd-train: error: job 6: it has ended without an answer (")
    assert "2 of 7 jobs did not finish: 5 (+job=broken, crashed), 6 (+job=killed, killed); see " in last
    said = lacking(place)
    assert f"{folders['broken'].relative_to(place)} (+job=broken): crashed: RuntimeError: no step" in said
    goes_on = "killed; the same command with ckpt_path=last skip_finished=true goes on"
    assert f"{folders['killed'].relative_to(place)} (+job=killed): {goes_on}" in said
    known = slurm("scontrol", "-o", "show", "job").splitlines()
    ended = {re.search(r"ArrayTaskId=(\d+) ", line)[1]: line for line in known if " ArrayTaskId=" in line}
    assert [number for number, line in ended.items() if "JobState=COMPLETED " not in line] == ["5", "6"]
    assert "JobState=FAILED " in ended["5"]
    assert "ExitCode=1:0 " in ended["5"], "what the job's process has left with, for who waits for it"


def test_one_run_of_a_dashboard_for_each_job(swept, place, wandb_runs):
    """One sweep is one group; what was preempted goes on with its run, and its two files make one curve."""
    for name, folder in jobs(place, "six").items():
        runs = wandb_runs(folder, patience=1 if name == "killed" else 20)
        assert len({run["id"] for run in runs}) == 1
        assert len(runs) == (2 if name in ("long", "ddp") else 1)
        assert {run["group"] for run in runs} == {folder.parent.name}
        assert {run["config"]["seed"] for run in runs} == {JOBS[name]["seed"]}
        rows = [row["trainer/global_step"] for run in runs for row in run["history"] if "val/average" in row]
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert all({key: run["config"].get(key) for key in config} == config for run in runs)
        if name in ("broken", "killed"):
            assert (rows, runs[0]["exit"]) == ([], 1 if name == "broken" else None)
            continue
        assert runs[-1]["exit"] == 0
        assert rows == [step for step in steps(folder) if step in rows]
        assert len(rows) == JOBS[name]["trainer"]["max_epochs"]
        score = json.loads((folder / "fit.json").read_text())["scores"]["toy_sentiment"]["accuracy"]
        assert runs[-1]["summary"]["final/toy_sentiment/accuracy"] == pytest.approx(score)


def test_a_second_call_runs_what_is_missing(swept, place):
    """Once what was wrong is mended."""
    before = jobs(place, "six")
    (place / "mended").touch()
    code, _, errors = end(begin("train", *SWEEP, f"+job={','.join(JOBS)}", "skip_finished=true", cwd=place), place)
    assert code == 0, errors
    for name, folder in jobs(place, "six").items():
        if name in ("broken", "killed"):
            assert (folder / "fit.json").exists()
            continue
        assert not (folder / "fit.json").exists()
        elsewhere = (folder / "finished_in.txt").read_text().strip()
        assert (folder / elsewhere).resolve() == before[name].resolve()
    assert lacking(place) == ""


def test_a_job_that_reaches_its_time_limit_goes_on_to_the_bit(slurm, place):
    """Two minutes for each place, and the signal after one; submitit counts how often."""
    limit = ["hydra/launcher=slurm_cpu", "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=60", *SMALL]
    sweep = begin("train", "-m", *TOY, "name=timed", *limit, "+job=slow", "seed=8,9", cwd=place)
    code, _, errors = over(slurm, sweep, place)
    assert (code, errors) == (0, [])
    folder = next(place.glob("outputs/timed/sweep_*/0"))
    assert (folder / "timed.log").read_text().count("this job is queued again, and goes on from its last step") >= 1
    alone = begin("train", *TOY, "+job=slow", "seed=8", "name=alone", "hydra.run.dir=slow", cwd=place)
    assert end(alone, place)[0] == 0
    assert_alike(folder, place / "slow")
