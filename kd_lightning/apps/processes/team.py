"""The processes of a job, which all run the same command: the first decides and writes, the others follow.

They meet at a ``TCPStore`` that the first keeps. What depends on time, on the store or on the clock is decided by the
first alone and agreed there; models are trained by all of them together. If the first ends, the others do.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_only

from kd_lightning.apps.processes.pulse import LeaderGone
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.errors import UserError

LOOK = timedelta(seconds=5)
"""How long one waits at a time; then the other processes are looked for again."""

FAREWELL = timedelta(seconds=60)
"""How long the first process waits for the others at the end."""

BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}
"""Device -> what its processes add up gradients with."""


class Team:
    """The processes of one job.

    Args:
        seat: Of this process.
        store: Where they meet; None if there is one process.
        look: Raises if a process that is waited for has ended.
        rest: Called when the others may leave.
    """

    def __init__(
        self,
        seat: Seat,
        store: dist.Store | None = None,
        look: Callable[[], None] = lambda: None,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.seat, self.store, self._look, self._rest = seat, store, look, rest
        self._agreed = self._groups = 0

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.seat.size

    @property
    def leads(self) -> bool:
        """Tell whether this process is the first."""
        return self.seat.leads

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Return what the first process decides; the others wait for it, however long it takes.

        Args:
            decide: Called in the first process alone; returns what JSON can hold.
        """
        if self.store is None:
            return decide()
        self._agreed += 1
        key = f"agreed/{self._agreed}"
        if self.leads:
            decided = decide()
            self.store.set(key, json.dumps(decided))
            return decided
        return json.loads(self._read(key))

    def wait(self) -> None:
        """Wait until the first process has come here, too."""
        self.agree(lambda: None)

    @contextmanager
    def first(self) -> Iterator[None]:
        """Let the first process do the block before the others: what it makes, they find."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def part(self) -> None:
        """Wait until all processes have come to the end: the store goes with the first."""
        if self.store is None:
            return
        if not self.leads:
            self.wait()
            self._rest()
            self.store.set(f"parted/{self.seat.rank}", "")
            return
        self._rest()
        self.wait()
        with suppress(dist.DistError):  # who has ended by itself says why
            self.store.wait([f"parted/{rank}" for rank in range(1, self.size)], FAREWELL)

    def check_same(self, what: str, value: str) -> None:
        """Check that all processes have the same value, before they train something together.

        Raises:
            UserError: If one has another.
        """
        if self.store is None:
            return
        for rank, found in enumerate(self._of_all(value)):
            if found != value:
                raise UserError(
                    f"process {rank} has {what} {found}, process {self.seat.rank} {value}: start all of them with the "
                    "same command, on the same files"
                )

    def _of_all(self, value: str) -> Iterator[str]:
        """Yield what each process says."""
        assert self.store is not None
        self._agreed += 1
        key = f"said/{self._agreed}"
        self.store.set(f"{key}/{self.seat.rank}", value)
        for rank in range(self.size):
            yield self._read(f"{key}/{rank}").decode()

    def _read(self, key: str) -> bytes:
        """Return a value once it is there; end the process if the one that keeps the store has ended."""
        assert self.store is not None
        while True:
            try:
                self.store.wait([key], LOOK)
                return bytes(self.store.get(key))
            except dist.DistStoreError:  # not yet there
                self._look()
            except dist.DistNetworkError:
                raise LeaderGone from None

    @contextmanager
    def group(self, device: str) -> Iterator[None]:
        """Join all processes in a group of ``torch.distributed``, which Lightning finds and trains in.

        Args:
            device: ``cuda`` or ``cpu``.
        """
        assert self.store is not None
        self._groups += 1
        deque(self._of_all("here"), maxlen=0)  # torch would wait long for one that has ended
        store = dist.PrefixStore(f"group/{self._groups}", self.store)
        dist.init_process_group(BACKENDS[device], store=store, rank=self.seat.rank, world_size=self.size)
        before = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
        try:
            yield
        finally:
            dist.destroy_process_group()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


_current = Team(Seat())


def team() -> Team:
    """Return the processes that do the present job."""
    return _current


@contextmanager
def working_as(found: Team) -> Iterator[Team]:
    """Let the block be done by a team."""
    global _current
    before, rank = _current, getattr(rank_zero_only, "rank", 0)
    _current = found
    setattr(rank_zero_only, "rank", found.seat.rank)  # noqa: B010, its type has none
    try:
        yield found
    finally:
        _current = before
        setattr(rank_zero_only, "rank", rank)  # noqa: B010
