"""Sweeps as people run them: jobs that fail beside those that do not, under each launcher, and a second call."""

import errno
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.apps.command_line import jobs as jobs_of_sweeps
from kd_lightning.apps.command_line import sweep_start, sweeps, workers
from kd_lightning.apps.command_line.cli import composed_in_one_line
from kd_lightning.apps.command_line.ending import told_in_one_line
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import goes_on, marked_as_running, state_of
from kd_lightning.apps.command_line.one_line import MAKE_ROOM, last_error, one_line
from kd_lightning.apps.command_line.sweep_end import end_of_sweep
from kd_lightning.apps.command_line.sweep_start import (
    check_not_empty,
    check_place,
    check_sweep,
    claim,
    warn_of_early_signals,
)
from kd_lightning.apps.settings.config_hash import changes_result, config_hash
from kd_lightning.apps.settings.early import check_early
from kd_lightning.errors import UserError
from kd_lightning.files import locked_if_free

ROOT = Path(__file__).parents[2]
OPTIMIZERS = """
import os, signal, time
from pathlib import Path
from torch.optim import AdamW

class Breaks(AdamW):
    def step(self, closure=None):
        raise RuntimeError("no step")

class Dies(AdamW):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)

class Waits(AdamW):
    def step(self, closure=None):
        Path(f"{os.getpid()}.waits").touch()
        while not Path("go").exists():
            time.sleep(0.05)
        return super().step(closure)
"""
TOY = ["--config-dir", "mine", "data=embedded", "task=toy_sentiment", "encoder=tiny", "encoder.hidden_size=16"]
TOY += ["encoder.num_layers=1", "trainer.max_epochs=-1", "trainer.max_steps=2", "trainer.precision=32-true"]
TOY += ["accelerator=cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with optimisers of one's own: two end a job each in their way, one waits for a file."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "own_optimizers.py").write_text(OPTIMIZERS)
    (folder / "mine" / "optimizer").mkdir(parents=True)
    node = yaml.safe_load((ROOT / "conf" / "optimizer" / "adamw.yaml").read_text())
    for name in ("Breaks", "Dies", "Waits"):
        node["optimizer"]["_target_"] = f"own_optimizers.{name}"
        (folder / "mine" / "optimizer" / f"{name.lower()}.yaml").write_text(yaml.safe_dump(node))
    return folder


