"""What the folder of a sweep's job says to whoever looks there: that it runs, has finished, or why it has not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from kd_lightning.apps.command_line.notes import NOTED
from kd_lightning.apps.processes.preemption import LATE, PATIENCE, started_before
from kd_lightning.apps.settings.paths import FIT
from kd_lightning.errors import UserError
from kd_lightning.files import LOOK, from_here, is_held, locked_if_free, write_text

ERROR = "error.txt"
"""One line: how the job was ended, and by what; there until it succeeds."""

GOES_ON = "is of a command that goes on"
"""What is said of a folder that another process has."""

ELSEWHERE = "finished_in.txt"
"""Holds the folder of the run that has a job's results in the place of its own, as seen from there."""

MARK = ".running"
"""There while the job runs; left behind if its process was killed, or could not say how it ended."""

JOB = "job"
"""Gives the lock its name that the job's process holds while it runs."""

JOB_OF_SLURM = r"as job (\S+) of SLURM"
"""How ``error.txt`` names the scheduler's job."""

FINISHED, RUNNING, REFUSED, INTERRUPTED, CRASHED, KILLED, QUEUED, BUSY = (
    "finished",
    "running",
    "refused",
    "interrupted",
    "crashed",
    "killed",
    "queued again",
    "run elsewhere",
)
"""How a job stands."""


class NotOursError(UserError):
    """The folder of a job is another's; not a file is changed there."""


@contextmanager
def marked_as_running(
    folder: Path, take: Callable[[Path], None] = lambda folder: None, mark: bool = True
) -> Iterator[Callable[[str], None]]:
    """Hold the folder of a job, and let others see that it runs; of several processes of one job the first does.

    Args:
        folder: The job's.
        take: Checks that the folder may be had, and leaves word there of what the job was told.
        mark: Whether a job that is killed is to be seen; it is worth it where one goes on where it was.

    Yields:
        What notes how the job has ended, if it has not finished. On a full disk the mark stays instead.

    Raises:
        NotOursError: If another process is at work there, or ``take`` says so.
    """
    stays = True
    again = started_before()  # a file server keeps the lock of a machine that is gone

    def note(end: str) -> None:
        nonlocal stays
        try:
            write_text(folder / ERROR, f"{end}\n")
        except OSError:
            stays = True

    with locked_if_free(folder / JOB, LATE if again else LOOK) as ours:
        try:
            if not again and (not ours or is_held(folder / FIT, unknown=False)):
                other = another(HydraConfig.get().mode is RunMode.MULTIRUN)
                raise NotOursError(f"{from_here(folder)} {GOES_ON}: wait for its end, or {other}")
            take(folder)
            if ours:
                (folder / ELSEWHERE).unlink(missing_ok=True)
            if mark:
                (folder / MARK).touch()
                stays = False
            yield note
        finally:
            if ours and not stays:
                (folder / MARK).unlink(missing_ok=True)
            if ours:
                (folder / f".{JOB}.lock").unlink(missing_ok=True)


def another(in_sweep: bool) -> str:
    """Return how a command that was told a folder by name gets one of its own."""
    return f"choose another hydra.{'sweep' if in_sweep else 'run'}.dir"


def state_of(folder: Path, unknown: bool = True) -> str:
    """Return how the job of a folder stands.

    Args:
        folder: The job's.
        unknown: Whether a job that has begun is said to run where one may not see that it was killed: in the folder
            of another user.
    """
    if (folder / MARK).exists():
        if any(is_held(folder / lock, unknown=unknown) for lock in (JOB, FIT)):
            return RUNNING  # the other lock: another job may go on with what was killed there
        if (folder / MARK).exists():  # if not, it has ended since: the mark goes before the lock
            return KILLED
    return error_of(folder).partition(":")[0] or FINISHED


def goes_on(folder: Path) -> bool:
    """Tell whether the job of a folder runs, or has a place in a queue, where it will run again."""
    state = state_of(folder, unknown=False)
    if state != QUEUED:
        return state == RUNNING
    job = re.search(JOB_OF_SLURM, error_of(folder))
    return job is not None and job[1] != own_job() and _is_queued(job[1])


def own_job() -> str:
    """Return what SLURM calls the job of this process, nothing if it is none."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def _is_queued(job: str) -> bool:
    """Tell whether SLURM knows a job that has not ended; where there is no SLURM, none is known."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%i"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return bool(subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).stdout.strip())
    return False


def error_of(folder: Path) -> str:
    """Return the line that tells how the job ended, nothing if it has finished."""
    try:
        return (folder / ERROR).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def remove_if_empty() -> None:
    """Take a run's folder away if nothing but Hydra wrote there; those of a sweep stay."""
    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    hydras = {NOTED, f"{now.job.name}.log", MARK, f".{JOB}.lock"}
    if now.mode is not RunMode.RUN or folder == Path.cwd() or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= hydras:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # of the experiment, if it was its first run
