"""Folders that are told by name: the work of another job is not written over, and nothing is changed there."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.apps.command_line import occupied
from kd_lightning.apps.command_line.ending import told_in_one_line
from kd_lightning.apps.command_line.jobs import let_go, marked_as_running, state_of
from kd_lightning.apps.command_line.occupied import check_jobs, check_run
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.errors import UserError
from kd_lightning.files import is_held, locked_if_free


def composed(*told):
    """Return a configuration as if it was composed: a default, and what was told."""
    defaults = {"seed": 1, "logger": "csv", "data": {"limit": None, "root": None}}
    return OmegaConf.merge(defaults, OmegaConf.from_dotlist([one.lstrip("+") for one in told]))


@pytest.fixture(autouse=True)
def loader(monkeypatch):
    """Hydra, which composes the jobs of a sweep."""

    def compose(config, told):
        own = OmegaConf.masked_copy(config, "hydra")
        return OmegaConf.merge(own, composed(*told))

    own = SimpleNamespace(load_sweep_config=compose)
    hydra = SimpleNamespace(config_loader=lambda: own, is_initialized=lambda: False)
    monkeypatch.setattr(GlobalHydra, "instance", lambda: hydra)
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: None)


def leave(folder, *told, command="train", status="finished", checkpoint=False):
    """Leave what a job has made: its results, or a checkpoint, and what Hydra notes of it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(told)))
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(composed(*told)))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"config_name": command}}}))
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    if checkpoint:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()


def sweep(folder, *told, subdir="${hydra.job.num}", sweeper=(), command="train"):
    """Return the configuration of a sweep into a folder."""
    node = {
        "sweep": {"dir": str(folder), "subdir": subdir},
        "sweeper": dict(sweeper),
        "overrides": {"task": list(told)},
    }
    return OmegaConf.merge(composed(), {"hydra": {**node, "job": {"config_name": command}}})


def run(folder, *told, command="train", output_subdir=".hydra"):
    """Return the configuration of a single run in a folder."""
    node = {"run": {"dir": str(folder)}, "overrides": {"task": list(told)}, "output_subdir": output_subdir}
    return OmegaConf.merge(composed(*told), {"hydra": {**node, "job": {"config_name": command}}})


def begin(config):
    """Check the folder of a single run, as its command does, and leave it again."""
    check_run(config)
    let_go(Path(config.hydra.run.dir))


@pytest.mark.parametrize("told", ["seed=1,2", "seed=1,2,3", "seed=1", "++seed=1,2"])
def test_a_sweep_that_is_told_the_same_goes_on_in_its_folder(tmp_path, told):
    """With what changes no result, too; what has no number there is not written over."""
    for number in (0, 1):
        leave(tmp_path / str(number), "skip_finished=true", f"seed={number + 1}", "logger=csv")
    leave(tmp_path / "earlier" / "0", "seed=7")
    check_jobs(sweep(tmp_path, told, "data.root=elsewhere", "logger=wandb"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["seed=2,3"], "0 holds what kd-train with seed=1 has made: choose another hydra.sweep.dir, or take it away"),
        (["seed=1,3"], "1 holds what kd-train with seed=2 has made"),
        (["seed=1,2", "optimizer.lr=1"], "0 holds what kd-train without optimizer.lr=1 has made"),
    ],
)
def test_another_sweep_is_refused(tmp_path, told, said):
    """Seed 3 was trained over seed 2, to which a job pointed that had skipped it: its score under another seed."""
    for number in (0, 1):
        leave(tmp_path / str(number), f"seed={number + 1}")
    with pytest.raises(UserError) as error:
        check_jobs(sweep(tmp_path, *told))
    assert str(error.value).startswith(f"{tmp_path}/{said}")


def test_another_command_is_refused(tmp_path):
    """One that leaves no word of itself writes over nothing."""
    leave(tmp_path / "0", "seed=1", command="distill")
    with pytest.raises(UserError, match="0 holds what kd-distill has made"):
        check_jobs(sweep(tmp_path, "seed=1,2"))
    for command in ("train", "evaluate"):
        with pytest.raises(UserError, match=r"0 holds what kd-distill has made: choose another hydra\.run\.dir"):
            begin(run(tmp_path / "0", "seed=1", command=command))
    begin(run(tmp_path / "0", command="evaluate", output_subdir=None))


def test_the_trials_of_a_search_are_written_over_by_no_other(tmp_path):
    """Each begins at 0, and draws its own values."""
    search = sweep(tmp_path, "optimizer.lr=interval(0,1)", sweeper={"n_trials": 2})
    (tmp_path / ".sweep.lock").touch()
    check_jobs(search)
    leave(tmp_path / "0", "optimizer.lr=0.5")
    with pytest.raises(UserError, match="0 is of an earlier search, whose trials this one would write over: choose"):
        check_jobs(search)