def spelled(command, *arguments, cwd):
    """Return ``python -m kd_lightning.COMMAND`` on the toy task, flags first, and how to start it."""
    flags = ["-m"] * (arguments[0] == "-m")
    path = os.pathsep.join(filter(None, (str(cwd), os.environ.get("PYTHONPATH"))))
    told = [sys.executable, "-m", f"kd_lightning.{command}", *flags, *TOY, *arguments[len(flags) :]]
    return told, {"cwd": cwd, "env": {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, "text": True}


def kd(command, *arguments, cwd):
    """Run a command."""
    told, how = spelled(command, *arguments, cwd=cwd)
    return subprocess.run(told, capture_output=True, timeout=300, **how)


def on_terminal(command, *arguments, cwd):
    """Run a command on a terminal; return all that it wrote there."""
    told, how = spelled(command, *arguments, cwd=cwd)
    ours, theirs = pty.openpty()
    with subprocess.Popen(told, stdout=theirs, stderr=theirs, stdin=theirs, **how) as process, open(ours, "rb") as read:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # nobody writes any more
            while part := read.read1():
                said += part
        assert process.wait(300) == 0, said.decode()
    return said.decode()


@contextmanager
def waiting_workers(place, name):
    """Give the launcher of three jobs while the first two are in a step, in a process each, until ``go`` is there."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    told = [f"name={name}", "optimizer=waits", "seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command, how = spelled("train", "-m", *told, cwd=place)
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=heard, **output, **how)
    try:
        end = time.monotonic() + 120
        while len(list(place.glob("*.waits"))) < 2:
            assert time.monotonic() < end, "no two jobs have begun"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in (*place.glob("*.waits"), place / "go"):
            path.unlink(missing_ok=True)


def jobs(place, name):
    """Return number -> folder of the newest sweep of a name."""
    sweep = max(place.glob(f"outputs/{name}/sweep_*"))
    return {path.name: path for path in sweep.iterdir() if (path / ".hydra").is_dir()}


def trained(jobs):
    """Return the numbers of the jobs that have trained to the end."""
    return [number for number, folder in sorted(jobs.items()) if (folder / "fit.json").exists()]


@pytest.fixture(scope="module")
def survived(place):
    """A sweep of four jobs: one is refused, one crashes, both of their own accord, and one of them twice."""
    return kd("train", "-m", "name=four", "seed=-1,1", "optimizer=adamw,breaks", cwd=place)


@pytest.mark.slow
def test_the_others_go_on(place, survived):
    """A crash of one job and eleven results that nobody computed; or an exit code that says all is well."""
    found = jobs(place, "four")
    assert trained(found) == ["2"]
    assert (found["0"] / "error.txt").read_text() == "refused: seed is -1, expected a whole number of at least 0\n"
    assert (found["3"] / "error.txt").read_text().startswith("crashed: RuntimeError: no step; traceback in outputs/")
    assert not (found["2"] / "error.txt").exists()
    assert not list(place.glob("outputs/four/**/.running*"))
    assert 'raise RuntimeError("no step")' in (found["3"] / "four.log").read_text()
    assert survived.returncode == 1


@pytest.mark.slow
def test_each_failure_is_one_line_and_the_last_says_how_to_go_on(survived):
    *each, last = survived.stderr.splitlines()
    starts = ["job 0: seed is -1", "job 1: seed is -1", "job 3 crashed: RuntimeError: no step; traceback in outputs/"]
    assert len(each) == len(starts)
    assert all(line.startswith(f"kd-train: error: {start}") for line, start in zip(each, starts, strict=True))
    assert last.startswith(
        "kd-train: error: 3 of 4 jobs did not finish: 0 (seed=-1 optimizer=adamw, refused), "
        "1 (seed=-1 optimizer=breaks, refused), 3 (seed=1 optimizer=breaks, crashed); see outputs/four/sweep_"
    )
    assert last.endswith("; mend them, then the same command with skip_finished=true runs only what is missing")
    assert "Traceback" not in survived.stdout + survived.stderr


@pytest.mark.slow
def test_what_has_finished_is_not_run_again(place, survived):
    """In another sweep and alone; what failed is."""
    first = jobs(place, "four")["2"]
    done = kd("train", "-m", "name=four", "seed=1,2", "skip_finished=true", "logger=tensorboard", cwd=place)
    assert done.returncode == 0, done.stderr
    found = jobs(place, "four")
    assert trained(found) == ["1"]
    assert (found["0"] / "finished_in.txt").read_text() == f"../../{first.parent.name}/2\n"
    assert f"already finished: {first}" in done.stdout
    before = set(place.glob("outputs/four/*"))
    done = kd("train", "name=four", "seed=2", "skip_finished=true", cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"already finished: {found['1']}" in done.stdout
    assert set(place.glob("outputs/four/*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"), [("joblib", "joblib_launcher"), ("submitit_local", "submitit_launcher")]
)
def test_other_launchers_survive_as_well(place, launcher, package):
    """They tell of failures in other processes; submitit's write into files."""
    pytest.importorskip(f"hydra_plugins.hydra_{package}")
    more = ["hydra.launcher.n_jobs=2"] * (launcher == "joblib")
    told = ["seed=-1,1", "optimizer=adamw,breaks", f"name={launcher}", f"hydra/launcher={launcher}", *more]
    done = kd("train", "-m", *told, cwd=place)
    found = jobs(place, launcher)
    assert trained(found) == ["2"]
    assert (found["1"] / "error.txt").read_text().startswith("refused: seed is -1")
    assert (found["3"] / "error.txt").read_text().startswith("crashed: RuntimeError: no step")
    *each, last = done.stderr.splitlines()
    assert len([line for line in each if "seed is -1" in line]) == 2
    assert len([line for line in each if "RuntimeError: no step" in line]) == 1
    assert "3 of 4 jobs did not finish: 0 (seed=-1 optimizer=adamw, refused), 1 (" in last
    assert done.returncode == 1
    if launcher == "joblib":
        assert "#2 joblib: 200 examples" in done.stdout


@pytest.mark.slow
def test_a_job_that_is_killed_is_named(place):
    """The launcher of joblib gives up all of its workers; what has not begun is missing, too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = kd("train", "-m", "name=killed", "optimizer=dies", "seed=1,2,3,4,5,6", *more, cwd=place)
    stopped, last = done.stderr.splitlines()[-2:]
    assert stopped.startswith("kd-train: error: the sweep stopped: A worker process managed by the executor was")
    assert "6 of 6 jobs did not finish: " in last
    assert ", killed)" in last
    assert "(seed=6, not started)" in last
    assert "; the same command with ckpt_path=last skip_finished=true runs only what is missing" in last
    assert done.returncode == 1


@pytest.mark.slow
def test_workers_leave_once_their_launcher_was_killed(place):
    """They finished their jobs, then held half a gigabyte each for five minutes more."""
    with waiting_workers(place, "orphans") as launcher:
        launcher.kill()
        (place / "go").touch()
        launcher.communicate(timeout=60)  # to the end of all that write there
    assert trained(jobs(place, "orphans")) == ["0", "1"]


@pytest.mark.slow
def test_an_interrupt_of_all_processes_is_said_once(place):
    """Ctrl-C reaches each of them."""
    with waiting_workers(place, "once") as launcher:
        os.killpg(launcher.pid, signal.SIGINT)
        said = launcher.communicate(timeout=60)[1]
    assert (launcher.returncode, len(said.splitlines())) == (130, 1), said
    assert said.startswith("kd-train: interrupted; the same command with ckpt_path=last skip_finished=true goes on")
    for number in ("0", "1"):
        assert (jobs(place, "once")[number] / "error.txt").read_text().startswith("interrupted: ")


@pytest.mark.slow
def test_jobs_beside_each_other_draw_no_bars(place):
    """Each over the other's, and through the tops of its tables; one after another they have theirs."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    told = ["-m", "name=drawn", "seed=1,2"]
    beside = on_terminal("train", *told, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", cwd=place)
    assert "it/s" not in beside
    assert "\x1b[2K" not in beside
    assert beside.count("#0 ") > beside.count("[0] ")
    after = on_terminal("train", *told, cwd=place)
    assert "it/s" in after
    for said in (beside, after):
        assert len(re.findall("[^\r\n]*┏", said)) == said.count("\n┏") == 3, "of two jobs and the sweep"


@pytest.mark.slow
def test_jobs_beside_each_other_share_their_teacher(place):
    """Each in a process of its own, at once; a strategy that starts the command anew is refused there, too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    small = ["encoder@teacher.encoder=tiny", "teacher.encoder.hidden_size=16", "teacher.encoder.num_layers=1"]
    two = ["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "name=pair", *small]
    done = kd("distill", "-m", *two, "batching.window=64,0", cwd=place)
    assert done.returncode == 2, done.stderr
    assert len(list(place.glob("outputs/store/fits/teacher*/fit.json"))) == 1
    assert len(list(place.glob("outputs/store/soft_targets/*/manifest.json"))) == 1
    told = done.stdout.splitlines()
    assert len([line for line in told if "teacher toy_sentiment: already trained" in line]) == 1
    assert done.stderr.count("batching.window is 0, expected a whole number") == 2
    (report,) = place.glob("outputs/pair/sweep_*/report.md")
    assert [line.split(" | ")[0] for line in report.read_text().splitlines()[2:]] == ["| 1", "| 2"]
    again = kd("distill", "-m", *two, "skip_finished=true", cwd=place)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already finished: ") == 2
    assert max(place.glob("outputs/pair/sweep_*/report.md")).read_text() == report.read_text()


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(place):
    """Two trials, then a third in the same study; one that fails is no score."""
    optuna = pytest.importorskip("optuna")
    search = ["-m", "name=search", "hydra/sweeper=search", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    done = kd("train", *search, "hydra.sweeper.n_trials=2", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "averages of these trials, the best first (outputs/search/" in done.stdout
    failed = kd("train", *search, "hydra.sweeper.n_trials=1", "trainer.devices=0", cwd=place)
    assert failed.returncode == 2
    assert "Study goes on: 2 trials before, 2 of them finished\n" in failed.stdout
    assert failed.stderr.endswith(
        "; mend them (another range is another study's: hydra.sweeper.study_name=NAME), then the same command "
        "(without hydra.sweep.dir) adds trials, with other values\n"
    )
    assert "1 of 1 jobs did not finish: 0 (optimizer.lr=" in failed.stderr, "of one trial, too"
    report = [sys.executable, "-m", "kd_lightning.report", "outputs/search"]
    said = subprocess.run(report, cwd=place, capture_output=True, text=True).stdout
    assert "refused: trainer: `Trainer(devices=0)`" in said.partition("missing (1):")[2]
    other = kd("train", *search, "seed=2", cwd=place)
    assert other.stderr.startswith("kd-train: error: the study search has trials without seed=2: its scores")
    assert (other.returncode, len(other.stderr.splitlines()), other.stdout) == (2, 1, "")
    assert len(list((place / "outputs" / "search").glob("sweep_*"))) == 2, "what is refused leaves nothing"
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{place}/outputs/search/search.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    summaries = [json.loads(path.read_text()) for path in place.glob("outputs/search/*/*/summary.json")]
    scores = [summary["objective"] for summary in summaries]
    assert sorted(scores) == sorted(trial.value for trial in study.trials[:2])
    assert study.direction.name == "MAXIMIZE"


@pytest.mark.slow
def test_a_search_of_which_nothing_finishes_says_so(place):
    """``Record does not exist.``"""
    pytest.importorskip("optuna")
    search = ["-m", "name=lost", "hydra/sweeper=search", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "seed=-1"]
    done = kd("train", *search, "hydra.sweeper.n_trials=1", cwd=place)
    assert "kd-train: error: the search has no result: none of its trials has finished\n" in done.stderr
    assert done.returncode == 2, "all of them were refused"


@pytest.mark.slow
def test_folders_of_jobs_may_have_other_names(place):
    """Each is named as it lies, and found by who looks for its error; without its overrides it would not be found."""
    done = kd("train", "-m", "name=deep", "seed=-1,-2", "hydra.sweep.subdir='${hydra.job.num}/x'", cwd=place)
    last = done.stderr.splitlines()[-1]
    assert "2 of 2 jobs did not finish: 0/x (seed=-1, refused), 1/x (seed=-2, refused); see outputs/deep/" in last
    assert "/*/*/error.txt; mend" in last
    done = kd("train", "-m", "name=deep", "seed=1,2", "hydra.output_subdir=.noted", cwd=place)
    assert done.stderr.startswith("kd-train: error: hydra.output_subdir is .noted: a command leaves .hydra in its")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
def test_jobs_of_other_names_lie_in_the_folder_of_their_sweep(place):
    """Under their own they were said to have never started, and to have errors where none were."""
    told = ["-m", "name=na,'2026_11_${seed}'", "seed=1,-1"]
    done = kd("train", *told, cwd=place)
    (folder,) = (place / "outputs" / "train").glob("sweep_*")
    assert sorted(job.name for job in folder.iterdir() if job.is_dir()) == [*"0123"]
    assert done.stderr.splitlines()[-1].startswith("kd-train: error: 2 of 4 jobs did not finish: 1 (name=na seed=-1")
    assert f"; see {folder.relative_to(place)}/*/error.txt; mend" in done.stderr
    assert "seed is -1" in (folder / "1" / "na.log").read_text(), "its log has why it was refused"
    assert done.returncode == 2
    assert yaml.safe_load((folder / "2" / "config.yaml").read_text())["name"] == "2026_11_1"
    done = kd("train", *told, "skip_finished=true", cwd=place)
    assert done.stdout.count("already finished: ") == 2, "their sweep has another folder"
    assert len((max((place / "outputs" / "train").glob("sweep_*")) / "report.md").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_model_is_evaluated_by_the_name_of_its_folder(place):
    """Of ``1_0`` it was that of ``10``, or nothing was there."""
    told = ["-m", "seed=1,2", "hydra.sweep.dir=2025_12", "hydra.sweep.subdir='${seed}_${hydra.job.num}'"]
    assert kd("train", *told, cwd=place).returncode == 0
    for number in ("1_0", "2_1"):
        run = [sys.executable, "-m", "kd_lightning.evaluate", f"run={number}", f"hydra.run.dir=e_{number}"]
        done = subprocess.run(
            [*run, "accelerator=cpu"], cwd=place / "2025_12", capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        found = json.loads((place / "2025_12" / f"e_{number}" / "evaluation.json").read_text())
        assert found["run"] == number


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(place):
    """Of two jobs one was training: it goes on in its folder, the other begins."""
    assert kd("train", "-m", "name=half", "seed=1", cwd=place).returncode == 0
    begun = jobs(place, "half")["0"]
    (begun / "fit.json").unlink()
    summary = json.loads((begun / "summary.json").read_text())
    (begun / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    (begun / "error.txt").write_text("interrupted: it was ended from outside\n")
    done = kd("train", "-m", "name=half", "seed=1,2", "ckpt_path=last", "skip_finished=true", cwd=place)
    assert done.returncode == 0, done.stderr
    assert ", from step 2 (" in done.stdout
    found = jobs(place, "half")
    assert not (begun / "error.txt").exists()
    assert trained({"0": begun, **{f"new {number}": folder for number, folder in found.items()}}) == ["0", "new 1"]
    assert (found["0"] / "finished_in.txt").read_text() == f"../../{begun.parent.name}/0\n"


@pytest.mark.slow
def test_a_sweep_that_is_refused_leaves_nothing(place):
    """A gap in each later report, of a command that was mistyped."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = kd("train", "-m", "name=none", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0", cwd=place)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert not list((place / "outputs").glob("none/*"))


@pytest.mark.slow
def test_a_folder_is_of_one_command(place):
    """The later one would write over the other's results, and both end well."""
    with locked_if_free(place / "outputs" / "held" / "fit"):
        done = kd("distill", "encoder@teacher.encoder=tiny", "hydra.run.dir=outputs/held", cwd=place)
    said = "outputs/held is of a command that goes on: wait for its end, or choose another hydra.run.dir"
    assert done.stderr == f"kd-distill: error: {said}\n"
    assert done.returncode == 2
    assert not (place / "outputs" / "held" / "summary.json").exists()


@pytest.mark.parametrize("told", ["seed=range(3,3)", "+seed=range(3,3)"])
def test_a_sweep_has_a_job(told):
    """``Launching 0 jobs``, and exit code 0."""
    for jobs in (None, [["seed=1"]]):
        check_not_empty([told], jobs)
    with pytest.raises(UserError, match=f"this sweep has no job: {re.escape(told)} comes to no value"):
        check_not_empty(["seed=1,2", told], jobs_of_grid({}, ["seed=1,2", told]))


@pytest.mark.parametrize(
    ("told", "in_sweep", "said"),
    [
        (["hydra.sweep.dir=x", "hydra.sweep.subdir=x_${hydra.job.num}"], True, None),
        (["hydra.run.dir=x", "hydra.sweep.dir=y"], True, None),
        (["hydra.run.dir=x", "hydra.sweep.dir=y"], False, None),
        (["hydra.verbose=true"], False, None),
        (
            ["hydra.run.dir=x", "hydra.sweep.subdir=y"],
            True,
            "hydra.run.dir=x is for single runs: the folder of a sweep i",
        ),
        (["hydra.run.dir=x"], True, "hydra.run.dir=x is for single runs: the folder of a sweep is hydra.sweep.dir"),
        (["+hydra.sweep.subdir=x"], False, "+hydra.sweep.subdir=x is for sweeps (-m): the folder of a single run is h"),
    ],
)
def test_a_folder_of_single_runs_is_no_sweeps(monkeypatch, told, in_sweep, said):
    """It was not made, and the sweep lay elsewhere; what a job's number stands for is not known yet."""
    hydra = {"output_subdir": None, "sweeper": {}, "sweep": {"dir": "outputs"}, "job": {"num": "???"}}
    hydra |= {"overrides": {"hydra": told, "task": []}, "mode": RunMode.MULTIRUN if in_sweep else RunMode.RUN}
    config = OmegaConf.create({"hydra": hydra})
    monkeypatch.setattr(HydraConfig, "get", lambda: config.hydra)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    with pytest.raises(UserError, match=re.escape(said)) if said else nullcontext():
        check_sweep(config) if in_sweep else check_early(OmegaConf.create({}))


def test_the_setting_is_named_that_is_wrong(tmp_path):
    """Not that of the folder which follows from it."""
    (tmp_path / "notes.txt").touch()
    config = {"paths": {"output": f"{tmp_path}/notes.txt"}, "hydra": {"run": {"dir": "${paths.output}/x"}}}
    with pytest.raises(UserError, match=r"^paths\.output is .*, expected a folder: it is a file$"):
        check_place("hydra.run.dir", OmegaConf.create(config))


@pytest.mark.parametrize("part", ["launcher", "sweeper"])
def test_an_option_that_is_told_as_a_setting(part):
    """``string indices must be integers``."""
    config = OmegaConf.create({"hydra": {"output_subdir": None, "sweeper": {}, part: "joblib"}})
    with pytest.raises(UserError, match=f"hydra.{part} is joblib, expected an option: hydra/{part}=joblib"):
        check_sweep(config)


@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [
        ("${nope}", 2, "kd-train: error: hydra.sweep.dir: Interpolation key 'nope' not found\n"),
        ("outputs", 1, "AttributeError: 'str' object has no attribute 'items'\n"),
    ],
)
def test_what_goes_wrong_before_a_sweep(tmp_path, monkeypatch, capfd, folder, code, said):
    """A mistake in Hydra's part is one line; one of ours shows where it is, and no empty line as if it were theirs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sweeps, "begun", [])
    monkeypatch.setattr(sweep_start, "begun", sweeps.begun)
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: None)
    monkeypatch.setattr(sweep_start, "is_search", lambda sweeper: "one of ours".items())
    node = {"job": {"config_name": "train"}, "output_subdir": None, "sweeper": {}}
    node["overrides"] = {"task": [], "hydra": []}
    node["sweep"] = {"dir": folder, "subdir": "${hydra.job.num}"}
    with pytest.raises(SystemExit) as ended, composed_in_one_line("train", io.StringIO()):
        sweep_start.RecordSweep().on_multirun_start(OmegaConf.create({"hydra": node}))
    shown = capfd.readouterr().err
    assert ended.value.code == code
    assert shown.endswith(said)
    assert ("Traceback" in shown) is (code == 1)
    assert not any(tmp_path.iterdir()), "it is not a sweep that lacks its jobs"


def test_what_an_earlier_launcher_could_not_tell_is_forgotten(tmp_path, monkeypatch):
    """It was killed; a job of this sweep that does not begin was not refused its folder."""
    monkeypatch.setattr(sweeps, "begun", [])
    monkeypatch.setattr(sweep_start, "begun", sweeps.begun)
    monkeypatch.setattr(sweep_start, "check_jobs", lambda config, planned, is_new: None)
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: None)
    node = {"job": {"config_name": "train"}, "output_subdir": None, "sweeper": {}}
    node["overrides"] = {"task": ["seed=1"], "hydra": []}
    node |= {"sweep": {"dir": str(tmp_path)}, "launcher": {"_target_": "x"}}
    for number in (1, 2):  # one of another sweep, too
        (tmp_path / f".{number}.refused").write_text(json.dumps({"told": [f"seed={number}"], "error": "x"}))
    sweep_start.RecordSweep().on_multirun_start(OmegaConf.create({"hydra": node}))
    assert [(job.told, job.state) for job in sweeps.begun[0].jobs()] == [(["seed=1"], "not started")]
    assert not list(tmp_path.glob(".*.refused"))
    sweeps.release(sweeps.begun[0].lock)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output_subdir": ".noted"}, "hydra.output_subdir is .noted: a command leaves .hydra in its folder itself"),
        ({"run": {"dir": "notes.txt"}}, "hydra.run.dir is notes.txt, expected a folder: it is a file"),
        ({"run": {"dir": "notes.txt/x"}}, "hydra.run.dir is notes.txt/x, expected a folder: notes.txt is a file"),
        ({"run": {"dir": None}}, "hydra.run.dir is null, expected a folder"),
        ({"run": {"dir": "${hydra.job.num}"}}, "hydra.run.dir: Interpolation key 'hydra.job.num' not found; jobs have"),
        ({"run": {"dir": "${nope}"}}, "hydra.run.dir: Interpolation key 'nope' not found"),
    ],
)
def test_what_goes_wrong_before_a_run(tmp_path, monkeypatch, capfd, changed, said):
    """Hydra would write over what it finds, or say ``File exists``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: None)
    node = {"job": {"config_name": "train"}, "output_subdir": None, "run": {"dir": "outputs"}}
    sweep_start.RecordSweep().on_run_start(OmegaConf.create({"hydra": node}))
    with pytest.raises(SystemExit) as ended:
        sweep_start.RecordSweep().on_run_start(OmegaConf.create({"hydra": node | changed}))
    shown = capfd.readouterr().err
    assert shown.startswith(f"kd-train: error: {said}")
    assert (ended.value.code, shown.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_one_that_searches_is_one(monkeypatch):
    """Two tasks of a cluster would record two trials for each, one of them failed."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "x")
    hydra = {"output_subdir": None, "sweep": {"dir": "outputs"}, "sweeper": {}, "overrides": {"hydra": [], "task": []}}
    grid = OmegaConf.create({"hydra": hydra})
    check_sweep(grid)
    with pytest.raises(UserError, match="a search was started by 2 processes"):
        check_sweep(OmegaConf.merge(grid, {"hydra": {"sweeper": {"n_trials": 3}}}))


CFG = {
    "seed": 1,
    "name": "a",
    "paths": {"output": "x"},
    "trainer": {"max_epochs": 3, "devices": 1},
    "teacher": {"trainer": {"max_epochs": 3, "devices": 1}, "batching": {"eval_batch_size": 8}},
    "task": {"rte": {"files": {"train": "a.csv"}}},
}


def changed(setting, value):
    """Return the configuration with a setting that is changed or new."""
    *groups, last = setting.split(".")
    cfg = json.loads(json.dumps(CFG))
    node = cfg
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = value
    return cfg


SAME = ["paths.output", "paths.store", "logger.csv", "callbacks.mine", "ckpt_path", "skip_finished"]
SAME += [
    "compile",
    "trainer.compile",
    "teacher.trainer.compile",
    "trainer.devices",
    "trainer.accelerator",
    "teacher.trainer.devices",
    "teacher.batching.eval_batch_size",
]
OTHER = ["seed", "name", "trainer.max_epochs", "trainer.precision", "teacher.trainer.max_epochs"]
OTHER += ["task.rte.files.train", "teacher.seeds", "devices"]


@pytest.mark.parametrize("setting", SAME)
def test_what_changes_no_result_is_not_of_the_identity(setting):
    assert config_hash(changed(setting, "other")) == config_hash(CFG)
    assert not changes_result(f"+{setting}=other")


@pytest.mark.parametrize("setting", OTHER)
def test_what_changes_a_result_is(setting):
    """A job that is taken for another one is never run."""
    assert config_hash(changed(setting, "other")) != config_hash(CFG)
    assert changes_result(f"{setting}=other")


def test_the_order_of_settings_is_not():
    assert config_hash(dict(reversed(CFG.items()))) == config_hash(CFG)


def test_a_folder_says_how_its_job_stands(tmp_path):
    """While it runs, after it was killed, and when it runs again: the system takes the lock of a process that ends."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from kd_lightning.apps.command_line.jobs import marked_as_running\n"
        f"with marked_as_running(Path({str(tmp_path)!r})):\n    print('running', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    assert state_of(tmp_path) == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert state_of(tmp_path) == state_of(tmp_path) == "killed"
    with marked_as_running(tmp_path):
        pass
    assert state_of(tmp_path) == "finished"
    (tmp_path / "error.txt").write_text("refused: no\n")
    assert state_of(tmp_path) == "refused"


def test_a_job_that_cannot_say_how_it_ended_has_not_finished(tmp_path, monkeypatch):
    """On a full disk there is no room for ``error.txt``: no error, so success."""

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with marked_as_running(tmp_path) as note:
        note("crashed: no")
    assert state_of(tmp_path) == "crashed"
    monkeypatch.setattr(jobs_of_sweeps, "write_text", full)
    (tmp_path / "error.txt").unlink()
    with marked_as_running(tmp_path) as note:
        note("refused: no")
    assert state_of(tmp_path) == "killed"
    with marked_as_running(tmp_path):
        pass
    assert state_of(tmp_path) == "finished"


@pytest.mark.parametrize(("command", "goes_on"), [("train", ", with ckpt_path=last to go on"), ("distill", "again\n")])
def test_after_a_full_disk_one_is_told_how_to_go_on(tmp_path, monkeypatch, capsys, command, goes_on):
    """The same command alone trains anew: a fit of hours was lost to who did as he was told."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    with pytest.raises(SystemExit), told_in_one_line(command):
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")
    assert (
        f"last.ckpt; make room, then the same command again{goes_on.removeprefix('again')}" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("sweeper", "goes_on"),
    [
        ({}, ", with ckpt_path=last skip_finished=true to go on from its last checkpoint, if there is one"),
        ({"n_trials": 2}, ""),
    ],
)
def test_after_a_full_disk_a_job_of_a_sweep_goes_on_beside_what_has_finished(tmp_path, monkeypatch, sweeper, goes_on):
    """A search does not: it draws other values."""
    now = {"mode": RunMode.MULTIRUN, "runtime": {"output_dir": str(tmp_path)}, "job": {"num": 0}, "sweeper": sweeper}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({**now, "launcher": {"_target_": "x"}}))
    with told_in_one_line("train"):
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")
    said = (tmp_path / "error.txt").read_text()
    assert said == f"refused: No space left on device: last.ckpt; make room, then the same command again{goes_on}\n"


@pytest.mark.parametrize(
    ("error", "more"),
    [("killed by a full disk", ""), (f"refused: x; {MAKE_ROOM}, with ckpt_path=last", "ckpt_path=last ")],
)
def test_the_last_line_of_a_sweep_says_what_its_jobs_do(tmp_path, monkeypatch, capsys, error, more):
    """With ``skip_finished=true`` alone a job whose checkpoint is there trains from its first step."""
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("[seed=1]")
    (tmp_path / "0" / "error.txt").write_text(f"{error}\n")
    node = {"sweep": {"dir": str(tmp_path)}, "sweeper": {}, "launcher": {"_target_": "x"}}
    node["overrides"] = {"task": ["seed=1"]}
    monkeypatch.setattr(sweeps, "begun", [sweeps.Sweep(OmegaConf.create({"hydra": node}), 0.0)])
    with pytest.raises(SystemExit):
        end_of_sweep("train")
    assert f"; mend them, then the same command with {more}skip_finished=true runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sweeper", "more"), [({}, ""), ({"n_trials": 2}, "; the same command (without hydra.sweep.dir) adds")]
)
def test_a_sweep_that_stopped_between_jobs_has_not_ended_well(tmp_path, monkeypatch, capsys, sweeper, more):
    """A worker was killed that had no job: exit code 2, and no word of how to go on."""
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("[seed=1]")
    node = {"sweep": {"dir": str(tmp_path)}, "sweeper": sweeper, "launcher": {"_target_": "x"}, "callbacks": {}}
    node["overrides"] = {"task": ["seed=1"]}
    monkeypatch.setattr(
        sweeps, "begun", [sweeps.Sweep(OmegaConf.create({"hydra": node}), 0.0, stopped="a worker died")]
    )
    with pytest.raises(SystemExit) as ended:
        end_of_sweep("train")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"kd-train: error: the sweep stopped: a worker died{more}")


def test_jobs_of_an_earlier_command_are_not_a_sweeps_own(tmp_path):
    """They waited in a queue, and began in its folder: two of four jobs did not finish, of a sweep of two."""
    for number, told in enumerate(("seed=1", "seed=7")):
        (tmp_path / str(number) / ".hydra").mkdir(parents=True)
        (tmp_path / str(number) / ".hydra" / "overrides.yaml").write_text(f"[{told}]")
    node = {"sweep": {"dir": str(tmp_path)}, "sweeper": {}, "overrides": {"task": ["seed=1,2"]}}
    told = [(job.name, job.state) for job in sweeps.Sweep(OmegaConf.create({"hydra": node}), 0.0).jobs()]
    assert told == [("0", "finished"), ("1", "not started")]


def test_a_sweep_has_its_folder_for_itself(tmp_path):
    """Two of them would write over each other's results, and each find jobs that it did not start."""
    lock = claim(tmp_path)
    with pytest.raises(UserError, match="is of a sweep that still goes on: wait for its end, or choose another"):
        claim(tmp_path)
    lock.release()
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("[]\n")
    with (
        marked_as_running(tmp_path / "0"),
        pytest.raises(UserError, match="/0 still goes on: wait for its end"),
    ):
        claim(tmp_path)
    assert not (tmp_path / ".sweep.lock").exists()
    claim(tmp_path).release()


@pytest.mark.parametrize(("again", "patience"), [("0", 0.0), ("1", sweep_start.LATE)])
def test_a_launcher_that_is_queued_again_waits_for_the_lock_of_before(tmp_path, monkeypatch, again, patience):
    """A file server keeps the lock of a machine that is gone."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", again)
    asked = []
    monkeypatch.setattr(sweep_start.FileLock, "acquire", lambda lock, timeout: asked.append(timeout))
    claim(tmp_path)
    assert asked == [patience]


@pytest.mark.parametrize(
    ("error", "lists", "waits"),
    [
        ("queued again: it lost its place, as job 7_1 of SLURM", "7_1", True),
        ("queued again: it lost its place, as job 7_1 of SLURM", "", False),
        ("queued again: it lost its place", "7_1", False),
        ("interrupted: it was ended from outside, as job 7_1 of SLURM", "7_1", False),
    ],
)
def test_a_job_that_is_queued_again_goes_on(tmp_path, monkeypatch, error, lists, waits):
    """As long as the scheduler knows it: who has cancelled it since may begin it anew."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\ntest $2 = --jobs=7_1 && echo {lists}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "error.txt").write_text(f"{error}\n")
    assert goes_on(tmp_path) is waits
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert not goes_on(tmp_path), "it is we who were queued"


def test_where_there_is_no_scheduler_nothing_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "error.txt").write_text("queued again: it lost its place, as job 7_1 of SLURM\n")
    assert not goes_on(tmp_path)


