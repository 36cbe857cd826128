"""A cluster takes a job's place away: what was asked for is noted, the job ends at its next step and is queued again.

We are the only owner of the signals. Lightning's own handler saves within the signal, and waits for ever where another
process of the job is elsewhere; submitit's saves nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.errors import first_line

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Either may be asked of SLURM: ``--signal=USR2@120``, as submitit does."""

PATIENCE = 60.0
"""Seconds that the scheduler has to answer."""


LATE = 150.0
"""Seconds that who is started again waits for the locks of before: NFS keeps those of a machine that is gone for 90."""


class Preempted(KeyboardInterrupt):
    """The job's place has been taken away; it goes on when it has another."""


_noted: int | None = None
_deferred = False
_before: dict[int, Any] = {}


def preempted() -> bool:
    """Tell whether the job is to leave its place."""
    return _noted is not None


def _note(number: int, frame: Any) -> None:
    """Note the signal, and end the job; while it ends, a further signal changes nothing."""
    global _noted
    _noted = number
    if not _deferred and not _ends(sys.exc_info()[1]):
        raise Preempted


def _ends(error: BaseException | None) -> bool:
    """Tell whether an exception, or one during which it came, ends the job."""
    return error is not None and (isinstance(error, Preempted) or _ends(error.__context__))


def started_before() -> bool:
    """Tell whether the scheduler has started this job before: it goes on in the folder that it has."""
    return any(int(os.environ.get(f"{of}_RESTART_COUNT") or 0) for of in ("SLURM", "TORCHELASTIC"))


@contextmanager
def preemption_deferred() -> Iterator[None]:
    """Let the block end at a place of its own choice; if it has not, the job ends after it."""
    global _deferred
    before, _deferred = _deferred, True
    try:
        yield
    finally:
        _deferred = before
    if preempted() and not _deferred:
        raise Preempted


@contextmanager
def requeued_when_preempted(refused: Callable[[str], None]) -> Iterator[None]:
    """Queue the job again where the block ends because its place was taken away, and end the process with success.

    No exception may leave it: the launcher of a sweep would take it for the job's result. Outside of SLURM nothing
    changes.

    Args:
        refused: Called with what the scheduler says, if it does not take the job.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and "SLURM_JOB_ID" in os.environ):
        yield
        return
    _before.update({number: signal.signal(number, _note) for number in SIGNALS})
    try:
        yield
    except Preempted:
        for one in (*SIGNALS, signal.SIGTERM):  # who is queued again is told to end, while it does so
            signal.signal(one, signal.SIG_IGN)
        leave(_queued_again(refused) if own_seat().leads else 0)
    finally:
        for number, handler in _before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def leave(code: int) -> None:
    """End the process at once."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _queued_again(refused: Callable[[str], None]) -> int:
    """Queue the job again, and say so; return the exit code of the process: 1 if the scheduler refuses."""
    try:
        _requeue()
    except Exception as error:  # of submitit, which counts, or of scontrol
        refused(str(getattr(error, "stderr", None) or first_line(error)).strip())
        return 1
    log.info("this job is queued again, and goes on from its last step")
    return 0


def _requeue() -> None:
    """Queue the job again: through submitit, which then knows, if it started the job."""
    handler = _handler_of_submitit()
    if handler is None:
        array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
        name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
        command = ["scontrol", "requeue", name]
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        return
    with suppress(SystemExit):  # how it ends well
        handler(_noted or SIGNALS[-1], None)


def _handler_of_submitit() -> Callable[[int, Any], Any] | None:
    """Return what submitit would have done at the signal, if it started the job."""
    for handler in _before.values():
        if "submitit" in type(getattr(handler, "__self__", None)).__module__:
            found: Callable[[int, Any], Any] = handler
            return found
    return None
