"""Runs in Weights & Biases, which are never in the way of what they show."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from kd_lightning.errors import first_line
from kd_lightning.progress import STEP

log = logging.getLogger(__name__)

LONGEST_TAG = 64
"""Letters; the service refuses longer ones."""

GRACE = 5.0
"""Seconds that the library gets beyond what it was told to wait for the service, before it is left alone."""


FLUSHED = "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL", "1"
"""Seconds after which values are in the run's files, where the library takes 15.

A scheduler that ends a job ends the library's own process at once, and what that still holds is lost.
"""


class WandbRun(Logger):
    """A run in Weights & Biases, one for each logger; whatever goes wrong there is a warning, and no more.

    ``log_hyperparams`` opens it, in the first process of a job. Nothing but ``finish`` (or ``finished``) ends it;
    Lightning finalises its loggers after each of its loops.

    Args:
        save_dir: Its files are in ``wandb/`` below this folder.
        project: In which project it is.
        entity: Whose project it is; None is the account's own.
        offline: Whether it is only written to files, which ``wandb sync`` sends.
        id: Names it for ever: a later process that gives the same goes on with it. None is a new one.
        name: What it is called in tables.
        group: Runs that belong together.
        job_type: What it is among them.
        tags: Words to find it by.
        facts: What its configuration says beside the settings that are logged.
        timeout: Seconds to wait for the service, at the beginning (then it is written to files) and at the end.
    """

    _unreachable = False  # of this process: the next run need not wait again

    def __init__(
        self,
        save_dir: str,
        project: str,
        *,
        entity: str | None = None,
        offline: bool = False,
        id: str | None = None,  # noqa: A002  the service's word
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        super().__init__()
        self._save_dir, self._name, self._id, self.offline, self.timeout = save_dir, name, id, offline, timeout
        self._facts = dict(facts or {})
        self._own: dict[str, Any] = {"project": project, "entity": entity, "id": id, "name": name, "group": group}
        self._own |= {"job_type": job_type, "tags": [*dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in tags if tag)]}
        self._run: Any = None
        self._maxima: set[str] = set()

    @property
    def save_dir(self) -> str:
        """Return the folder above the run's files."""
        return self._save_dir

    @property
    def name(self) -> str:
        """Return what the run is called."""
        return self._name or "wandb"

    @property
    def version(self) -> str:
        """Return the run's id."""
        return self._id or ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Open the run, with these settings."""
        if self._run is None:
            try:
                self._run = self._open({**self._facts, **params})
            except Exception as error:
                log.warning("wandb: %s; %s goes on without it", _why(error), self.name)
            self._tried(_over_steps)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send values; of scores (``val/...``) the run's summary keeps the highest."""
        at = {} if step is None else {STEP: step}
        new = {name for name in metrics if name.startswith("val/")} - self._maxima
        self._maxima |= new
        for name in sorted(new):
            self._tried(partial(_keep_maximum, name))
        self._tried(lambda run: run.log({**metrics, **at}))

    @rank_zero_only
    def summarise(self, values: Mapping[str, Any]) -> None:
        """Send what the run has come to."""
        self._tried(lambda run: run.summary.update(dict(values)))

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run, if it is open: its files are whole, and what can be sent in time is sent."""
        error = self._close(exit_code)
        if error is not None:
            log.warning("wandb: %s; what was not sent of %s is in its files", _why(error), self.name)

    def _close(self, exit_code: int) -> Exception | None:
        """End the run, if it is open; return what has gone wrong."""
        run, self._run = self._run, None
        if run is not None:
            try:
                _end(run, exit_code, self.timeout + GRACE)
            except Exception as error:
                if isinstance(error, ConnectionError):
                    _forget_process()
                return error
        return None

    def _open(self, config: Mapping[str, Any]) -> Any:
        """Return the run of the library; where the service does not take it, one that is written to files."""
        import wandb

        waits: dict[str, Any] = {"init_timeout": self.timeout, "finish_timeout": self.timeout}
        waits |= {"finish_timeout_raises": True}  # to be told
        os.environ.setdefault(*FLUSHED)
        place = Path(self._save_dir).absolute()  # the library's own process may have begun in another folder
        place.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {**self._own, "dir": str(place), "config": dict(config)}
        known |= {"reinit": "create_new", "resume": "allow", "settings": wandb.Settings(console="off", **waits)}
        if os.environ.get("WANDB_MODE") == "disabled":
            return wandb.init(mode="disabled", **known)
        if not self.offline and not WandbRun._unreachable:
            try:
                return wandb.init(mode="online", **known)
            except (wandb.errors.Error, TimeoutError) as error:
                self._tell_why_offline(error)
                known["id"] = self._id and f"{self._id}-offline"  # the library's process still holds the other
        return wandb.init(mode="offline", **known)

    def _tell_why_offline(self, error: Exception) -> None:
        """Warn; a service that does not answer is not tried again, one that refuses this run may take the next."""
        from wandb.errors import AuthenticationError, CommError

        lost = isinstance(error, CommError | TimeoutError) and not isinstance(error, AuthenticationError)
        WandbRun._unreachable = lost
        which = "runs are" if lost else f"{self.name} is"
        log.warning("wandb: %s; %s written to files, which wandb sync sends", first_line(error), which)

    def _tried(self, act: Callable[[Any], Any]) -> None:
        """Do something with the run; where that goes wrong, warn, end it, and do without it from now on."""
        if self._run is not None:
            try:
                act(self._run)
            except Exception as error:
                log.warning("wandb: %s; %s goes on without it", _why(error), self.name)
                self._close(1)


def _end(run: Any, exit_code: int, patience: float) -> None:
    """End a run of the library, which may wait for a process that does not answer.

    Raises:
        TimeoutError: If it has not ended in so many seconds.
    """
    failed: list[Exception] = []

    def finish() -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            failed.append(error)

    ending = threading.Thread(target=finish, daemon=True)
    ending.start()
    ending.join(patience)
    if ending.is_alive():
        failed.append(TimeoutError(f"its process has not answered for {patience:.0f} seconds"))
    if failed:
        raise failed[0]


def _why(error: Exception) -> str:
    """Return what has gone wrong; that the library's own process has gone shows in several ways."""
    return "its own process has ended" if isinstance(error, ConnectionError) else first_line(error)


def _forget_process() -> None:
    """Leave the library's own process alone, which has ended: the next run has another, and at exit nothing is told."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _keep_maximum(name: str, run: Any) -> None:
    run.define_metric(name, step_metric=STEP, summary="max")


def _over_steps(run: Any) -> None:
    """Show its values over optimiser steps."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