def test_only_what_was_made_for_a_refused_sweep_is_taken_away(tmp_path, monkeypatch):
    """In an older folder jobs may wait that were submitted there; under another's lock they may begin at any time."""
    monkeypatch.setattr(sweeps, "begun", [])
    for name, is_new, held in (("made", True, True), ("older", False, True), ("of another", True, False)):
        (tmp_path / name / ".submitit").mkdir(parents=True)
        config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / name)}}})
        lock = claim(tmp_path / name) if held else None
        sweeps.begun.append(sweeps.Sweep(config, 0.0, is_new=is_new, lock=lock))
    sweeps.forget()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of another", "older"]


@pytest.mark.parametrize(("limit", "delay", "said"), [(1, 120, True), (4, 120, True), (5, 120, False), (0, 120, False)])
def test_a_limit_that_leaves_jobs_no_time_is_told(caplog, limit, delay, said):
    """Four places of a minute, two minutes apart, for what takes one."""
    warn_of_early_signals(OmegaConf.create({"timeout_min": limit, "signal_delay_s": delay}))
    warn_of_early_signals(OmegaConf.create({"_target_": "x"}))
    assert len(caplog.messages) == said


@pytest.mark.slow
def test_a_second_sweep_into_a_folder_waits_its_turn(place):
    """Refused, without a trace in the folder of the first; later it may have the folder."""
    folder = place / "outputs" / "turn"
    folder.mkdir(parents=True)
    sweep = ["-m", "name=turn", "hydra.sweep.dir=outputs/turn", "seed=1,2"]
    with locked_if_free(folder / "sweep"):
        done = kd("train", *sweep, cwd=place)
        assert done.stderr.startswith("kd-train: error: outputs/turn is of a sweep that still goes on: ")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert [path.name for path in folder.iterdir()] == [".sweep.lock"]
    assert kd("train", *sweep, cwd=place).returncode == 0
    assert not (folder / ".sweep.lock").exists()


