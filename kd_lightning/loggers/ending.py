"""How runs in dashboards end: with what they show, in every case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytorch_lightning.loggers.logger import Logger

from kd_lightning.loggers.mlflow_run import MlflowRun
from kd_lightning.loggers.wandb_run import WandbRun


@contextmanager
def finished(loggers: Sequence[Logger]) -> Iterator[None]:
    """End the runs in Weights & Biases and MLflow with the block, in every case.

    Their exit code is 0, or 1 where it fails, or 255 (wandb's own) where Ctrl-C or SIGTERM ends it.
    """
    code = 1
    try:
        yield
        code = 0
    except KeyboardInterrupt:
        code = 255
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, WandbRun | MlflowRun):
                logger.finish(code)
