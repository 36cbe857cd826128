"""How the processes of a job find each other."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch.distributed import PrefixStore, Store, TCPStore

from kd_lightning.apps.processes.children import Children
from kd_lightning.apps.processes.pulse import Pulse
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
    if seat.size == 1 and processes == 1:
        with working_as(Team(seat)) as team:
            yield team
        return
    with ExitStack() as stack:
        if seat.size > 1:
            connect, look = stack.enter_context(_found(seat, place)), lambda: None
        else:
            seat = Seat(0, processes, 0, 0, "us")
            server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            connect = partial(_connected, f"127.0.0.1:{server.port}")
            look = stack.enter_context(Children(processes, f"127.0.0.1:{server.port}")).check
        pulse = stack.enter_context(Pulse(seat, connect, look))
        team = stack.enter_context(working_as(Team(seat, connect(), pulse.check, pulse.rest)))
        team.check_same("trainer.devices and trainer.num_nodes that come to", f"{processes}")
        yield team
        team.part()


@contextmanager
def _found(seat: Seat, place: Path) -> Iterator[Callable[[], Store]]:
    """Yield what connects to the store at which the processes meet; those of SLURM have one that the first keeps."""
    if seat.started_by == "us":
        yield partial(_connected, os.environ[ADDRESS])
        return
    number = _number()
    if seat.started_by == "torchrun":  # its agent keeps one, for all jobs and starts
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        prefix = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{number}"
        yield lambda: PrefixStore(prefix, _connected(address))
        return
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    note = place / f".meeting-{'-'.join(os.environ.get(name, '0') for name in names)}-{number}"
    if not seat.leads:
        yield partial(_connected, _read_when_there(note))
        return
    alone = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
    host = "127.0.0.1" if alone else _name_of_machine()
    server = TCPStore(host, 0, is_master=True, wait_for_workers=False)
    place.mkdir(parents=True, exist_ok=True)
    write_text(note, f"{host}:{server.port}")
    try:
        yield partial(_connected, f"{host}:{server.port}")
    finally:
        note.unlink(missing_ok=True)


def _name_of_machine() -> str:
    """Return a name of this machine by which other machines find it, of those that are known for it.

    Raises:
        UserError: If none of them has an address: who waits for a machine without one waits for minutes.
    """
    known = (os.environ.get("MASTER_ADDR"), os.environ.get("SLURMD_NODENAME"), socket.gethostname())
    names = list(dict.fromkeys(filter(None, known)))
    for name in names:
        with suppress(OSError):
            socket.getaddrinfo(name, None)
            return name
    raise UserError(
        f"the first process of this job has no address: {', '.join(names)} cannot be resolved; set MASTER_ADDR to a "
        "name by which the other nodes find this one"
    )


def _number() -> int:
    """Return the number of a job of this process, the same in all processes, whatever became of the jobs before it."""
    sweeps = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    return int(HydraConfig.get().job.num) if sweeps else next(meetings)


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
        with suppress(FileNotFoundError):
            return path.read_text(encoding="utf-8")
        time.sleep(0.2)
    raise UserError(
        f"the first process of this job has not come within {PATIENCE.total_seconds() / 60:.0f} minutes (it would have "
        f"written {path}): paths.store must be a folder that all nodes of the job see"
    )
