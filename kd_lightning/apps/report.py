"""``kd-report``: many runs in one report; groups over seeds, tests, plots, and what is missing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kd_lightning import __version__
from kd_lightning.apps.command_line.interrupts import interrupt_in_one_line
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.errors import UserError

EPILOG = """\
Runs are grouped by their settings; those of a group differ in their seed alone. The folder of the report gets
report.md, report.html (one file; plots need matplotlib, the extra plots) and report.csv (a row per run, task, metric
and role). What is missing is listed: runs that did not finish, jobs of a sweep that failed or never started. A
summary.json that cannot be read is told, and the rest goes on. More: docs/report.md"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"kd-report: error: {message}; kd-report --help tells more\n")


def parser() -> argparse.ArgumentParser:
    """Return the options of the command line."""
    found = _Parser(
        prog="kd-report",
        description="kd-report: one report of all runs under some folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of runs or sweeps, at any depth")
    found.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (default: FOLDER/report)")
    found.add_argument("--version", action="version", version=f"kd_lightning {__version__}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report; exit code 0 if it was written, 2 with one line if not."""
    told = parser().parse_args(arguments)
    try:
        with interrupt_in_one_line("report"):
            _check(told.folders, told.output)
            from kd_lightning.apps.reports.write import write  # heavy

            write(told.folders, told.output or told.folders[0] / "report")
            sys.stdout.flush()
    except UserError as error:
        sys.exit(_told(str(error)))
    except BrokenPipeError:  # who read our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(_told(os_error(error)))


def _check(folders: Sequence[Path], output: Path | None) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder ({folder.absolute()}), expected folders of runs, such as outputs")
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, expected a folder")


def _told(message: str) -> int:
    print(f"kd-report: error: {message}", file=sys.stderr)
    return 2
