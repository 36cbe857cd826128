"""How jobs of a cluster stand, by its accounts or by its queue."""

import os

import pytest

pytest.importorskip("submitit", reason="needs the extra slurm")
from kd_lightning.apps.command_line.cluster_jobs import GONE, QueueWatcher


@pytest.fixture
def watch(tmp_path, monkeypatch):
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


def test_the_queue_tells_what_accounts_would(watch):
    """A job that the queue no longer knows has ended; so has one that was cancelled."""
    watcher = watch(["7_0", "7_1", "7_2"], ["7_0|RUNNING", "7_1|CANCELLED"])
    assert [watcher.get_state(job, mode="force") for job in ("7_0", "7_1", "7_2")] == ["RUNNING", "CANCELLED", GONE]
    assert [watcher.is_done(job, mode="cache") for job in ("7_0", "7_1", "7_2")] == [False, True, True]
    later = watch(["7_0", "7_1", "7_2"], ["7_0|CONFIGURING", "7_2|SUSPENDED"])
    assert [later.is_done(job) for job in ("7_0", "7_1", "7_2")] == [False, True, False]
    accounts = watch(["8"], [], ["8|OUT_OF_MEMORY|a"])
    assert accounts.get_state("8", mode="force") == "OUT_OF_MEMORY"


@pytest.mark.parametrize(("accounts", "told"), [(False, "7"), (True, "7"), (True, "7_[0-1]"), (True, "7_[0-1%1]")])
def test_an_array_that_is_told_in_one_line_is_all_its_jobs(watch, accounts, told):
    """Jobs that were cancelled before they began: the launcher waits for their answers for ever."""
    watcher = watch(["7_0", "7_1", "8_0"], [f"{told}|CANCELLED"], [f"{told}|CANCELLED by 0|a"] if accounts else None)
    assert [watcher.is_done(job) for job in ("7_0", "7_1", "8_0")] == [True, True, not accounts]