@pytest.mark.slow
def test_what_is_refused_in_a_folder_changes_nothing_there(place):
    """Neither by Hydra, which notes what it was told before a command begins, nor in the table of a sweep."""
    sweep = ["-m", "name=told", "hydra.sweep.dir=outputs/told"]
    assert kd("train", *sweep, "seed=1,2", cwd=place).returncode == 0

    def content():
        return {path: path.read_bytes() for path in (place / "outputs" / "told").rglob("*") if path.is_file()}

    before = content()
    other = kd("train", *sweep, "seed=2,3", "skip_finished=true", cwd=place)
    assert other.stderr.startswith("kd-train: error: outputs/told/0 holds what kd-train with seed=1 has made: choose")
    alone = kd("train", "name=told", "seed=7", "ckpt_path=last", "hydra.run.dir=outputs/told/1", cwd=place)
    assert alone.stderr.startswith("kd-train: error: outputs/told/1 holds what kd-train with seed=2 has made: choose")
    for done in (other, alone):
        assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert content() == before
    evaluation = ["run=outputs/told/0", "hydra.run.dir=outputs/told/${hydra:job.name}"]
    own = subprocess.run(
        [sys.executable, "-m", "kd_lightning.evaluate", *evaluation], cwd=place, capture_output=True, text=True
    )
    assert (own.returncode, own.stderr) == (0, ""), "a folder whose name is Hydra's to know"
    assert "config_hash" in json.loads((place / "outputs" / "told" / "evaluate" / "evaluation.json").read_text())
    again = kd("train", *sweep, "seed=1,2", "ckpt_path=last", cwd=place)
    assert again.stderr.count("has finished; skip_finished=true leaves it as it is") == 2
    assert "averages" not in again.stdout, "of what this command has not done"
    said = "2 of 2 jobs had finished before: 0 (seed=1), 1 (seed=2); the same command with skip_finished=true runs only"
    assert said in again.stderr, "there is nothing to mend"


