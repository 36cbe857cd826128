"""Ctrl-C at any moment: one line, and exit code 130, as shells count it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GOES_ON = "goes on from the last checkpoint"
HOW = {"distill": f"; the same command {GOES_ON}", "train": f"; ckpt_path=last {GOES_ON}"}
"""How what was interrupted is continued, by command."""


@contextmanager
def interrupt_in_one_line(name: str) -> Iterator[None]:
    """End the command with one line and exit code 130 where Ctrl-C ends the block.

    Args:
        name: Of the command.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"kd-{name}: interrupted{HOW.get(name, '')}", file=sys.__stderr__)
        sys.exit(130)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: libraries that are being imported take it for a missing package.

    One goes on without it, another fails in words of its own. Where Ctrl-C is ignored, or not ours, nothing changes.
    """
    found = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT)
    if found is not signal.default_int_handler:
        yield
        return
    came: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