@pytest.mark.parametrize(
    ("folder", "subdir", "holds"),
    [
        ("", "${hydra.job.num}/x", "0/x"),
        ("", "job_${hydra.job.num}", "job_0"),
        ("", "seed_${seed}", "seed_2"),
        ("", "${logger}/${hydra.job.id}", "csv/0"),
        ("${logger}/s", "${hydra.job.num}", "csv/s/0"),
        ("limit_${data.limit}", "seed_${seed}", "limit_8/seed_2"),
    ],
)
def test_folders_may_be_named_by_anything(tmp_path, folder, subdir, holds):
    """Each job's is looked at as its launcher composes it; who goes on there is not refused."""
    leave(tmp_path / holds, "seed=2", "data.limit=8")
    check_jobs(sweep(tmp_path / folder, "seed=2,3", "data.limit=8", subdir=subdir))
    with pytest.raises(UserError, match=f"{holds} holds what kd-train without optimizer.lr=1 has made: choose"):
        check_jobs(sweep(tmp_path / folder, "seed=2,3", "data.limit=8", "optimizer.lr=1", subdir=subdir))


@pytest.mark.parametrize(("folder", "composes"), [("s_${at:%S}", 0), ("s_${at:%Y}", 2), ("new", 0), ("${seed}/s", 2)])
def test_what_nobody_can_hold_is_not_looked_at(tmp_path, monkeypatch, folder, composes):
    """A fifth of a second a job, before any begins."""
    OmegaConf.register_new_resolver("at", time.strftime, replace=True)
    asked = []
    loader = GlobalHydra.instance().config_loader()
    monkeypatch.setattr(loader, "load_sweep_config", lambda config, told: asked.append(told) or config)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".sweep.lock").touch()
    check_jobs(sweep(tmp_path / folder, "seed=1,2"))
    assert len(asked) == composes


@pytest.mark.parametrize("named", ["job_${hydra.job.num}", "${hydra.job.num}/x", "lr_${optimizer.lr}"])
def test_trials_may_be_named_by_anything(tmp_path, named):
    """What else lies there is not a trial."""
    search = sweep(tmp_path, "optimizer.lr=interval(0,1)", subdir=named, sweeper={"n_trials": 2})
    for other in ("2026-01-01/x", "job_new", "other"):
        leave(tmp_path / other, "seed=1")
    check_jobs(search)
    trial = tmp_path / named.replace("${hydra.job.num}", "1").replace("${optimizer.lr}", "0.5")
    leave(trial, "optimizer.lr=0.5")
    with pytest.raises(UserError, match=f"{trial.relative_to(tmp_path)} is of an earlier search"):
        check_jobs(search)
    check_jobs(sweep(tmp_path, "seed=interval(0,1)", subdir="${hydra.job.override_dirname}", sweeper={"n_trials": 2}))


def test_jobs_of_a_sweeper_of_ones_own_may_be_any(tmp_path):
    """What each is told is not known before it begins."""
    own = sweep(tmp_path, "seed=1,2", sweeper={"_target_": "mine.Sweeper"})
    check_jobs(own)
    leave(tmp_path / "1", "seed=1")
    with pytest.raises(UserError, match="1 is of an earlier sweep"):
        check_jobs(own)


def test_two_jobs_of_a_sweep_share_no_folder(tmp_path):
    """The later wrote over the earlier, both ended well, and the table had one."""
    sharing = sweep(tmp_path, "seed=1,2", "data.limit=4,8", subdir="seed_${seed}")
    with pytest.raises(UserError, match=r"jobs 0 and 1 would both write to .*/seed_1: with \$\{hydra.job.num\} in"):
        check_jobs(sharing)


def test_a_run_and_a_sweep_share_no_folder(tmp_path):
    """Each leaves a ``report.md``."""
    leave(tmp_path / "run", "seed=1")
    with pytest.raises(UserError, match=r"run holds what a single run has made: choose another hydra\.sweep\.dir"):
        check_jobs(sweep(tmp_path / "run", "seed=1"))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(UserError, match=r"sweep holds what a sweep has made: choose another hydra\.run\.dir"):
        begin(run(tmp_path / "sweep", "seed=1"))
    begin(run(tmp_path / "sweep" / "0", "seed=1"))


@pytest.mark.parametrize(("checkpoint", "refused"), [(True, True), (False, False)])
def test_what_is_not_finished_counts_by_its_checkpoint(tmp_path, checkpoint, refused):
    """What was refused, or crashed at once, is mended in its place."""
    leave(tmp_path / "0", "seed=1", status="failed", checkpoint=checkpoint)
    for check, asked in ((check_jobs, sweep(tmp_path, "seed=2,3")), (begin, run(tmp_path / "0", "seed=2"))):
        if refused:
            with pytest.raises(UserError, match="0 holds what kd-train with seed=1 has made"):
                check(asked)
        else:
            check(asked)


