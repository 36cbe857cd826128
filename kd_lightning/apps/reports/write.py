"""From folders of runs to the three files of a report, and its main table on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from kd_lightning.apps.reports.cells import Table
from kd_lightning.apps.reports.collect import collect
from kd_lightning.apps.reports.group import Group, group
from kd_lightning.apps.reports.missing import missing
from kd_lightning.apps.reports.page import Report, as_html, as_markdown
from kd_lightning.apps.reports.plots import can_plot, plots
from kd_lightning.apps.reports.predictions import predictions
from kd_lightning.apps.reports.row_tables import rows_table
from kd_lightning.apps.reports.scores import long_table, main_scores
from kd_lightning.apps.reports.tables import main_table, pairs_table, size_table, spread_table, student_table
from kd_lightning.apps.results.tables import show_table
from kd_lightning.errors import UserError, to_install
from kd_lightning.files import write_text

NO_PLOTS = f"plots are left out, matplotlib is not installed: {to_install('plots')}"


def write(folders: Sequence[Path], output: Path) -> None:
    """Write ``report.md``, ``report.html`` and ``report.csv``, and print the main table and what is missing.

    Raises:
        UserError: If there is neither a run nor a sweep under the folders.
    """
    runs, damaged = collect(folders)
    lines = missing(folders, runs, damaged)
    if not runs and not lines:
        where = ", ".join(map(str, folders))
        raise UserError(f"no summary.json under {where}: expected folders of runs of kd-distill or kd-train")
    groups = group([run for run in runs if not run.is_trial] or runs)
    table = long_table(groups)
    predicted, unread = predictions(folders, groups)
    lines += unread
    by_row = rows_table(predicted, [one.name for one in groups])
    found, drawn = _contents(groups, table, by_row)
    counted = {run.folder for one in groups for run in one.runs}
    trials = sum(run.is_trial and run.folder not in counted for run in runs)
    report = Report(_title(folders), _facts(groups, len(lines), trials), found, drawn, lines, [*_groups(groups)])
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.csv", table.to_csv(index=False))
    write_text(output / "report.md", as_markdown(report))
    write_text(output / "report.html", as_html(report))
    _show(report, output)


def _contents(groups: Sequence[Group], table: pd.DataFrame, by_row: Table | None) -> tuple[list[Table], dict[str, str]]:
    """Return the tables and the plots; none of runs without scores."""
    if table.empty:
        return [], {}
    scores = main_scores(table)
    tables = [main_table(scores), student_table(scores), pairs_table(scores, table), by_row, size_table(groups)]
    tables.append(spread_table(scores))
    return [one for one in tables if one is not None and one.rows], plots(table, scores) if can_plot() else {}


def _title(folders: Sequence[Path]) -> str:
    return f"Runs in {', '.join(map(str, folders))}"


def _facts(groups: Sequence[Group], lacking: int, trials: int) -> str:
    runs, repeated = sum(len(one.runs) for one in groups), sum(len(one.repeated) for one in groups)
    said = [f"{_count(runs, 'finished run')} in {_count(len(groups), 'group')} of the same settings"]
    if len(groups) == 1:
        said.append(f"{groups[0].name}, {_seeds(groups[0])}")
    if repeated:
        said.append(f"{_count(repeated, 'older run')} of the same settings and seed left out")
    if trials:
        said.append(f"{_count(trials, 'run')} of debug=fast_dev_run left out")
    if lacking:
        said.append(f"{lacking} missing")
    return "; ".join(said) + "."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _seeds(one: Group) -> str:
    return f"seed{'s' * (len(one.seeds) > 1)} {', '.join(map(str, one.seeds))}"


def _groups(groups: Sequence[Group]) -> Iterator[str]:
    for one in groups:
        folders = ", ".join(str(run.folder) for run in one.runs)
        yield f"{one.name} ({one.runs[0].summary['system']}; {_seeds(one)}): {folders}"


def _show(report: Report, output: Path) -> None:
    for table in report.tables[:1]:
        show_table(report.title, table.header, table.rows, table.words)
        print(" ".join(table.notes))
    if report.missing:
        print(f"missing ({len(report.missing)}):", *report.missing, sep="\n  ")
    if not can_plot():
        print(f"kd-report: {NO_PLOTS}", file=sys.stderr)
    print(f"{report.facts} {output / 'report.html'}, report.md, report.csv")
