"""What the folder of a sweep's job says to whoever looks there: that it runs, has finished, or why it has not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.command_line.notes import NOTED
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.apps.processes.preemption import LATE, PATIENCE, started_before
from kd_lightning.apps.settings.paths import FIT
from kd_lightning.errors import UserError, first_line
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


def nothing(folder: Path) -> None:
    """Do nothing about a folder."""


@contextmanager
def marked_as_running(
    folder: Path, check: Callable[[Path], None] = nothing, tell: Callable[[Path], None] = nothing, mark: bool = True
) -> Iterator[Callable[[str], None]]:
    """Hold the folder of a job, and let others see that it runs; of several processes of one job the first does.

    Args:
        folder: The job's.
        check: Raises ``NotOursError`` if the folder may not be had.
        tell: Leaves word there of what the job was told; then it has begun.
        mark: Whether a job that is killed is to be seen; it is worth it where one goes on where it was.

    Yields:
        What notes how the job has ended, if it has not finished. On a full disk the mark stays instead.

    Raises:
        NotOursError: If another process is at work there, if ``check`` says so, or if the folder cannot be written.
    """
    noted = True

    def note(end: str) -> None:
        nonlocal noted
        try:
            write_text(folder / ERROR, f"{end}\n")
        except OSError:
            noted = False

    with _held(folder):
        was_killed = (folder / MARK).exists()
        try:
            check(folder)
            with refusing():
                if mark:
                    (folder / MARK).touch()
                tell(folder)
                (folder / ELSEWHERE).unlink(missing_ok=True)
        except NotOursError:
            if not was_killed:
                (folder / MARK).unlink(missing_ok=True)
            raise
        try:
            yield note
        finally:
            if noted and (mark or not was_killed):
                (folder / MARK).unlink(missing_ok=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a job's folder; of one that was started again a file server may keep it: see ``LATE``.

    Raises:
        NotOursError: If another process is at work there, or one may not look.
    """
    again = started_before()
    with ExitStack() as stack:
        with refusing():
            free = stack.enter_context(locked_if_free(folder / JOB, LATE if again else LOOK))
        try:
            if not again and (not free or is_held(folder / FIT, unknown=False)):
                other = choose_another(HydraConfig.get().mode is RunMode.MULTIRUN)
                raise NotOursError(f"{from_here(folder)} {GOES_ON}: wait for its end, or {other}")
            yield
        finally:
            if free:
                (folder / f".{JOB}.lock").unlink(missing_ok=True)


@contextmanager
def refusing() -> Iterator[None]:
    """Make what is wrong in the block, with the settings or the disk, the refusal of a job's folder.

    Raises:
        NotOursError: If something is.
    """
    try:
        yield
    except (UserError, OmegaConfBaseException) as error:
        raise NotOursError(first_line(error)) from error
    except OSError as error:
        raise NotOursError(os_error(error)) from error


def choose_another(in_sweep: bool) -> str:
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
    """Take a run's folder away if nothing is there but word of its command; those of a sweep stay."""
    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    word = {NOTED, f"{now.job.name}.log", MARK, f".{JOB}.lock"}
    if now.mode is not RunMode.RUN or folder == Path.cwd() or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= word:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # of the experiment, if it was its first run
