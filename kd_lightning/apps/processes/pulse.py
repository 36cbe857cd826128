"""How the processes of a job know that all of them are there: each gives signs, and looks for those of others.

A process that waits for another, in training or elsewhere, would wait for ever for one that was refused or killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig

from kd_lightning.apps.processes.preemption import Preempted, preempted
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.apps.processes.termination import end_from_thread, forget_thread, terminated
from kd_lightning.errors import Terminated, UserError, first_line

EVERY = 1.0
"""Seconds between two signs."""

LOST = 30
"""After so many turns of this process without a sign of another, that one is gone."""

LATE = 600
"""The same for one that has never come: tasks of a cluster do not start at once."""

GRACE = 12.0
"""Seconds that a process has to end by itself, when another is gone and it trains with that one."""

FAREWELL = timedelta(seconds=5)
"""How long the first process keeps the store for the others when it leaves with an error."""


class LeaderGone(SystemExit):
    """The first process of the job has ended, or will, and says why; this one ends without a word."""

    def __init__(self) -> None:
        super().__init__(1)


class Pulse:
    """The signs of life of a process, given by a thread as long as the block is; it ends when another has ended.

    Args:
        seat: Of this process.
        connect: Returns a connection to the store where the processes meet.
        look: Raises UserError if a process is seen to have ended.
    """

    def __init__(self, seat: Seat, connect: Callable[[], dist.Store], look: Callable[[], None] = lambda: None) -> None:
        self.seat, self._connect, self._look = seat, connect, look
        self._store = connect()  # a call that waits keeps a connection for itself, and the others' as well
        self._watched = range(1, seat.size) if seat.leads else range(1)
        self._seen: dict[int, tuple[bytes, int]] = {}  # rank -> its last sign, turns since then
        self._why: UserError | LeaderGone | None = None
        self._found, self._over = threading.Event(), threading.Event()
        self._rests = self._leaves = self._ended_us = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="pulse")

    def __enter__(self) -> Pulse:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; tell the others if an error is why. Of one that another's end has caused, that is what is told."""
        self._leaves = True
        try:
            why = self._cause(error)
        except Terminated:
            why = self._why
            if why is None:  # it comes from without
                raise
        self._over.set()
        self._thread.join()
        forget_thread()
        if error is not None:
            with suppress(dist.DistError):
                self._tell(why or error)
                if isinstance(error, UserError) and not self.seat.leads:
                    why = LeaderGone()  # which says it
        if why is not None:
            raise why from error

    def rest(self) -> None:
        """Look for the others no more: they may leave."""
        self._rests = True

    def check(self) -> None:
        """Raise if another process has ended.

        Raises:
            UserError: Who, and why.
            LeaderGone: If it is not for this process to say so.
        """
        if self._why is not None:
            raise self._why

    def _run(self) -> None:
        turns = 0
        while not self._over.wait(EVERY):
            turns += 1
            try:
                self._store.set(f"alive/{self.seat.rank}", str(turns))
                if not self._rests:
                    self._watch()
            except dist.DistError:  # the first keeps the store
                if not self._rests:
                    self._end(_gone(self.seat, 0, "has ended without a word"))
            except (UserError, LeaderGone) as why:
                self._end(why)

    def _watch(self) -> None:
        """Look for the others once.

        Raises:
            UserError: If one is gone.
            LeaderGone: If the first will say so.
        """
        self._look()
        if self._store.check(["gone"]):
            rank, message = json.loads(self._store.get("gone"))
            raise _gone(self.seat, rank, f"has ended: {message}") if self.seat.leads else LeaderGone()
        for rank in self._watched:
            there = self._store.check([f"alive/{rank}"])
            sign = bytes(self._store.get(f"alive/{rank}")) if there else b""
            last, turns = self._seen.get(rank, (b"", 0))
            self._seen[rank] = (sign, turns + 1 if sign == last else 0)
            if turns > (LOST if there else LATE):
                silent = f"has given no sign for {turns * EVERY:.0f} seconds: it was killed, or its machine is gone"
                raise _gone(self.seat, rank, silent)

    def _end(self, why: UserError | LeaderGone) -> None:
        """Let this process end, wherever it is."""
        self._rests = True
        if terminated() or preempted():  # it ends, and for a reason of its own
            return
        self._why = why
        self._found.set()
        if self._leaves:
            return
        self._ended_us = True  # before the signal, which may be handled at once
        self._ended_us = end_from_thread()
        timer = threading.Timer(GRACE, self._leave)
        timer.daemon = True
        timer.start()

    def _leave(self) -> None:
        """End the process at once, if it waits for the other where no exception comes: within a sum over GPUs."""
        if self._over.is_set() or not dist.is_initialized():
            return
        if isinstance(self._why, UserError):
            name = HydraConfig.get().job.config_name if HydraConfig.initialized() else "train"
            print(f"kd-{name}: error: {self._why}", file=sys.stderr, flush=True)
        os._exit(2)

    def _cause(self, error: BaseException | None) -> UserError | LeaderGone | None:
        """Return the end of another process, if it is why this one ends: a broken connection is seen before it."""
        broken = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
        if broken and not self._rests:
            self._found.wait(2 * LOST * EVERY)
        ended = self._ended_us and isinstance(error, Terminated)
        return self._why if broken or ended else None

    def _tell(self, error: BaseException) -> None:
        """Tell the others that this process leaves; its own end, and not one that follows from another's."""
        waits = isinstance(error, KeyboardInterrupt) and not (self.seat.leads and not isinstance(error, Preempted))
        if not (waits or isinstance(error, LeaderGone)):
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            self._store.compare_set("gone", "", json.dumps([self.seat.rank, message]))
        self._store.set(f"parted/{self.seat.rank}", "")
        if self.seat.leads and self.seat.started_by != "us":
            self._store.wait([f"parted/{rank}" for rank in range(1, self.seat.size)], FAREWELL)


def _gone(seat: Seat, rank: int, how: str) -> UserError:
    return UserError(f"process {rank} of {seat.size} {how}")
