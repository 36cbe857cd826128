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
from contextlib import contextmanager
from typing import Any

from kd_lightning.apps.processes.seat import own_seat

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Either may be asked of SLURM: ``--signal=USR2@120``, as submitit does."""


class Preempted(KeyboardInterrupt):
    """The job's place has been taken away; it goes on when it has another."""


_noted: int | None = None
_deferred = False
_before: dict[int, Any] = {}


def preempted() -> bool:
    """Tell whether the job is to leave its place."""
    return _noted is not None


def _note(number: int, frame: Any) -> None:
    global _noted
    _noted = number
    if not _deferred:
        raise Preempted


def started_before() -> bool:
    """Tell whether the scheduler has started this job before: it goes on in the folder that it has."""
    return any(int(os.environ.get(f"{of}_RESTART_COUNT") or 0) for of in ("SLURM", "TORCHELASTIC"))


@contextmanager
def preemption_deferred() -> Iterator[None]:
    """Let the block end at a place of its own choice; outside of such blocks the job ends at once."""
    global _deferred
    before, _deferred = _deferred, True
    try:
        yield
    finally:
        _deferred = before


@contextmanager
def requeued_when_preempted() -> Iterator[None]:
    """Queue the job again where the block ends because its place was taken away, and end the process with success.

    No exception may leave it: the launcher of a sweep would take it for the job's result. Outside of SLURM nothing
    changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and "SLURM_JOB_ID" in os.environ):
        yield
        return
    _before.update({number: signal.signal(number, _note) for number in SIGNALS})
    try:
        yield
    except Preempted:
        if own_seat().leads:
            log.info("this job is queued again, and goes on from its last step")
            _requeue()
        leave()
    finally:
        for number, handler in _before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def leave() -> None:
    """End the process with success, at once."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _requeue() -> None:
    """Queue the job again: through submitit, which then knows, if it started the job."""
    handler = _handler_of_submitit()
    if handler is None:
        array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
        name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
        subprocess.run(["scontrol", "requeue", name], check=True)
        return
    try:
        handler(_noted or SIGNALS[-1], None)
    except SystemExit:
        return


def _handler_of_submitit() -> Callable[[int, Any], Any] | None:
    """Return what submitit would have done at the signal, if it started the job."""
    for handler in _before.values():
        if "submitit" in type(getattr(handler, "__self__", None)).__module__:
            found: Callable[[int, Any], Any] = handler
            return found
    return None
