"""How runs in dashboards end: with what they show, in every case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytorch_lightning.loggers.logger import Logger

from kd_lightning.loggers.mlflow_run import MlflowRun
from kd_lightning.loggers.wandb_run import WandbRun

log = logging.getLogger(__name__)

HURRY = 10.0
"""Seconds that services have for the rest where a signal ends the command: who sent it does not wait long."""


@contextmanager
def finished(loggers: Sequence[Logger]) -> Iterator[None]:
    """End the runs in Weights & Biases and MLflow with the block, in every case.

    Their exit code is 0, or 1 where it fails, or 255 (wandb's own) where a signal ends it.
    """
    runs = [logger for logger in loggers if isinstance(logger, WandbRun | MlflowRun)]
    code = 1
    try:
        yield
        code = 0
    except KeyboardInterrupt:
        _finish_in_a_hurry(runs)
        raise
    finally:
        for run in runs:
            run.finish(code)  # one that has ended does nothing


def _finish_in_a_hurry(runs: Sequence[WandbRun | MlflowRun]) -> None:
    """End runs side by side; what a service does not take in time is left behind."""
    until = time.monotonic() + HURRY
    threads = [threading.Thread(target=run.finish, args=(255,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread, run in zip(threads, runs, strict=True):
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("%s: its service has not answered for %.0f seconds; it is left behind", run.name, HURRY)
