"""Runs in MLflow, which are never in the way of what they show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from kd_lightning.errors import UserError, first_line, to_install
from kd_lightning.files import IN_A_FILE, locked

log = logging.getLogger(__name__)

ENDS = {0: "FINISHED", 255: "KILLED"}
"""Exit code -> how the run ended, in MLflow's words; all others failed."""


class MlflowRun(Logger):
    """A run in MLflow, one for each logger; whatever goes wrong there is a warning, and no more.

    ``log_hyperparams`` opens it. A store in a file is made by one process at a time: of two that begin it together one
    fails at the other's tables. Once it is there, SQLite lets them write in turn.

    Args:
        experiment_name: The runs that it belongs to.
        tracking_uri: The store: ``sqlite:///FILE``, or a server.
        run_name: What it is called in tables.
        save_dir: The folder of the fit or the job.

    Raises:
        UserError: If the package is missing.
    """

    def __init__(self, experiment_name: str, tracking_uri: str, run_name: str = "run", save_dir: str = "") -> None:
        super().__init__()
        if find_spec("mlflow") is None:
            raise UserError(f"package mlflow-skinny is not installed: {to_install('mlflow')}")
        self.experiment_name, self.tracking_uri = experiment_name, tracking_uri
        self._name, self._save_dir = run_name, save_dir
        self._run: MLFlowLogger | None = None

    @property
    def save_dir(self) -> str:
        """Return the folder of the fit or the job; the store is elsewhere."""
        return self._save_dir

    @property
    def name(self) -> str:
        """Return what the run is called."""
        return self._name

    @property
    def version(self) -> str:
        """Return the run's id."""
        return (self._run and self._run.run_id) or ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Open the run, with these settings."""
        if self._run is None:
            try:
                self._run = self._open()
            except Exception as error:
                self._give_up(error)
        self._tried(lambda run: run.log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send values."""
        self._tried(lambda run: run.log_metrics(metrics, step))

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run, if it is open."""
        run, self._run = self._run, None
        if run is not None:
            try:
                run.finalize(ENDS.get(exit_code, "FAILED"))
            except Exception as error:
                self._give_up(error)

    def _open(self) -> MLFlowLogger:
        """Return Lightning's logger, its run begun; it makes the store, if it is not there."""
        with _alone(self.tracking_uri) as uri:
            run = MLFlowLogger(self.experiment_name, self._name, uri)
            _ = run.experiment
        return run

    def _tried(self, act: Callable[[MLFlowLogger], Any]) -> None:
        if self._run is not None:
            try:
                act(self._run)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Warn, and do without the run from now on."""
        log.warning("mlflow: %s; %s goes on without it", first_line(error), self._name)
        self._run = None


@contextmanager
def _alone(uri: str) -> Iterator[str]:
    """Keep other processes from a store in a file, and give its absolute address; a server looks after itself."""
    if not uri.startswith(IN_A_FILE):
        yield uri
        return
    store = Path(uri.removeprefix(IN_A_FILE)).absolute()
    with locked(store):
        yield f"{IN_A_FILE}{store}"
