"""A job in dashboards: one run beside those of its fits, with the results of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_lightning.apps.fits.dashboards import OWN_ID, Shown, build_logger, kind_of_job, settings_told
from kd_lightning.apps.results.tables import GAINS
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.loggers import WandbRun, finished

SENT = ("tasks", "average", "averages", "objective", "parameters", "latency_ms", "seconds", "scores")
"""What is sent of a summary."""


@contextmanager
def job_run(cfg: Config, folder: Path, summary: Config) -> Iterator[None]:
    """Show a job as a run in the dashboards that are asked for, from the beginning of the block to its end.

    Args:
        cfg: The job's configuration.
        folder: The job's; it keeps the id of the run until the job has ended well, for who queues it again.
        summary: What the block fills; its numbers are the run's.
    """
    stage = kind_of_job()
    name = settings_told() or str(cfg.get("name", cfg.get("run")))
    shown = Shown(stage, name, stage, config_hash(cfg), folder, resumed=True)
    runs = [build_logger(option, node, cfg, shown) for option, node in (cfg.get("logger") or {}).items() if node]
    with finished(runs):
        for run in runs:
            run.log_hyperparams(cfg)
        try:
            yield
        finally:
            for run in runs:
                if numbers := summary_numbers(summary):
                    run.log_metrics(numbers)
                if isinstance(run, WandbRun) and "status" in summary:
                    run.summarise({"status": summary["status"]})
                run.save()
        (folder / OWN_ID).unlink(missing_ok=True)


def summary_numbers(summary: Config) -> dict[str, float]:
    """Return the numbers of a summary under their places, ``tasks/rte/student``, and gains beside the students.

    Example:
        >>> summary_numbers({"tasks": {"rte": {"metric": "accuracy", "student": 0.75, "baseline": 0.5}}})
        {'tasks/rte/student': 0.75, 'tasks/rte/baseline': 0.5, 'tasks/rte/gain': 0.25}
    """
    sent = {place: summary[place] for place in SENT if summary.get(place) is not None}
    return dict(_numbers("", sent))


def _numbers(place: str, node: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{place}{name}/", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{place}{name}", value
    for student, baseline in GAINS.items() if place.startswith(("tasks/", "average")) else ():
        ours, theirs = node.get(student), node.get(baseline)
        if isinstance(ours, float) and isinstance(theirs, float):
            yield f"{place}{student.replace('student', 'gain', 1)}", ours - theirs