def test_what_was_skipped_is_no_work(tmp_path):
    leave(tmp_path / "run", "seed=1")
    leave(tmp_path / "0", "seed=1", status="running")
    (tmp_path / "0" / "finished_in.txt").write_text("../run\n")
    check_jobs(sweep(tmp_path, "seed=2,3"))


def test_a_single_run_has_its_folder_for_itself(tmp_path):
    """Hydra writes over what it has noted there, before anybody can refuse; a default may be told, or not."""
    leave(tmp_path, "ckpt_path=last")
    begin(run(tmp_path, "seed=1"))
    begin(run(tmp_path / "new", "seed=2"))
    with pytest.raises(UserError, match=r"holds what kd-train without seed=2 has made: choose another hydra\.run\.dir"):
        begin(run(tmp_path, "seed=2"))
    with marked_as_running(tmp_path), pytest.raises(UserError, match="is of a command that still goes on: wait"):
        begin(run(tmp_path, "seed=1"))


def test_two_runs_that_begin_together_share_no_folder(tmp_path):
    """Both trained there, one over the other: neither had marked it when the other looked."""
    with locked_if_free(tmp_path / "job"), pytest.raises(UserError, match="is of a command that still goes on: wait"):
        check_run(run(tmp_path, "seed=1"))
    check_run(run(tmp_path / ".." / tmp_path.name, "seed=1"))
    assert is_held(tmp_path / "job")
    with marked_as_running(tmp_path):
        assert state_of(tmp_path) == "running"
    assert not os.listdir(tmp_path)
    assert not is_held(tmp_path / "job")
    leave(tmp_path, "seed=1")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match="holds what kd-train with seed=1 has made"):
        check_run(run(tmp_path, "seed=2"))
    assert sorted(os.listdir(tmp_path)) == before


def test_one_who_is_led_is_refused_as_its_first_is(tmp_path, monkeypatch):
    """It waited ten minutes for the first; the folder is the first's."""
    monkeypatch.setattr(occupied, "own_seat", lambda: Seat(1, 2, 1, 0, "slurm"))
    leave(tmp_path, "seed=1")
    with locked_if_free(tmp_path / "job"):
        check_run(run(tmp_path, "seed=1"))
        with pytest.raises(UserError, match="holds what kd-train with seed=1 has made"):
            check_run(run(tmp_path, "seed=2"))


def test_an_evaluation_is_not_written_over(tmp_path):
    leave(tmp_path / "one", "seed=1", command="evaluate", status="")
    begin(run(tmp_path / "one", "seed=2", command="evaluate"))
    (tmp_path / "one" / "evaluation.json").touch()
    begin(run(tmp_path / "one", "seed=1", command="evaluate"))
    with pytest.raises(UserError, match="holds what kd-evaluate with seed=1 has made"):
        begin(run(tmp_path / "one", "seed=2", command="evaluate"))


@pytest.mark.parametrize("text", [None, "a: [1", "", "hydra: {}", "\0"])
def test_where_there_is_no_word_of_it_nothing_is_refused(tmp_path, text):
    """Nor is there a traceback."""
    leave(tmp_path, "seed=1")
    noted = tmp_path / ".hydra" / "hydra.yaml"
    if text is None:
        noted.unlink()
    else:
        noted.write_text(text)
    begin(run(tmp_path, "seed=2"))


def test_who_is_started_again_finds_his_own_folder(tmp_path, monkeypatch):
    """A file server keeps the lock of a machine that is gone."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with marked_as_running(tmp_path):
        begin(run(tmp_path, "seed=1"))


@pytest.mark.parametrize(("command", "state"), [("train", "running"), ("distill", "running"), ("predict", "finished")])
def test_a_single_run_is_seen_while_it_runs(tmp_path, monkeypatch, command, state):
    """Others with ``skip_finished=true`` leave it to it; killed, it is told from one that runs."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    if state == "running":  # in the place of a job that had failed
        (tmp_path / "error.txt").touch()
    with told_in_one_line(command):
        assert state_of(tmp_path) == state
    assert not os.listdir(tmp_path)


def test_who_is_gone_on_with_by_another_runs(tmp_path):
    """``ckpt_path=last`` trains in the folder of a job that was killed, whose mark lies there."""
    (tmp_path / ".running").touch()
    assert state_of(tmp_path) == "killed"
    with locked_if_free(tmp_path / "fit"):
        assert state_of(tmp_path) == "running"