@pytest.mark.slow
def test_a_job_whose_folder_is_taken_ends_without_a_trace_there(place):
    """The others are done; who is told of it may be a process of another launcher."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder = place / "outputs" / "taken"
    (folder / "0").mkdir(parents=True)
    for launcher in ("basic", "joblib"):
        with locked_if_free(folder / "0" / "job"):
            how = ["name=taken", f"hydra/launcher={launcher}", "hydra.sweep.dir=outputs/taken"]
            done = kd("train", "-m", *how, "seed=1,2", "skip_finished=true", cwd=place)
            assert [path.name for path in (folder / "0").iterdir()] == [".job.lock"]
        first, *_, last = done.stderr.splitlines()
        assert "error: job 0: outputs/taken/0 is of a command that goes on: wait for its end, or choose" in first
        assert "1 of 2 jobs did not finish: 0 (seed=1, its folder is not its own); wait for those that go on" in last
        assert done.returncode == 2
        assert trained({"0": folder / "0", "1": folder / "1"}) == ["1"]
        assert not list(folder.glob(".*.refused"))


@pytest.mark.slow
def test_of_runs_that_begin_together_in_a_folder_one_has_it(place):
    """Each of them trained there, and what the later was told stood beside the earlier one's results."""
    both = [spelled("train", f"seed={seed}", "hydra.run.dir=outputs/both", cwd=place) for seed in (1, 2)]
    started = [subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how) for told, how in both]
    said = [process.communicate(timeout=300)[1] for process in started]
    won, lost = sorted((0, 1), key=lambda each: started[each].returncode)
    assert [started[won].returncode, started[lost].returncode] == [0, 2], said
    assert re.match("kd-train: error: outputs/both (is of a command that goes on|holds what kd-train)", said[lost])
    noted = place / "outputs" / "both" / ".hydra" / "overrides.yaml"
    assert f"seed={won + 1}" in yaml.safe_load(noted.read_text())
    assert (place / "outputs" / "both" / "train.log").stat().st_size, "the other opened it, too, and took it away"
    assert yaml.safe_load((noted.parents[1] / "config.yaml").read_text())["seed"] == won + 1


