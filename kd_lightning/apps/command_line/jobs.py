"""What the folder of a sweep's job says to whoever looks there: that it runs, has finished, or why it has not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.apps.processes.preemption import LATE, PATIENCE, started_before
from kd_lightning.apps.settings.paths import FIT
from kd_lightning.files import LOOK, files_named, is_held, last_change, lock_of, locked_if_free, write_text

ERROR = "error.txt"
"""One line: how the job was ended, and by what; there until it succeeds."""

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


reserved: dict[str, FileLock] = {}
"""Folder of a single run of this process -> the lock of its job, from before anything is written there."""


def reserve(folder: Path) -> bool:
    """Hold the lock of a run's folder until it is marked as running, and on; tell whether it was free."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder / JOB)
    with suppress(Timeout):
        lock.acquire(timeout=LOOK)
        reserved[os.path.abspath(folder)] = lock
    return lock.is_locked


def let_go(folder: Path) -> None:
    """Leave a folder to others that was reserved, if it was."""
    if (lock := reserved.pop(os.path.abspath(folder), None)) is not None:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def marked_as_running(folder: Path) -> Iterator[Callable[[str], None]]:
    """Let others see that the job of a folder runs; of several processes of one job the first does.

    Args:
        folder: The job's. What another process that is at it has left there stays.

    Yields:
        What notes how the job has ended, if it has not finished. On a full disk the mark stays instead.
    """
    stays = False
    lock = reserved.pop(os.path.abspath(folder), None)

    def note(end: str) -> None:
        nonlocal stays
        try:
            write_text(folder / ERROR, f"{end}\n")
        except OSError:
            stays = True

    with locked_if_free(folder / JOB, LATE if started_before() else LOOK, lock) as ours:
        if ours:
            (folder / ELSEWHERE).unlink(missing_ok=True)
        (folder / MARK).touch()
        try:
            yield note
        finally:
            if ours and not stays:
                (folder / MARK).unlink(missing_ok=True)
            if ours:
                (folder / f".{JOB}.lock").unlink(missing_ok=True)


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
    return job is not None and _is_queued(job[1])


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
    hydras = {".hydra", f"{now.job.name}.log", MARK, f".{JOB}.lock"}
    if now.mode is not RunMode.RUN or folder == Path.cwd() or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= hydras:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # of the experiment, if it was its first run


def job_folders(sweep: Path, name: str, since: float) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, in their order.

    Args:
        sweep: The sweep's folder. If it is ``OUTPUT/NAME/SWEEP``, jobs of other experiments lie under their own names.
        name: The experiment's.
        since: When the sweep began; jobs of an earlier one into the same folder do not count.
    """
    roots = {sweep}
    if sweep.parent.name == name:
        beside = sweep.parent.parent.glob(f"*/{sweep.name}")
        roots |= {folder for folder in beside if not (folder / "multirun.yaml").exists()}  # else it is another sweep
    told = (path for root in roots for path in files_named("overrides.yaml", root) if path.parent.name == ".hydra")
    found = [path.parents[1] for path in told if last_change(path) >= since]
    return sorted(found, key=lambda folder: [counting(part) for part in (folder.name, *folder.parts)])


def counting(name: str) -> list[tuple[int, str]]:
    """Return a key by which ten comes after nine, and letters are as in a dictionary.

    Example:
        >>> sorted(["10", "9", "tmkd", "bam_large", "bam2"], key=counting)
        ['9', '10', 'bam2', 'bam_large', 'tmkd']
    """
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def overrides_of(folder: Path) -> list[str]:
    """Return what a job was told."""
    return [str(override) for override in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]


def command_of(folder: Path) -> str:
    """Return the command of a job, ``distill`` or ``train``."""
    return str(OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.job.config_name)
