"""How jobs of a cluster stand, by its accounts or by its queue."""

import os

import pytest

pytest.importorskip("submitit", reason="needs the extra slurm")
from kd_lightning.apps.command_line.cluster_jobs import GONE, QueueWatcher


def test_the_queue_tells_what_accounts_would(tmp_path, monkeypatch):
    """A job that the queue no longer knows has ended; so has one that was cancelled."""
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'JOBID|STATE'; echo '7_0|RUNNING'; echo '7_1|CANCELLED'\n")
    (tmp_path / "sacct").write_text("#!/bin/sh\nexit 1\n")
    for tool in ("squeue", "sacct"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    watcher = QueueWatcher()
    for job in ("7_0", "7_1", "7_2"):
        watcher.register_job(job)
    assert [watcher.get_state(job, mode="force") for job in ("7_0", "7_1", "7_2")] == ["RUNNING", "CANCELLED", GONE]
    assert [watcher.is_done(job, mode="cache") for job in ("7_0", "7_1", "7_2")] == [False, True, True]
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'JOBID|STATE'; echo '7_0|CONFIGURING'; echo '7_2|SUSPENDED'\n")
    later = QueueWatcher()
    for job in ("7_0", "7_1", "7_2"):
        later.register_job(job)
    assert [later.is_done(job) for job in ("7_0", "7_1", "7_2")] == [False, True, False]
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'JobID|State|NodeList'; echo '8|OUT_OF_MEMORY|a'\n")
    accounts = QueueWatcher()
    accounts.register_job("8")
    assert accounts.get_state("8", mode="force") == "OUT_OF_MEMORY"


@pytest.mark.parametrize(("accounts", "told"), [(False, "7"), (True, "7"), (True, "7_[0-1]"), (True, "7_[0-1%1]")])
def test_an_array_that_is_told_in_one_line_is_all_its_jobs(tmp_path, monkeypatch, accounts, told):
    """Jobs that were cancelled before they began: the launcher waits for their answers for ever."""
    (tmp_path / "sacct").write_text(f"#!/bin/sh\necho 'JobID|State|NodeList'; echo '{told}|CANCELLED by 0|a'\n")
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho 'JOBID|STATE'; echo '{told}|CANCELLED'\n")
    if not accounts:
        (tmp_path / "sacct").write_text("#!/bin/sh\nexit 1\n")
    for tool in ("squeue", "sacct"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    watcher = QueueWatcher()
    for job in ("7_0", "7_1", "8_0"):
        watcher.register_job(job)
    assert [watcher.is_done(job) for job in ("7_0", "7_1", "8_0")] == [True, True, not accounts]