@pytest.mark.slow
def test_jobs_whose_folders_are_named_by_hydra_keep_them(place):
    """Also options that a pattern chooses are known before the first begins."""
    told = ["-m", "name=own", "hydra.sweep.dir=outputs/own", "hydra.sweep.subdir='${hydra:job.num}_${seed}'"]
    assert kd("train", *told, "seed=1", "scheduler=glob(*)", cwd=place).returncode == 0
    assert sorted(path.name for path in (place / "outputs" / "own").glob("?_1")) == ["0_1", "1_1"]
    none = kd("train", "-m", "name=none_of_them", "seed=glob(*)", cwd=place)
    assert none.stderr.startswith("kd-train: error: this sweep has no job: seed=glob(*) comes to no value (glob(...)")
    assert (none.returncode, none.stdout) == (2, "")
    assert not list((place / "outputs").glob("none_of_them/*"))
    again = kd("train", *told, "seed=1", "scheduler=glob(l*)", cwd=place)
    assert again.stderr.startswith("kd-train: error: outputs/own/0_1 holds what kd-train with scheduler=constant has")
    assert (again.returncode, again.stdout) == (2, "")
    assert kd("train", *told, "seed=1", "scheduler=glob(*)", "skip_finished=true", cwd=place).returncode == 0


@pytest.mark.slow
def test_single_runs_beside_each_other_do_the_work_once(place):
    """Three of them in the same second each trained all of it."""
    told = ["name=single", "seed=5", "optimizer=waits", "skip_finished=true"]
    command, how = spelled("train", *told, cwd=place)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how) as first:
        try:
            end = time.monotonic() + 120
            while not list(place.glob("*.waits")):
                assert time.monotonic() < end, "it has not begun"
                time.sleep(0.05)
            second = kd("train", *told, cwd=place)
            (place / "go").touch()
            assert first.wait(120) == 0
        finally:
            first.kill()
            for path in (*place.glob("*.waits"), place / "go"):
                path.unlink(missing_ok=True)
    (folder,) = place.glob("outputs/single/*")
    why = "has these settings, and goes on: wait for its end, then the same command again"
    assert second.stderr == f"kd-train: error: {folder.relative_to(place)} {why}\n"
    assert second.returncode == 2
    assert (folder / "fit.json").exists()
    assert not list(folder.glob(".running*"))


