"""Ctrl-C and SIGTERM in one line, and the exit codes 130 and 143, as shells count them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

from kd_lightning.apps.command_line.going_on import how_it_goes_on
from kd_lightning.apps.processes.preemption import Preempted
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.processes.termination import ends_us
from kd_lightning.errors import Terminated

if TYPE_CHECKING:
    from kd_lightning.apps.command_line.sweeps import Sweep

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes."""


def tell(name: str) -> None:
    """Say that the command was interrupted, and how it goes on; of several processes the first says it for all."""
    if parent_process() is not None or not own_seat().leads:  # a worker of a launcher's, or led
        return
    begun = _sweeps_begun()
    if not begun and {"-m", "--multirun"} & {*sys.argv}:
        print(f"kd-{name}: interrupted; no job had begun", file=sys.__stderr__, flush=True)
        return
    launcher = begun[0].config.hydra.launcher["_target_"].rpartition(".")[2] if begun else ""
    apart = launcher == "LocalLauncher"  # Ctrl-C in a terminal ends its jobs, a signal to the command alone does not
    how = how_it_goes_on(name, begun[0].config.hydra.sweeper if begun else None, apart)
    if launcher == "SlurmLauncher":
        how = "; jobs that were submitted go on: squeue --me lists them, scancel ends them"
    print(f"kd-{name}: interrupted{how}", file=sys.__stderr__, flush=True)


def _sweeps_begun() -> list[Sweep]:
    """Return the sweep of this process; its module is not imported here: an interrupt may come while Hydra is."""
    sweeps = sys.modules.get("kd_lightning.apps.command_line.sweeps")
    return sweeps.begun if sweeps else []


@contextmanager
def interrupt_in_one_line(name: str) -> Iterator[None]:
    """End the command with one line where Ctrl-C or SIGTERM ends the block.

    Args:
        name: Of the command.
    """
    try:
        yield
    except Preempted:
        raise
    except KeyboardInterrupt as interrupt:
        tell(name)
        sys.exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED)


@contextmanager
def interrupt_at_once(name: str) -> Iterator[None]:
    """End the process at Ctrl-C or SIGTERM within the block, in which nothing is begun that would have to be ended.

    A library that is being imported takes the exception for a missing package, goes on without it, or fails in words
    of its own. Where a signal is ignored, or not ours, nothing changes.

    Args:
        name: Of the command.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = [number for number, handler in before.items() if ours and ends_us(handler)]

    def leave(number: int, frame: Any) -> None:
        tell(name)
        for sweep in _sweeps_begun():
            sweep.give_up()
        os._exit(128 + number)

    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
