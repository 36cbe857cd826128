"""How jobs of a cluster stand, by its accounts or by its queue."""

import logging
import os

import pytest
from omegaconf import OmegaConf

pytest.importorskip("submitit", reason="needs the extra slurm")
from submitit.core.core import Job
from submitit.slurm.slurm import SlurmJob

from kd_lightning.apps.command_line.cluster_jobs import GONE, QueueWatcher, watch
from kd_lightning.apps.command_line.sweeps import Sweep


@pytest.fixture
def watcher_of(tmp_path, monkeypatch):
    """Return a function: a watcher of some jobs, beside tools of SLURM's that say these lines; None is no accounts."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def watching(jobs, queue, accounts=None):
        for tool, head, lines in (("squeue", "JOBID|STATE", queue), ("sacct", "JobID|State|NodeList", accounts)):
            says = "exit 1" if lines is None else "; ".join(f"echo '{line}'" for line in (head, *lines))
            (tmp_path / tool).write_text(f"#!/bin/sh\n{says}\n")
            (tmp_path / tool).chmod(0o755)
        watcher = QueueWatcher()
        for job in jobs:
            watcher.register_job(job)
        return watcher

    return watching


def test_the_queue_tells_what_accounts_would(watcher_of):
    """A job that the queue no longer knows has ended; so has one that was cancelled."""
    watcher = watcher_of(["7_0", "7_1", "7_2"], ["7_0|RUNNING", "7_1|CANCELLED"])
    assert [watcher.get_state(job, mode="force") for job in ("7_0", "7_1", "7_2")] == ["RUNNING", "CANCELLED", GONE]
    assert [watcher.is_done(job, mode="cache") for job in ("7_0", "7_1", "7_2")] == [False, True, True]
    later = watcher_of(["7_0", "7_1", "7_2"], ["7_0|CONFIGURING", "7_2|SUSPENDED"])
    assert [later.is_done(job) for job in ("7_0", "7_1", "7_2")] == [False, True, False]
    accounts = watcher_of(["8"], [], ["8|OUT_OF_MEMORY|a"])
    assert accounts.get_state("8", mode="force") == "OUT_OF_MEMORY"


@pytest.mark.parametrize(("accounts", "told"), [(False, "7"), (True, "7"), (True, "7_[0-1]"), (True, "7_[0-1%1]")])
def test_an_array_that_is_told_in_one_line_is_all_its_jobs(watcher_of, accounts, told):
    """Jobs that were cancelled before they began: the launcher waits for their answers for ever."""
    watcher = watcher_of(
        ["7_0", "7_1", "8_0"], [f"{told}|CANCELLED"], [f"{told}|CANCELLED by 0|a"] if accounts else None
    )
    assert [watcher.is_done(job) for job in ("7_0", "7_1", "8_0")] == [True, True, not accounts]


def test_where_the_jobs_are_is_said_once_for_each_array(tmp_path, monkeypatch, caplog):
    """The launcher waits for days in silence, and nobody knows for what."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Job, "results", lambda job: [job.job_id])
    monkeypatch.setattr(SlurmJob, "watcher", QueueWatcher())
    watch(Sweep(OmegaConf.create(), 0.0))
    caplog.set_level(logging.INFO)
    jobs = [SlurmJob(tmp_path / "sweep" / ".submitit" / "%j", name) for name in ("7_0", "7_1", "8")]
    assert [job.results() for job in jobs] == [["7_0"], ["7_1"], ["8"]]
    assert caplog.messages == [
        f"In the queue as job {job} (squeue -j {job}, scancel {job}); it prints into sweep/.submitit" for job in "78"
    ]
