"""What changes between a look at a folder and what follows from it: other processes begin, end and take away."""

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning import files
from kd_lightning.apps import predict
from kd_lightning.apps.command_line import finished, notes
from kd_lightning.apps.command_line import jobs as jobs_of_sweeps
from kd_lightning.apps.command_line.finished import (
    files_of_runs,
    finished_before,
    note_elsewhere,
    noted_elsewhere,
    result_of_job,
    skipped,
)
from kd_lightning.apps.command_line.jobs import NotOursError, goes_on, marked_as_running, remove_if_empty, state_of
from kd_lightning.apps.command_line.notes import is_planned, job_folders
from kd_lightning.apps.fits.resume import claimed
from kd_lightning.apps.fits.store import stored
from kd_lightning.apps.processes.preemption import LATE
from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.errors import UserError
from kd_lightning.files import GLANCE, LOOK, is_held, locked_if_free


def test_who_looks_at_a_job_does_not_stop_it(tmp_path):
    """A report that looks at a killed job while it begins again: it was taken for killed until its end, and after."""

    def run():
        with marked_as_running(tmp_path):
            return state_of(tmp_path)

    (tmp_path / ".running").touch()
    with ThreadPoolExecutor() as pool:
        with locked_if_free(tmp_path / "job"):
            found = pool.submit(run)
            time.sleep(0.2)
        assert found.result() == "running"
    assert state_of(tmp_path) == "finished"


def test_what_another_process_does_in_the_folder_stays(tmp_path, monkeypatch):
    """The second sweep into a folder took the mark of the first one's job: killed, it counted as finished."""
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"mode": RunMode.MULTIRUN}))
    (tmp_path / ".running").touch()
    with locked_if_free(tmp_path / "job"):
        with pytest.raises(NotOursError), marked_as_running(tmp_path):
            pass
        assert state_of(tmp_path) == "running"
    assert state_of(tmp_path) == "killed"


def test_a_finished_run_counts_before_one_that_goes_on(tmp_path, monkeypatch):
    """What is there need not be waited for."""
    now = {
        "mode": RunMode.MULTIRUN,
        "sweep": {"dir": "sweep"},
        "runtime": {"output_dir": "sweep/9", "cwd": str(tmp_path)},
    }
    now["job"] = {"config_name": "train"}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({**now, "overrides": {"task": ["seed=1"]}}))
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create({"name": "x", "paths": {"output": "outputs"}, "seed": 1})
    for number, status in enumerate(("running", "finished")):
        folder = tmp_path / "outputs" / "x" / str(number)
        folder.mkdir(parents=True)
        summary = {"status": status, "objective": 0.5, "config_hash": config_hash(OmegaConf.to_container(cfg))}
        (folder / "summary.json").write_text(json.dumps(summary))
    with locked_if_free(tmp_path / "outputs" / "x" / "0" / "fit"):
        assert finished_before(cfg) == (tmp_path / "outputs" / "x" / "1", 0.5)
        (tmp_path / "outputs" / "x" / "1" / "summary.json").unlink()
        with pytest.raises(UserError, match="outputs/x/0 has these settings, and goes on"):
            finished_before(cfg)
    assert finished_before(cfg) is None
    for number, began in ((5, 2), (9, 3)):  # two jobs that have just begun, and ours in one of the folders
        folder = tmp_path / "sweep" / str(number)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
        (folder / ".hydra" / "hydra.yaml").write_text("hydra: {job: {config_name: train}}\n")
        (folder / ".running").touch()
        os.utime(folder / ".running", (began, began))
    with locked_if_free(tmp_path / "sweep" / "5" / "job"), locked_if_free(tmp_path / "sweep" / "9" / "job"):
        with pytest.raises(UserError, match="sweep/5 has these settings, and goes on"):
            finished_before(cfg)
        now["job"]["config_name"] = "distill"
        assert finished_before(cfg) is None, "another command was told the same"
        now["job"]["config_name"] = "train"
        now["runtime"]["output_dir"] = "sweep/5"
        assert finished_before(cfg) is None, "each would leave it to the other"
    now["runtime"]["output_dir"] = "elsewhere/mine"
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere" / "mine" / "summary.json").write_text(json.dumps(summary))
    assert finished_before(cfg) == (tmp_path / "elsewhere" / "mine", 0.5), "its own folder, wherever that lies"


