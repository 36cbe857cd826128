"""SIGTERM ends a command as Ctrl-C does, but where a model is trained: there, at the next step, with a checkpoint.

One handler for the whole command, whatever it does at the moment; libraries are kept from bringing their own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kd_lightning.errors import Terminated

_owner = 0
_noted = _deferred = _ending = _told_here = False
_before: Any = signal.SIG_DFL


def terminated() -> bool:
    """Tell whether the command was told to end."""
    return _noted


def ends_us(handler: Any) -> bool:
    """Tell whether a handler of SIGINT or SIGTERM ends the command, here and now."""
    return handler is signal.default_int_handler or (handler is _note and not callable(_before))


def _note(number: int, frame: Any) -> None:
    global _noted
    if os.getpid() != _owner:  # a process that a library has forked ends as if we were not here
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if callable(_before) and not (_deferred or _told_here):  # of a launcher, which waits for another signal
        _before(number, frame)
        return
    _noted = True
    if not _deferred:
        _end()


def _end() -> None:
    """End what runs; while it ends, a further signal changes nothing."""
    global _ending
    if not _ending:
        _ending = True
        raise Terminated


def end_from_thread() -> bool:
    """End the command from another thread than its first, as the signal would; tell whether that can be done."""
    global _told_here
    if signal.getsignal(signal.SIGTERM) is not _note:
        return False
    _told_here = True
    os.kill(os.getpid(), signal.SIGTERM)
    return True


def forget_thread() -> None:
    """Let the process go on, as if it had not been ended from a thread: other jobs may follow in it."""
    global _noted, _ending, _told_here
    if _told_here:
        _noted = _ending = _told_here = False


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block with ``Terminated``; within another such block nothing changes."""
    global _owner, _noted, _ending, _told_here, _before
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _note:
        yield
        return
    _owner, _noted, _ending, _told_here = os.getpid(), False, False, False
    _before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _before)
        _noted, _before = False, signal.SIG_DFL


@contextmanager
def termination_deferred() -> Iterator[None]:
    """Let the block end at a place of its own choice; if it has not, the command ends after it."""
    global _deferred
    before, _deferred = _deferred, True
    try:
        yield
    finally:
        _deferred = before
    if _noted and not _deferred:
        _end()
