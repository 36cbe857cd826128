"""Jobs of a sweep in a queue: the launcher says where they are, and does not wait for those that were killed.

submitit asks ``sacct`` how jobs stand. Where a cluster keeps no accounts it waits for an answer that a killed job never
gives; where it does, the first job that was killed ends the wait for all others.
"""

from __future__ import annotations

import logging
import subprocess
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.core import Job
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from kd_lightning.apps.command_line.sweeps import Sweep
from kd_lightning.files import from_here

log = logging.getLogger(__name__)

EVERY_S = 60
"""At most so many seconds between two looks."""

GONE = "GONE"
"""Of a job that the queue no longer knows: it has ended, how is not kept."""

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
}
"""States that a job does not leave; in all others (booting nodes, suspended, queued again) it may still answer."""

States = dict[str, dict[str, str]]


class QueueWatcher(SlurmInfoWatcher):
    """How jobs stand by the accounts, or, where there are none, by the queue."""

    def __init__(self) -> None:
        super().__init__(delay_s=EVERY_S)
        self._accounts: bool | None = None

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Tell whether a job has ended: submitit takes every state that it does not know for an end."""
        state = self.get_state(job_id, mode=mode).upper().partition(" ")[0].rstrip("+")  # CANCELLED by 0
        return state in {*ENDED, GONE}

    def _make_command(self) -> list[str] | None:
        command: list[str] | None = super()._make_command()
        if command is None:
            return None
        if self._accounts is None:
            self._accounts = _works(command)
        return command if self._accounts else ["squeue", "--me", "--array", "--states=all", "--format=%i|%T"]

    def read_info(self, string: bytes | str) -> States:
        """Return job -> its state, of all that were asked for; an array that is told in one line is all its jobs."""
        found: States = super().read_info(string) if self._accounts else _queue(string)
        known = {job: found.get(job) or found.get(job.partition("_")[0]) for job in self._registered}
        if self._accounts:  # which may not know yet
            return {job: state for job, state in known.items() if state}
        return {job: state or {"JobID": job, "State": GONE} for job, state in known.items()}


def _queue(answer: bytes | str) -> States:
    text = answer.decode() if isinstance(answer, bytes) else answer
    rows = (line.split("|") for line in text.splitlines()[1:])
    return {job: {"JobID": job, "State": state} for job, state in rows}


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def watch(sweep: Sweep) -> None:
    """Say where the jobs are, note those that end without an answer, and go on with the others.

    Args:
        sweep: The one that this process has begun.
    """
    answers = Job.results
    queued: set[str] = set()

    def results(job: Any) -> list[Any]:
        array = job.job_id.partition("_")[0]
        if isinstance(job, SlurmJob) and array not in queued:
            queued.add(array)
            folder = from_here(job.paths.stdout.parents[1])
            log.info("In the queue as job %s (squeue -j %s, scancel %s); it prints into %s", *[array] * 3, folder)
        try:
            found: list[Any] = answers(job)
        except (UncompletedJobError, FailedJobError):
            told = tuple(job.submission().args[0])
            see = f"; see {from_here(job.paths.stderr)}" if job.paths.stderr.exists() else ""  # it may not have begun
            sweep.ended.setdefault(told, f"it has ended without an answer ({job.state}){see}")
            return [JobReturn(status=JobStatus.COMPLETED)]
        return found

    setattr(SlurmJob, "watcher", QueueWatcher())  # noqa: B010, no other way: submitit makes arrays of this class alone
    setattr(Job, "results", results)  # noqa: B010