@pytest.mark.parametrize(
    ("sweep", "more"),
    [(None, []), ("outputs/x_1/sweep_2", ["outputs/x_1/sweep_2/0"]), ("named", ["named/0"]), ("outputs/a/sweep_7", [])],
)
def test_earlier_runs_are_found_where_they_may_lie(tmp_path, monkeypatch, sweep, more):
    """Of ``-m name=a,b`` under another's name, in sweeps that have names of their own, too; the store has no runs."""
    found = [
        "outputs/train/sweep_1/0",
        "outputs/a/2026",
        "outputs/a/sweep_7/0",
        "outputs/quickstart/sweep_1/deep/0",
        "outputs/train/grid/0",
        "outputs/mine/0",
        *more,
    ]
    others = ["outputs/store/fits/x", "named/0", "elsewhere/sweep_1/0", "outputs/b/2026", "outputs/c/d/e/0"]
    for place in {*found, *others}:
        (tmp_path / "real" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "real" / place / "identity").symlink_to("/annex/of/all/identity")
    for folder in ("train/sweep_1", "a/sweep_7", "quickstart/sweep_1", "train/grid", "mine"):
        (tmp_path / "real" / "outputs" / folder / "multirun.yaml").touch()
    (tmp_path / "real" / "outputs" / "c" / "d" / "e" / "multirun.yaml").touch()
    (tmp_path / "real" / "outputs" / "b" / "2026" / "config.yaml").touch()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    now = {"mode": RunMode.MULTIRUN if sweep else RunMode.RUN, "sweep": {"dir": sweep}}
    now["runtime"] = {"cwd": str(tmp_path / "link")}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    walked = []
    monkeypatch.setattr(
        finished, "files_named", lambda name, place: walked.append(place) or files.files_named(name, place)
    )
    for output in ("outputs", str(tmp_path / "link" / "outputs"), "../link/outputs"):
        walked.clear()
        cfg = {"name": "a", "paths": {"output": output}}
        places = [str(path.parent.relative_to(tmp_path / "real")) for path in files_of_runs("identity", cfg)]
        assert sorted(places) == sorted(found)
        assert not [place for place in walked if {*walked} & {*place.parents}], "nothing is walked twice"
        assert len(walked) == len({*walked})


def test_a_run_does_not_wait_for_itself(tmp_path, monkeypatch):
    """``outputs`` is a link, and the folder is told without it: the run found itself, and waited for its own end."""
    ours = tmp_path / "scratch" / "x" / "mine"
    (ours / ".hydra").mkdir(parents=True)
    (ours / ".hydra" / "overrides.yaml").write_text("[]")
    (ours / ".hydra" / "hydra.yaml").write_text("hydra: {job: {config_name: train}}\n")
    (ours / ".running").touch()
    (tmp_path / "outputs").symlink_to("scratch")
    monkeypatch.chdir(tmp_path)
    for place in (ours, tmp_path / "outputs" / "x" / "mine", tmp_path / "scratch" / ".." / "outputs" / "x" / "mine"):
        now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(place)}, "overrides": {"task": []}}
        now |= {"job": {"config_name": "train"}}
        monkeypatch.setattr(HydraConfig, "get", lambda now=now: OmegaConf.create(now))
        with locked_if_free(ours / "job"):
            assert finished_before(OmegaConf.create({"name": "x", "paths": {"output": "outputs"}})) is None


