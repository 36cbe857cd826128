"""How a command ends where something is wrong, and how a job of a sweep does, which must not end the others."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from kd_lightning.apps.command_line.finished import RunsElsewhereError
from kd_lightning.apps.command_line.going_on import TOLD, how_it_goes_on, is_search, more_to_tell
from kd_lightning.apps.command_line.jobs import (
    BUSY,
    CRASHED,
    ERROR,
    INTERRUPTED,
    QUEUED,
    REFUSED,
    NotOursError,
    marked_as_running,
    nothing,
    own_job,
    remove_if_empty,
)
from kd_lightning.apps.command_line.notes import note_refused
from kd_lightning.apps.command_line.one_line import FULL, os_error
from kd_lightning.apps.processes.preemption import Preempted
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import from_here, write_text

log = logging.getLogger(__name__)

EXIT_CODES = {REFUSED: 2, BUSY: 2, CRASHED: 1}
"""How a job ended -> the exit code of its process."""

OUTSIDE = "it was ended from outside"


@contextmanager
def told_in_one_line(
    name: str, check: Callable[[Path], None] = nothing, tell: Callable[[Path], None] = nothing
) -> Iterator[None]:
    """End the command with one line and exit code 2 where the block meets a mistake of the user, or of the disk.

    A job of a sweep ends so whatever it meets, with ``error.txt`` in its folder, and its process goes on: other jobs
    may follow there, or a launcher waits for its answer.

    Args:
        name: Of the command.
        check: Raises if the job's folder may not be had: see ``marked_as_running``.
        tell: Leaves word there of what it was told.

    Raises:
        NotOursError: Of a job of a sweep whose folder is another's, once that is said.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        with _job_of_sweep(name, folder, check, tell):
            yield
        return
    try:
        if own_seat().leads:
            with marked_as_running(folder, check, tell, mark=name in TOLD):
                yield
                (folder / ERROR).unlink(missing_ok=True)  # of a job that it went on with
        else:
            check(folder)
            yield
    except UserError as error:
        if own_seat().leads and not isinstance(error, NotOursError):  # else the log is another's
            _add_to_log(str(error))
        print(f"kd-{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or "HYDRA_FULL_ERROR" in os.environ:
            raise
        message = os_error(error) + _after_room(name, error)
        if own_seat().leads:
            _add_to_log(message)
        print(f"kd-{name}: error: {message}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _job_of_sweep(
    name: str, folder: Path, check: Callable[[Path], None], tell: Callable[[Path], None]
) -> Iterator[None]:
    """Note how a job of a sweep ends, in its folder if that is its own."""
    try:
        if own_seat().leads:
            with marked_as_running(folder, check, tell) as note, _survived(name, folder, note):
                yield
        else:
            check(folder)
            with _followed(name):
                yield
    except NotOursError as error:
        print(f"kd-{name}: error: job {HydraConfig.get().job.num}: {error}\n", end="", file=sys.stderr, flush=True)
        if own_seat().leads:
            note_refused(error)
        _leave_with(EXIT_CODES[REFUSED])
        raise


@contextmanager
def _followed(name: str) -> Iterator[None]:
    """Say what has ended a job in a process that does not lead, and go on to the next one, as the first does."""
    try:
        yield
    except SystemExit:  # the first says why
        pass
    except UserError as error:
        print(f"kd-{name}: error: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()


@contextmanager
def _survived(name: str, folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Note in a job's folder what ended it, and say so in one line; interrupts, and a reader that went away, go on."""
    number = HydraConfig.get().job.num
    try:
        yield
    except UserError as error:
        end = BUSY if isinstance(error, RunsElsewhereError) else REFUSED, str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        _keep_traceback()
        end = REFUSED, os_error(error) + _after_room(name, error)
    except Exception as error:
        end = CRASHED, f"{type(error).__name__}: {first_line(error)}{_keep_traceback()}"
    except BaseException as error:
        lost = isinstance(error, Preempted)
        note(f"{QUEUED}: it lost its place{_its_job()}" if lost else f"{INTERRUPTED}: {OUTSIDE}{_its_job()}")
        raise
    else:
        (folder / ERROR).unlink(missing_ok=True)
        return
    how, message = end
    note(f"{how}: {message}")
    if how != CRASHED:  # its traceback is there
        _add_to_log(message)
    line = f"kd-{name}: error: job {number}{' crashed' if how == CRASHED else ''}: {message}"
    print(f"{line}\n", end="", file=sys.stderr, flush=True)  # at once: jobs beside this one print, too
    _leave_with(EXIT_CODES[how])


def _after_room(name: str, error: OSError) -> str:
    """Return with what the same command goes on, once a full disk has room; a search has other values then."""
    now = HydraConfig.get()
    in_sweep = now.mode is RunMode.MULTIRUN
    if name != "train" or error.errno not in FULL or (in_sweep and is_search(now.sweeper)):
        return ""
    return f", with {more_to_tell(name, in_sweep)} to go on from its last checkpoint, if there is one"


def _its_job() -> str:
    """Return which job of a scheduler's this is, which may queue it again by itself."""
    return f", as job {job} of SLURM" if (job := own_job()) else ""


def tell_not_queued(name: str, why: str) -> None:
    """Say that a job has lost its place for good, and how it goes on.

    Args:
        name: Of the command.
        why: What the scheduler said.
    """
    now = HydraConfig.get()
    how = how_it_goes_on(name, now.sweeper if now.mode is RunMode.MULTIRUN else None)
    log.error("this job lost its place, and is not queued again: %s%s", why, how)
    if now.mode is RunMode.MULTIRUN:
        with suppress(OSError):
            write_text(Path(now.runtime.output_dir, ERROR), f"{INTERRUPTED}: {OUTSIDE}\n")


def _keep_traceback() -> str:
    """Write the traceback of what has just happened to the job's log file; return where that is, for the message."""
    trace = traceback.format_exc()
    files = _add_to_log(trace)
    if not files or "HYDRA_FULL_ERROR" in os.environ:
        print(trace, file=sys.stderr)
    return f"; traceback in {from_here(Path(files[0].baseFilename))}" if files else ""


def _add_to_log(text: str) -> list[logging.FileHandler]:
    """Write to the job's log what the terminal shows otherwise; return its files."""
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    told, logging.raiseExceptions = logging.raiseExceptions, False  # the disk may be what is full
    for handler in files:
        with suppress(OSError):
            handler.handle(logging.makeLogRecord({"name": __name__, "levelno": logging.ERROR, "msg": text}))
    logging.raiseExceptions = told
    return files


def _leave_with(code: int) -> None:
    """Give the process of a scheduler's job the exit code of its job: its launcher reads the answer, not the code."""
    if ".hydra_submitit_launcher." in HydraConfig.get().launcher["_target_"]:

        def leave() -> None:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.shutdown()
            os._exit(code)

        atexit.register(leave)


@contextmanager
def no_litter() -> Iterator[None]:
    """Take a run's folder away if the command fails before it wrote anything there; those of a sweep stay."""
    try:
        yield
    except (UserError, OSError):
        if own_seat().leads:
            remove_if_empty()
        raise
