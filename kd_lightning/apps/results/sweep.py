"""One table of a whole sweep: a row per run, after the last of them.

Hydra builds the callback before a command begins: what is heavy is imported when the table is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.jobs import overrides_of
from kd_lightning.apps.command_line.sweeps import begun_jobs, is_search
from kd_lightning.apps.processes.seat import own_seat

if TYPE_CHECKING:
    from kd_lightning.apps.results.tables import Row


class SweepTable(Callback):
    """Show the averages of all runs of a sweep, and write them to ``report.md`` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table, of the runs that have finished; of a search, the best trial first."""
        if not own_seat().leads:
            return
        from kd_lightning.apps.results.tables import markdown, show_table
        from kd_lightning.files import write_text

        folder = Path(config.hydra.sweep.dir)
        told = summaries(begun_jobs(folder, config.name))
        what = "averages of the sweep"
        if is_search(config):
            what = "averages of these trials, the best first"
            lowest = "minimize" in str(config.hydra.sweeper.get("direction")).lower()
            told.sort(key=lambda job: job[1]["objective"] or 0.0, reverse=not lowest)
        header, rows = sweep_rows(told)
        if rows:
            write_text(folder / "report.md", markdown(header, rows) + "\n")
            show_table(f"{what} ({folder / 'report.md'})", header, rows)
        if prepared := sum("until" in summary for _, summary in told):
            jobs = "1 job" if prepared == 1 else f"{prepared} jobs"
            print(f"teachers and soft targets of {jobs} are in {config.paths.store}")


Told = tuple[list[str], dict[str, Any]]
"""What a job was told, and its summary."""


def summaries(jobs: Sequence[Path]) -> list[Told]:
    """Return what jobs were told, and what they found.

    Args:
        jobs: Their folders; those without a result are left out.
    """
    from kd_lightning.files import read_json

    runs = {job: run for job in jobs if (run := result_of_job(job)) is not None}
    return [(overrides_of(job), read_json(run / "summary.json")) for job, run in runs.items()]


def sweep_rows(jobs: Sequence[Told]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a sweep's table: what each job was told that others were not, and averages.

    Args:
        jobs: Those with a student; of one alone all is told.
    """
    from kd_lightning.apps.results.tables import brief, columns

    found = [(told, summary) for told, summary in jobs if "until" not in summary]
    common = set.intersection(*(set(told) for told, _ in found)) if len(found) > 1 else set()
    own = [[override for override in told if override not in common] for told, _ in found]
    keys = {override.partition("=")[0] for overrides in own for override in overrides}
    shown = columns([summary["average"] for _, summary in found])
    rows: list[Row] = []
    for overrides, (_, summary) in zip(own, found, strict=True):
        settings = [(name, brief(value)) for name, _, value in (override.partition("=") for override in overrides)]
        name = " ".join(value if len(keys) == 1 else f"{name}={value}" for name, value in settings)
        cells = [cell(summary["average"]) for cell in shown.values()]
        rows.append([name or "as told", *cells, f"{summary['parameters']['student'] / 1e6:.2f} M"])
    return [*(keys if len(keys) == 1 else ["run"]), *shown, "parameters"], rows
