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
from kd_lightning.apps.command_line.sweeps import begun_jobs
from kd_lightning.apps.processes.seat import own_seat

if TYPE_CHECKING:
    from kd_lightning.apps.results.tables import Row


class SweepTable(Callback):
    """Show the averages of all runs of a ``kd-distill -m``, and write them to ``report.md`` in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table, of the runs that have finished."""
        if not own_seat().leads:
            return
        from kd_lightning.apps.results.tables import markdown, show_table
        from kd_lightning.files import write_text

        folder = Path(config.hydra.sweep.dir)
        header, rows = sweep_rows(begun_jobs(folder, config.name))
        if rows:
            write_text(folder / "report.md", markdown(header, rows) + "\n")
            show_table(f"averages of the sweep ({folder / 'report.md'})", header, rows)


def sweep_rows(jobs: Sequence[Path]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a sweep's table: what each job was told that others were not, and averages.

    Args:
        jobs: Their folders; those without a result have no row.
    """
    from kd_lightning.apps.results.tables import columns
    from kd_lightning.files import read_json

    runs = {job: run for job in jobs if (run := result_of_job(job)) is not None}
    summaries = {job: read_json(run / "summary.json") for job, run in runs.items()}
    summaries = {job: summary for job, summary in summaries.items() if "until" not in summary}  # they have no student
    told = [overrides_of(job) for job in summaries]
    own = [[override for override in overrides if not all(override in others for others in told)] for overrides in told]
    keys = {override.partition("=")[0] for overrides in own for override in overrides}
    shown = columns([summary["average"] for summary in summaries.values()])
    rows: list[Row] = []
    for overrides, summary in zip(own, summaries.values(), strict=True):
        name = " ".join(override.partition("=")[2] if len(keys) == 1 else override for override in overrides)
        cells = [cell(summary["average"]) for cell in shown.values()]
        rows.append([name or "the only one", *cells, f"{summary['parameters']['student'] / 1e6:.2f} M"])
    return [*(keys if len(keys) == 1 else ["run"]), *shown, "parameters"], rows
