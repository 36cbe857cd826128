"""Jobs beside each other on one machine: a GPU for each worker, and lines that say whose they are."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from kd_lightning.apps.processes.seat import own_seat

held: list[FileLock] = []
"""The lock of this worker's GPU, until its process ends."""

SILENT = ("hydra/job_logging=none", "hydra/hydra_logging=none")
"""What Hydra is told in the processes that SLURM or torchrun start beside the first, which speaks for all."""


def silent_if_led(argv: list[str]) -> list[str]:
    """Return the arguments of a command, with those that keep Hydra silent where another process leads."""
    if own_seat().leads:
        return argv
    settings = (place for place, argument in enumerate(argv) if re.match(r"[^-].*=", argument))
    first = next(settings, len(argv))  # options may stand before and after settings, not between them
    return [*argv[:first], *SILENT, *argv[first:]]


def silence_if_led() -> None:
    """Keep lines off the terminal and out of the log where another process leads and says the same."""
    if not own_seat().leads:
        logging.getLogger().handlers[:] = [logging.NullHandler()]


def settle_worker() -> None:
    """Prepare a process of the joblib launcher for the job that begins in it; other processes stay as they are."""
    now = HydraConfig.get()
    if now.mode is RunMode.MULTIRUN and now.launcher["_target_"].endswith(".JoblibLauncher"):
        _number_lines(now.job.num)
        if not held:
            take_gpu(Path(now.sweep.dir), visible_gpus(), now.job.num)


@contextmanager
def leaving_with_launcher() -> Iterator[None]:
    """Let a worker of the joblib launcher end after the job of the block where that was killed.

    It would wait for its next job, with all that it has loaded, until joblib's patience ends: five minutes.
    """
    launcher = parent_process()
    try:
        yield
    finally:
        if launcher is not None and os.getppid() != launcher.pid:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(1)  # who would be told of its result is gone


def _number_lines(number: int) -> None:
    """Put the job's number in front of its lines on the terminal; the log file is its own."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(logging.Formatter(f"#{number} %(message)s"))


def visible_gpus(drivers: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the numbers of the GPUs that this process may use, as CUDA counts them; nothing is loaded for it.

    Args:
        drivers: Where the driver has a folder for each.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    return [str(number) for number in range(len(list(drivers.glob("*"))))]


def take_gpu(folder: Path, gpus: list[str], number: int) -> None:
    """Let this process see one GPU, which no other worker of the sweep has; with more workers than GPUs, they share.

    Args:
        folder: The sweep's, for the locks.
        gpus: Those of all workers.
        number: Of the job, by which GPUs are shared.
    """
    if len(gpus) < 2:
        return
    for gpu in gpus:
        lock = FileLock(folder / f".gpu-{gpu}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        held.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
