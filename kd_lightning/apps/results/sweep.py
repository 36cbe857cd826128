"""One table of a whole sweep: a row per run, after the last of them.

Hydra builds the callback before a command begins: what is heavy is imported when the table is made.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from kd_lightning.apps.arguments import name_of, told_by
from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.going_on import is_search
from kd_lightning.apps.command_line.grids import jobs_of_grid, swept
from kd_lightning.apps.command_line.jobs import FINISHED, state_of
from kd_lightning.apps.command_line.notes import begun_jobs, overrides_of
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.apps.processes.seat import own_seat

if TYPE_CHECKING:
    from kd_lightning.apps.results.tables import Row


log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Show the averages of all runs of a sweep, and write them to ``report.md`` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table, of the runs that have finished; of a search, the best trial first."""
        if not own_seat().leads:
            return
        from kd_lightning.apps.results.tables import markdown, show_table
        from kd_lightning.files import write_text

        folder = Path(config.hydra.sweep.dir)
        planned = jobs_of_grid(config.hydra.sweeper, told_by(config.hydra))
        told = summaries([job for job in begun_jobs(folder, planned) if state_of(job) == FINISHED])
        what, own = "averages of the sweep", set[str]()
        if is_search(config.hydra.sweeper):
            what = "averages of these trials, the best first"
            lowest = "minimize" in str(config.hydra.sweeper.get("direction")).lower()
            told.sort(key=partial(_from_best, lowest))
            differ = swept(config.hydra.sweeper, told_by(config.hydra))
            own = {one for job in told for one in job.overrides if name_of(one) in differ}
        header, rows = sweep_rows(told, planned or [], own)
        if rows:
            show_table(f"{what} ({folder / 'report.md'})", header, rows)
            try:
                write_text(folder / "report.md", markdown(header, rows) + "\n")
            except OSError as error:
                log.warning("%s", os_error(error))
        if prepared := sum("until" in job.summary for job in told):
            jobs = "1 job" if prepared == 1 else f"{prepared} jobs"
            print(f"teachers and soft targets of {jobs} are in {config.paths.store}")


@dataclass(frozen=True)
class Told:
    """A job that has finished.

    Args:
        name: Of its folder.
        overrides: What it was told.
        summary: What it found.
    """

    name: str
    overrides: list[str]
    summary: dict[str, Any]


def _from_best(lowest: bool, job: Told) -> tuple[bool, float]:
    """Return the key by which the best job comes first; one without an objective is the last."""
    found = job.summary["objective"]
    return found is None, (found or 0.0) if lowest else -(found or 0.0)


def summaries(jobs: Sequence[Path]) -> list[Told]:
    """Return what jobs were told, and what they found.

    Args:
        jobs: Their folders; those without a result are left out.
    """
    from kd_lightning.files import read_json

    runs = {job: run for job in jobs if (run := result_of_job(job)) is not None}
    return [Told(job.name, overrides_of(job), read_json(run / "summary.json")) for job, run in runs.items()]


def sweep_rows(
    jobs: Sequence[Told], planned: Sequence[Sequence[str]] = (), own: Collection[str] = ()
) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a sweep's table: what each job was told that others were not, and averages.

    Args:
        jobs: Those that have finished; of those without a student there is no row.
        planned: What each job of the sweep was to be told, if that is known: it tells one that is left from the others.
        own: What jobs were told that is shown though all of them were: what a search has drawn.
    """
    from kd_lightning.apps.results.tables import briefly, columns

    found = [job for job in jobs if "until" not in job.summary]
    each = [set(told) for told in (*(planned if len(found) == 1 else ()), *(job.overrides for job in found))]
    common = set.intersection(*each) - set(own) if each else set()
    apart = [[_shown(override) for override in job.overrides if override not in common] for job in found]
    keys = list(dict.fromkeys(name for settings in apart for name, _ in settings))
    brief = briefly([value for settings in apart for _, value in settings])
    shown = columns([job.summary["average"] for job in found])
    rows: list[Row] = []
    for settings, job in zip(apart, found, strict=True):
        told = [(name, brief[value]) for name, value in settings]
        name = " ".join(value if len(keys) == 1 else f"{name}={value}" for name, value in told)
        cells = [cell(job.summary["average"]) for cell in shown.values()]
        rows.append([name or job.name, *cells, f"{job.summary['parameters']['student'] / 1e6:.2f} M"])
    return [*(keys if len(keys) == 1 else ["run"]), *shown, "parameters"], rows


def _shown(override: str) -> tuple[str, str]:
    """Return the name of a setting and its value without quotes."""
    name, _, value = override.partition("=")
    return name, value.strip("'\"")
