"""What is missing: runs that did not finish, jobs of sweeps that failed or never started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kd_lightning.apps.arguments import name_of
from kd_lightning.apps.command_line.finished import noted_elsewhere, result_of_job
from kd_lightning.apps.command_line.going_on import ADDS, TOLD, is_search, more_to_tell
from kd_lightning.apps.command_line.grids import jobs_of_grid, swept
from kd_lightning.apps.command_line.jobs import (
    BUSY,
    CRASHED,
    INTERRUPTED,
    JOB_OF_SLURM,
    KILLED,
    QUEUED,
    REFUSED,
    RUNNING,
    error_of,
    state_of,
)
from kd_lightning.apps.command_line.notes import job_folders
from kd_lightning.apps.reports.collect import Run
from kd_lightning.apps.reports.noted import arguments_of, known_command, read_yaml
from kd_lightning.apps.settings.config_hash import changes_result
from kd_lightning.errors import UserError
from kd_lightning.files import files_named, last_change

Asked = tuple[str, frozenset[str]]
"""A command, and the arguments on which its result depends."""


@dataclass(frozen=True)
class RecordedSweep:
    """A sweep, as ``multirun.yaml`` tells it.

    Args:
        folder: Its folder.
        jobs: The folders of its jobs that have begun, in their order.
        told: The arguments of each of its jobs, in their order; None if they are not known before.
        command: Of the sweep.
        differ: The names of the settings in which they differ.
        searches: Whether they follow from results: none in particular is missing that has not begun.
    """

    folder: Path
    jobs: list[Path]
    told: list[list[str]] | None
    command: str
    differ: list[str]
    searches: bool = False


@dataclass(frozen=True)
class Lacking:
    """A job or a run that has no result.

    Args:
        line: What is said of it.
        asked: What it was asked for; None if that is not known.
        begun: Whether it has trained, or tried: what was left to another attempt has not.
    """

    line: str
    asked: Asked | None = None
    begun: bool = True


def missing(folders: Sequence[Path], runs: Sequence[Run], damaged: Sequence[str]) -> list[str]:
    """Return a line for each job or run that has no result, and for each file that could not be read.

    A job is not missing if another run has finished since whose command and arguments have the same result, in whatever
    folder; of several attempts at one result, the last that has begun is told.

    Args:
        folders: Where to look for sweeps.
        runs: All runs there.
        damaged: What was said of files that could not be read.
    """
    by_folder = {run.folder.resolve(): run for run in runs}
    done = {_asked(run.folder, run.overrides) for run in runs if run.finished}
    found, unread = sweeps(folders)
    lacking = [one for sweep in found for one in _of_sweep(sweep, by_folder, done, damaged)]
    of_sweeps = {job.resolve() for sweep in found for job in sweep.jobs}
    for run in runs:
        asked = _asked(run.folder, run.overrides)
        if not (run.finished or run.folder.resolve() in of_sweeps or (asked and asked in done)):
            lacking.append(Lacking(f"{run.folder}: {state(run.folder, run)}", asked))
    last = {one.asked: one for one in sorted(lacking, key=lambda one: one.begun) if one.asked is not None}
    lines = [one.line for one in lacking if one.asked is None or last[one.asked] is one]
    return [*lines, *damaged, *unread]


def _of_sweep(
    sweep: RecordedSweep, runs: dict[Path, Run], done: set[Asked | None], damaged: Sequence[str]
) -> Iterator[Lacking]:
    """Yield each job of a sweep that has no result; all as one, if none has begun. Of what is damaged it is said."""
    started = {folder: arguments_of(folder) for folder in sweep.jobs}
    for folder, told in started.items():
        run = runs.get(folder.resolve())
        has_result = result_of_job(folder) is not None or (run is not None and run.finished)
        asked = _asked(folder, told, sweep.command)
        is_told = any(line.startswith(f"{folder}/") for line in damaged)
        if not (has_result or is_told or (asked and asked in done)):
            line = f"{folder}{_shown(sweep, told)}: {state(folder, run, sweep)}"
            yield Lacking(line, asked, begun=not error_of(folder).startswith(BUSY))
    begun = [told for told in started.values() if told is not None]
    planned = [(i, told) for i, told in enumerate(map(frozenset, sweep.told or ())) if told not in begun]
    lacking = [(i, told) for i, told in planned if _counted(sweep.command, told) not in done]
    if lacking and len(lacking) == len(sweep.told or ()):
        yield Lacking(f"{sweep.folder}: none of its {len(lacking)} jobs has begun")
        return
    for i, told in lacking:
        asked = _counted(sweep.command, told)
        yield Lacking(f"{sweep.folder}, job {i}{_shown(sweep, told)}: never started", asked, begun=False)


def _asked(folder: Path, told: frozenset[str] | None, command: str = "") -> Asked | None:
    """Return what the job of a folder was asked for, None if that is not known.

    Args:
        folder: The job's.
        told: Its arguments.
        command: Of its sweep, where it has not noted its own.
    """
    return None if told is None else _counted(known_command(folder) or command, told)


def _counted(command: str, told: frozenset[str]) -> Asked:
    return command, frozenset(filter(changes_result, told))


def state(folder: Path, run: Run | None, sweep: RecordedSweep | None = None) -> str:
    """Return what became of a job or a run that has no result; the text of its ``error.txt`` if it has one."""
    how, error = state_of(folder), " ".join(error_of(folder).split())
    more = more_to_tell(known_command(folder) or "", sweep is not None)
    goes_on = ADDS if sweep and sweep.searches else f"the same command{' with ' if more else ''}{more} goes on"
    waits = "queued again, and goes on by itself"
    if (job := re.search(JOB_OF_SLURM, error)) is not None:
        goes_on += f", unless squeue still lists job {job[1]}"
        waits += f", if squeue still lists job {job[1]}"
    if error and how != RUNNING:  # it is being tried again
        own = {INTERRUPTED: f"interrupted; {goes_on}", QUEUED: waits}
        return own.get(how, error if how in (REFUSED, BUSY, CRASHED) else f"failed: {error}")
    if how in (RUNNING, KILLED):
        return "running" if how == RUNNING else f"killed; {goes_on}"
    if (elsewhere := noted_elsewhere(folder)) is not None:
        return f"had finished in {elsewhere}, where no result is any more"
    if run is None:
        return "no summary.json: refused or ended before it trained, or has only begun"
    written = max(map(last_change, folder.iterdir()))
    return {
        "running": f"running, or killed; last written {datetime.fromtimestamp(written):%Y-%m-%d %H:%M}",
        "failed": "failed; its log says why",
        "interrupted": f"interrupted; {goes_on}",
    }.get(str(run.summary["status"]), f"status {run.summary['status']}")


def sweeps(folders: Sequence[Path]) -> tuple[list[RecordedSweep], list[str]]:
    """Return the sweeps of distillations and fits under some folders, each once, and what could not be read."""
    found: list[RecordedSweep] = []
    unread: list[str] = []
    files = {file.resolve(): file for folder in folders for file in sorted(files_named("multirun.yaml", folder))}
    for file in sorted(files.values()):
        try:
            sweep = _sweep(file)
        except (UserError, KeyError, TypeError) as error:
            why = str(error) if isinstance(error, UserError) else f"{file} is not as Hydra writes it"
            unread.append(f"{why}: jobs of this sweep that have no summary.json are not told")
        else:
            found += [sweep] if sweep else []
    return found, unread


def _sweep(file: Path) -> RecordedSweep | None:
    """Return the sweep of a file, unless its command writes no summaries."""
    config = read_yaml(file)
    hydra = config["hydra"]
    if hydra["job"]["config_name"] not in TOLD:
        return None
    sweeper = hydra.get("sweeper") or {}
    told = jobs_of_grid(sweeper, hydra["overrides"]["task"])
    found = job_folders(file.parent)
    jobs = [job for job in found if known_command(job) in (None, *TOLD)]  # others predict in its folder
    differ = swept(sweeper, hydra["overrides"]["task"])
    return RecordedSweep(file.parent, jobs, told, hydra["job"]["config_name"], differ, is_search(sweeper))


def _shown(sweep: RecordedSweep, told: frozenset[str] | None) -> str:
    """Return what a job was told that other jobs of the sweep were not, in brackets."""
    shared = frozenset.intersection(*map(frozenset, sweep.told)) if sweep.told else frozenset()
    own = [one for name in sweep.differ for one in (told or shared) - shared if name_of(one) == name]
    return f" ({' '.join(own)})" if own else ""
