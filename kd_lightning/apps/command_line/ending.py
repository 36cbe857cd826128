"""How a command ends where something is wrong, and a sweep where one of its jobs was."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.errors import UserError

refused_jobs: list[int] = []
"""Numbers of the sweep's jobs that ended with an error in this process."""


@contextmanager
def told_in_one_line(name: str) -> Iterator[None]:
    """End the command with one line and exit code 2 where the block meets a mistake of the user, or of the disk.

    Of a sweep whose jobs run here one after the other, the next job goes on, and the command ends so after the last.
    """
    try:
        yield
    except UserError as error:
        print(f"kd-{name}: error: {error}", file=sys.stderr)
        _end_of_job()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or "HYDRA_FULL_ERROR" in os.environ:
            raise
        print(f"kd-{name}: error: {os_error(error)}", file=sys.stderr)
        _end_of_job()


def _end_of_job() -> None:
    """Leave with exit code 2, unless other jobs follow in this process."""
    now = HydraConfig.get()
    if now.mode is not RunMode.MULTIRUN or not now.launcher["_target_"].endswith(".BasicLauncher"):
        sys.exit(2)
    refused_jobs.append(now.job.num)


def end_of_sweep(name: str) -> None:
    """Leave with exit code 2 if a job of the sweep did not succeed."""
    if refused_jobs:
        numbers = ", ".join(map(str, refused_jobs))
        what = f"job {numbers} of the sweep ended" if len(refused_jobs) == 1 else f"jobs {numbers} of the sweep ended"
        print(f"kd-{name}: error: {what} with an error, see above", file=sys.stderr)
        sys.exit(2)


@contextmanager
def no_litter() -> Iterator[None]:
    """Take a run's folder away if the command fails before it wrote anything there; those of a sweep stay."""
    try:
        yield
    except (UserError, OSError):
        now = HydraConfig.get()
        folder = Path(now.runtime.output_dir)
        hydras = {".hydra", f"{now.job.name}.log"}
        if now.mode is RunMode.RUN and folder != Path.cwd() and {path.name for path in folder.iterdir()} <= hydras:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()  # of the experiment, if it was its first run
        raise