@pytest.mark.slow
def test_what_still_runs_is_not_run_beside_it(place):
    """The launcher was interrupted, its jobs go on: a second call with ``skip_finished=true`` trained them again."""
    assert kd("train", "-m", "name=beside", "seed=1", cwd=place).returncode == 0
    begun = jobs(place, "beside")["0"]
    summary = json.loads((begun / "summary.json").read_text())
    (begun / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    with locked_if_free(begun / "fit"):
        done = kd("train", "-m", "name=beside", "seed=1,2", "skip_finished=true", cwd=place)
        assert "; see " in done.stderr
        assert "; wait for those that go on, then the same command with skip_finished=true runs only" in done.stderr
    assert done.returncode == 2
    why = "has these settings, and goes on: wait for its end, then the same command again"
    assert done.stderr.splitlines()[0].endswith(f"error: job 0: {begun.relative_to(place)} {why}")
    assert trained(jobs(place, "beside")) == ["1"]
    done = kd("train", "-m", "name=beside", "seed=1,2", "skip_finished=true", cwd=place)
    assert done.returncode == 0, "whose process was killed does not run"
    assert trained(jobs(place, "beside")) == ["0"]
    for path in (begun / "summary.json", *place.glob("outputs/beside/*/[01]/summary.json")):
        path.unlink(missing_ok=True)
    with marked_as_running(begun):  # and has not said yet what it is
        done = kd("train", "-m", "name=beside", "seed=1,2", "skip_finished=true", cwd=place)
    assert "error: job 0: " in done.stderr
    assert trained(jobs(place, "beside")) == ["1"]


def test_workers_take_a_gpu_each(tmp_path, monkeypatch):
    """Two that are there go to two workers, a third shares; one alone, and none, are left as they are."""
    monkeypatch.setattr(workers, "held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    gpus = workers.visible_gpus()
    taken = []
    for number in range(3):
        workers.take_gpu(tmp_path, gpus, number)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["3", "5", "3"]
    for lock in workers.held:
        lock.release()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for number in range(2):
        assert workers.visible_gpus(tmp_path / "drivers") == [str(n) for n in range(number)]
        workers.take_gpu(tmp_path, workers.visible_gpus(tmp_path / "drivers"), 0)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        (tmp_path / "drivers" / str(number)).mkdir(parents=True)


def test_what_is_not_installed_is_told_with_its_extra():
    said = (
        "In 'hydra/config': Could not find 'hydra/launcher/joblib'\n\nAvailable options in 'hydra/launcher':\n\tbasic\n"
    )
    assert one_line(said).endswith("not installed: in the checkout, pip install -e '.[joblib]' -c constraints.txt")


def test_why_a_launcher_stopped_is_the_last_thing_it_said():
    said = "Traceback (most recent call last):\n  x\nValueError: one\n\nTraceback ...\nmy.Error: No trials\nare there\n"
    assert last_error(said) == "No trials"
    assert last_error("") == "it does not say why"
    full = "OSError: [Errno 28] No space left on device: 'x'\n"
    assert last_error(full) == "No space left on device: x; make room, then the same command again"
