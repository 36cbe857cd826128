"""``kd-report``: many runs in one report; groups over seeds, tests, plots, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kd_lightning.apps.command_line.plain import OneLineParser, ended_in_one_line
from kd_lightning.errors import UserError

EPILOG = """\
Runs are grouped by their settings; those of a group differ in their seed alone. The folder of the report gets
report.md, report.html (one file; plots need matplotlib, the extra plots) and report.csv (a row per run, task, metric
and role). What is missing is listed: runs that did not finish, jobs of a sweep that failed or never started. A
summary.json that cannot be read is told, and the rest goes on. More: docs/report.md"""


def parser() -> OneLineParser:
    """Return the options of the command line."""
    found = OneLineParser("report", "kd-report: one report of all runs under some folders.", EPILOG)
    found.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of runs or sweeps, at any depth")
    found.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (default: FOLDER/report)")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report; exit code 0 if it was written, 2 with one line if not."""
    with ended_in_one_line("report"):
        told = parser().parse_args(arguments)
        _check(told.folders, told.output)
        from kd_lightning.apps.reports.write import write  # heavy

        write(told.folders, told.output or told.folders[0] / "report")


def _check(folders: Sequence[Path], output: Path | None) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder ({folder.absolute()}), expected folders of runs, such as outputs")
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, expected a folder")
    for known_by, whose in (("summary.json", "run"), ("multirun.yaml", "sweep")):
        if output is not None and (output / known_by).exists():
            raise UserError(
                f"--output {output} is a {whose}'s folder, which has a report.md of its own: choose another"
            )
