"""How far a long step has come: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
"""Over what dashboards show values: optimiser steps."""

PROGRESS = "train/progress"
"""The share of a fit's optimiser steps that are done, logged beside its losses."""

FIRST_LINE = 60.0
"""Seconds before the first line of a log, and at least between two; later a tenth of the time that has passed."""


class LoggedProgress:
    """Log how much is done and how long the rest will take: after a minute, and less and less often.

    Args:
        description: What is being done.
        total: How many units there are.
        unit: Their name.
        done: How many were done before.
    """

    def __init__(self, description: str, total: int, unit: str = "", done: int = 0) -> None:
        self.description, self.total, self.unit = description, total, f" {unit}" if unit else ""
        self.done, self._before = done, done
        self._started = self._logged = time.monotonic()

    def advance(self, count: int, note: Callable[[], str] = str) -> None:
        """Count further units, and log, if it is time and not the end.

        Args:
            count: How many.
            note: Gives what else to say; asked when it is time.
        """
        self.done += count
        now = time.monotonic()
        passed = now - self._started
        if now - self._logged < max(FIRST_LINE, passed / 10) or not self._before < self.done < self.total:
            return
        self._logged = now
        left = passed * (self.total - self.done) / (self.done - self._before)
        far = f"{self.done:,} of {self.total:,}{self.unit}"
        log.info("%s: %s", self.description, ", ".join(filter(None, (far, note(), f"{rough_time(left)} left"))))


def rough_time(seconds: float) -> str:
    """Return a time in seconds, minutes, or hours and minutes.

    Example:
        >>> rough_time(59), rough_time(200), rough_time(7500)
        ('59 s', '3 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def has_bars() -> bool:
    """Tell whether progress is shown as bars: on a terminal, where no process beside this one draws its own."""
    return sys.stderr.isatty() and parent_process() is None


@contextmanager
def track(description: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show how far the block has come, and the time left; give a function that advances it.

    Args:
        description: What is being done.
        total: How many units there are.
        unit: Their name; ``bytes`` are shown as files' sizes are.
    """
    if not has_bars():
        yield LoggedProgress(description, total, unit).advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(description, total=total)
        yield lambda count: progress.advance(bar, count)