def test_where_results_are_is_told_through_links(tmp_path, monkeypatch):
    """A folder's ``..`` is another's, seen through a link to it."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("first", "again"):
        (tmp_path / name / "0").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(tmp_path / "again")
    note_elsewhere(tmp_path / "deep" / "er" / "link" / "0", tmp_path / "first" / "0")
    assert (tmp_path / "again" / "0" / "finished_in.txt").read_text() == "../../first/0\n"
    assert noted_elsewhere(tmp_path / "deep" / "er" / "link" / "0") == tmp_path / "first" / "0"
    monkeypatch.chdir(tmp_path)
    assert noted_elsewhere(Path("again/0")) == Path("first/0"), "as it is asked for"
    assert noted_elsewhere(tmp_path / "first" / "0") is None


@pytest.mark.parametrize(("finds", "points"), [("9", []), ("0", ["finished_in.txt"])])
def test_a_job_that_has_its_results_points_nowhere(tmp_path, monkeypatch, finds, points):
    """It would say of itself that what it holds lies elsewhere, and another's would be written over it."""
    ours = tmp_path / "sweep" / "9"
    now = {
        "mode": RunMode.MULTIRUN,
        "sweep": {"dir": str(ours.parent)},
        "runtime": {"output_dir": str(ours), "cwd": "."},
    }
    now |= {"job": {"config_name": "train"}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    cfg = OmegaConf.create({"name": "x", "paths": {"output": str(tmp_path)}, "seed": 1, "skip_finished": True})
    summary = {"status": "finished", "objective": 0.5, "config_hash": config_hash(OmegaConf.to_container(cfg))}
    for number in {"0", finds}:
        (ours.parent / number).mkdir(parents=True)
        (ours.parent / number / "summary.json").write_text(json.dumps(summary))
    ours.mkdir(exist_ok=True)
    assert skipped(cfg) == (str(ours.parent / finds), 0.5)
    assert [path.name for path in ours.iterdir() if path.name != "summary.json"] == points


def test_a_folder_may_vanish_while_one_looks(tmp_path, monkeypatch):
    """Of a job that writes beside this one, which was refused for it: ``No such file or directory``."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": "9"}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({**now, "job": {"config_name": "train"}}))
    cfg = OmegaConf.create({"name": "x", "paths": {"output": str(tmp_path)}, "seed": 1})
    summary = {"status": "finished", "objective": 0.5, "config_hash": config_hash(OmegaConf.to_container(cfg))}
    for name in (".part", "done"):
        (tmp_path / "x" / name).mkdir(parents=True)
    (tmp_path / "x" / "done" / "summary.json").write_text(json.dumps(summary))
    look = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: look(f"{path}/nowhere" if Path(path).name == ".part" else path))
    assert finished_before(cfg) == (tmp_path / "x" / "done", 0.5)


def test_a_folder_of_a_job_may_vanish_while_one_looks(tmp_path, monkeypatch):
    """It may be of another command, which is refused meanwhile."""
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("[]")
    gone = tmp_path / "1" / ".hydra" / "overrides.yaml"
    monkeypatch.setattr(notes, "files_named", lambda name, folder: [*files.files_named(name, folder), gone])
    assert job_folders(tmp_path, 1.0) == [tmp_path / "0"]
    assert not is_planned(gone.parents[1], [[]])


@pytest.mark.parametrize("begun", [True, False])
def test_what_finishes_while_one_looks_is_not_run_again(tmp_path, monkeypatch, begun):
    """It runs when its summary is looked for; it ends; its lock is found free, and a fit of hours begins once more."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": "9"}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({**now, "job": {"config_name": "train"}}))
    cfg = OmegaConf.create({"name": "x", "paths": {"output": str(tmp_path)}, "seed": 1})
    other = tmp_path / "x" / "0"
    (other / ".hydra").mkdir(parents=True)
    (other / ".hydra" / "overrides.yaml").write_text("[]")
    (other / ".hydra" / "hydra.yaml").write_text("hydra: {job: {config_name: train}}\n")
    (other / ".running").touch()
    summary = {"status": "running", "objective": 0.5, "config_hash": config_hash(OmegaConf.to_container(cfg))}
    if begun:
        (other / "summary.json").write_text(json.dumps(summary))

    def ends(folder):
        (other / "summary.json").write_text(json.dumps(summary | {"status": "finished"}))
        (other / ".running").unlink()
        return False

    monkeypatch.setattr(finished, "_is_trained", ends)
    assert finished_before(cfg) == (other, 0.5)


def test_a_job_that_ends_while_one_looks_was_not_killed(tmp_path, monkeypatch):
    """Its mark is seen; mark and lock go; no lock is found."""
    (tmp_path / ".running").touch()

    def ends(path, **how):
        (tmp_path / ".running").unlink(missing_ok=True)
        return is_held(path, **how)

    monkeypatch.setattr(jobs_of_sweeps, "is_held", ends)
    assert state_of(tmp_path) == "finished"


