"""How the processes of a job find each other."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore

from kd_lightning.apps.processes.children import Children
from kd_lightning.apps.processes.seat import ADDRESS, Seat, own_seat
from kd_lightning.apps.processes.team import Team, working_as
from kd_lightning.errors import UserError
from kd_lightning.files import write_text

PATIENCE = timedelta(minutes=10)
"""How long the processes of a job wait for its first one: tasks of a cluster do not start at once."""


meetings = itertools.count()
"""Of this process: the jobs of a sweep, each with a place of its own at a store that outlives them."""


@contextmanager
def met(processes: int, place: Path) -> Iterator[Team]:
    """Do the block with all processes of the job: those that were started for it, or that are started now.

    Args:
        processes: How many the job's fits are made for.
        place: A folder that all of them see.

    Raises:
        UserError: If others were started than the fits are made for, or the first one does not come.
    """
    seat = own_seat()
    if seat.size > 1 and processes not in (1, seat.size):
        raise UserError(
            f"trainer.devices and trainer.num_nodes come to {processes} processes, but {seat.started_by} started "
            f"{seat.size}: give both the same number"
        )
    if seat.size > 1:
        with working_as(Team(seat, _store_of(seat, place))) as team:
            yield team
            team.part()
    elif processes > 1:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        seat = Seat(0, processes, 0, 0, "us")
        children = Children(processes, f"127.0.0.1:{store.port}")
        with children, working_as(Team(seat, store, children.check)) as team:
            yield team
            team.part()
    else:
        with working_as(Team(Seat())) as team:
            yield team


def _store_of(seat: Seat, place: Path) -> Store:
    """Return the store at which the processes meet, kept by the first."""
    if seat.started_by == "us":
        return _connected(os.environ[ADDRESS])
    number = next(meetings)
    if seat.started_by == "torchrun":  # its agent keeps one, for all jobs and starts
        store = _connected(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
        return PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{number}", store)
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    address = place / f".meeting-{'-'.join(os.environ.get(name, '0') for name in names)}-{number}"
    if not seat.leads:
        return _connected(_read_when_there(address))
    alone = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
    host = "127.0.0.1" if alone else os.environ.get("MASTER_ADDR", os.environ["SLURMD_NODENAME"])
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
    place.mkdir(parents=True, exist_ok=True)
    write_text(address, f"{host}:{store.port}")
    return store


def _connected(address: str) -> TCPStore:
    host, _, port = address.rpartition(":")
    return TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=PATIENCE)


def _read_when_there(path: Path) -> str:
    """Return the content of a file that another process writes, whole.

    Raises:
        UserError: If it does not come.
    """
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        time.sleep(0.2)
    raise UserError(
        f"the first process of this job has not come within {PATIENCE.total_seconds() / 60:.0f} minutes (it would have "
        f"written {path}): paths.store must be a folder that all nodes of the job see"
    )
