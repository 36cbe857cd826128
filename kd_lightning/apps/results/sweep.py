"""One table of a whole sweep: a row per run, after the last of them.

Hydra builds the callback before a command begins: what is heavy is imported when the table is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from kd_lightning.apps.results.report import Row


class SweepTable(Callback):
    """Show the averages of all runs of a ``kd-distill -m``, and write them to ``report.md`` in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the table, of the runs that have finished."""
        from kd_lightning.apps.results.report import markdown, show_table
        from kd_lightning.data.folders import write_text

        folder = Path(config.hydra.sweep.dir)
        header, rows = sweep_rows(sweep_runs(folder, config.name))
        if rows:
            write_text(folder / "report.md", markdown(header, rows) + "\n")
            show_table(f"averages of the sweep ({folder / 'report.md'})", header, rows)


def sweep_runs(folder: Path, name: str) -> list[Path]:
    """Return the folders of a sweep's runs in their order, none of an earlier sweep into the same folder.

    Args:
        folder: The sweep's. If it is ``OUTPUT/NAME/SWEEP``, the runs of other experiments lie under their own names.
        name: The experiment's.
    """
    found = {*folder.glob("*/summary.json")}
    if folder.parent.name == name:
        found |= {*folder.parent.parent.glob(f"*/{folder.name}/*/summary.json")}
    begun = folder / "multirun.yaml"  # what Hydra writes first
    since = begun.stat().st_mtime if begun.exists() else 0.0
    runs = [path.parent for path in found if path.stat().st_mtime >= since]
    return sorted(runs, key=lambda run: (len(run.name), run.name))


def sweep_rows(runs: Sequence[Path]) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a sweep's table: what each run was told that others were not, and averages."""
    from kd_lightning.apps.results.report import columns
    from kd_lightning.data.folders import read_json

    told = [[str(override) for override in OmegaConf.load(run / ".hydra" / "overrides.yaml")] for run in runs]
    own = [[override for override in overrides if not all(override in others for others in told)] for overrides in told]
    keys = {override.partition("=")[0] for overrides in own for override in overrides}
    finished = []
    for run, overrides in zip(runs, own, strict=True):
        summary = read_json(run / "summary.json")
        if summary["status"] == "finished":
            finished.append((overrides, summary))
    shown = columns([summary["average"] for _, summary in finished])
    rows: list[Row] = []
    for overrides, summary in finished:
        name = " ".join(override.partition("=")[2] if len(keys) == 1 else override for override in overrides)
        cells = [cell(summary["average"]) for cell in shown.values()]
        rows.append([name or "the only one", *cells, f"{summary['parameters']['student'] / 1e6:.2f} M"])
    return [*(keys if len(keys) == 1 else ["run"]), *shown, "parameters"], rows