def test_a_job_may_begin_again_while_one_looks_where_its_results_are(tmp_path, monkeypatch):
    """It takes ``finished_in.txt`` away, and a report failed."""
    (tmp_path / "finished_in.txt").write_text("..\n")
    read = Path.read_text

    def gone(path, *args, **more):
        if path.name == "finished_in.txt":
            path.unlink()
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", gone)
    assert result_of_job(tmp_path) is None


def test_a_folder_of_two_refused_commands_vanishes_once(tmp_path, monkeypatch):
    """``No such file or directory`` in the place of the second one's reason."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path / "gone")}, "job": {"name": "train"}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    remove_if_empty()
    (tmp_path / "gone" / ".hydra").mkdir(parents=True)
    remove_if_empty()
    assert not (tmp_path / "gone").exists()


def test_damaged_soft_targets_are_taken_away_once(tmp_path, monkeypatch):
    """Of two that find them so, the slower would take away what the quicker has written again."""
    whole = iter([False, True])
    folder = tmp_path / "rte-train"
    folder.mkdir()

    def look(found, expected):
        if answer := next(whole):
            (found / "anew").touch()
        return answer

    monkeypatch.setattr(predict, "_is_whole", look)
    assert predict.is_there(folder, SimpleNamespace())
    assert (folder / "anew").exists()


def test_the_checkpoint_of_a_stored_model_goes(tmp_path):
    """Also where the process was killed between the model's end and the removal: it stayed for ever."""
    fit = SimpleNamespace(cfg={"paths": {"store": str(tmp_path)}}, stage="teacher rte", identity="abc", processes=1)
    folder = tmp_path / "fits" / "teacher-rte-abc"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "fit.json").write_text('{"scores": {}, "weights": "x"}')
    stored(fit)
    assert [path.name for path in folder.iterdir()] == ["fit.json"]


def test_who_is_started_again_waits_for_the_lock_of_before(tmp_path, monkeypatch):
    """A file server keeps the locks of a machine that is gone for a minute and a half."""
    asked = []

    @contextmanager
    def asking(path, patience=0.0):
        asked.append(patience)
        yield True

    monkeypatch.setattr(jobs_of_sweeps, "locked_if_free", asking)
    for again in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", again)
        with marked_as_running(tmp_path):
            pass
    assert asked == [LOOK, LATE]


def test_a_lock_that_may_not_be_looked_at(tmp_path, monkeypatch):
    """Of another user: a report says that the job runs; a job of one's own does not wait for it."""
    (tmp_path / ".fit.lock").touch()

    @contextmanager
    def denied(path, patience):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
        yield

    monkeypatch.setattr(files, "locked_if_free", denied)
    assert [is_held(tmp_path / "fit"), is_held(tmp_path / "fit", unknown=False)] == [True, False]
    for name in (".running", ".job.lock"):
        (tmp_path / name).touch()
    assert (state_of(tmp_path), goes_on(tmp_path)) == ("running", False)


def test_who_looks_does_not_hinder_others(tmp_path):
    """A fit was refused since a report looked at its folder; of two who looked, one saw the other."""
    for asks in (lambda: is_held(tmp_path / "fit", patience=LOOK), lambda: claimed(tmp_path).__enter__()):
        with ThreadPoolExecutor() as pool:
            with locked_if_free(tmp_path / "fit"):
                found = pool.submit(asks)
                time.sleep(0.2)
                assert not found.done(), "it has not given up at once"
            assert not found.result()
    assert 0 < GLANCE <= LOOK


def test_who_is_killed_under_a_lock_blocks_nobody(tmp_path):
    code = (
        "import time; from pathlib import Path; from kd_lightning.files import locked\n"
        f"with locked(Path({str(tmp_path / 'model')!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    wait = "from pathlib import Path; from kd_lightning.files import locked\n"
    wait += f"with locked(Path({str(tmp_path / 'model')!r})):\n    print('mine')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert subprocess.run([sys.executable, "-c", wait], capture_output=True, text=True, timeout=120).stdout == "mine\n"
