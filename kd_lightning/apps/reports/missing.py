"""What is missing: runs that did not finish, jobs of sweeps that failed or never started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import (
    CRASHED,
    INTERRUPTED,
    KILLED,
    REFUSED,
    RUNNING,
    error_of,
    result_of_job,
    state_of,
)
from kd_lightning.apps.reports.collect import Run, read_yaml, sweep_folders
from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError

Overrides = frozenset[str]
GOES_ON = "interrupted; the same command goes on"
COMMANDS = ("distill", "train")
"""Commands whose runs have a summary."""


@dataclass(frozen=True)
class RecordedSweep:
    """A sweep, as ``multirun.yaml`` tells it.

    Args:
        folder: Its folder.
        jobs: Number -> folder, of the jobs that have one.
        told: The overrides of each of its jobs, in their order; None if only its sweeper knows them.
        count: How many jobs it was to have; None if only its sweeper knows it.
    """

    folder: Path
    jobs: dict[int, Path]
    told: list[list[str]] | None
    count: int | None


def missing(folders: Sequence[Path], runs: Sequence[Run], damaged: Sequence[str]) -> list[str]:
    """Return a line for each job or run that has no result, and for each summary that could not be read.

    A job whose overrides another run has finished since, in whatever folder, is not missing.

    Args:
        folders: Where to look for sweeps.
        runs: All runs there.
        damaged: What was said of summaries that could not be read.
    """
    by_folder = {run.folder.resolve(): run for run in runs}
    done = {run.overrides for run in runs if run.finished and run.overrides is not None}
    lines, of_sweeps = [], set()
    for sweep in sweeps(folders):
        if sweep.told and not sweep.jobs and not {*map(frozenset, sweep.told)} & done:
            lines.append(f"{sweep.folder}: none of its {len(sweep.told)} jobs has begun")
            continue
        for number in sorted({*sweep.jobs, *range(sweep.count or 0)}):
            folder = sweep.jobs.get(number)
            if folder is not None:
                of_sweeps.add(folder.resolve())
            told = _told(sweep, number)
            run = by_folder.get(folder.resolve()) if folder is not None else None
            if folder is not None and result_of_job(folder) is not None:
                continue  # of a run of its own, or of an earlier one that had finished
            if not (run is not None and run.finished) and (told is None or told not in done):
                what = "never started" if folder is None else state(folder, run)
                lines.append(f"{folder or sweep.folder / str(number)}{_shown(sweep, told)}: {what}")
    for run in runs:
        apart = run.finished or run.folder.resolve() in of_sweeps
        if not apart and (run.overrides is None or run.overrides not in done):
            lines.append(f"{run.folder}: {state(run.folder, run)}")
    return [*lines, *damaged]


def state(folder: Path, run: Run | None) -> str:
    """Return what became of a job or a run that has no result; the text of its ``error.txt`` if it has one."""
    how, error = state_of(folder), " ".join(error_of(folder).split())
    if error and how != RUNNING:  # it is being tried again
        return GOES_ON if how == INTERRUPTED else error if how in (REFUSED, CRASHED) else f"failed: {error}"
    if how in (RUNNING, KILLED):
        return "running" if how == RUNNING else "killed; the same command goes on"
    if run is None:
        return "no summary.json: refused or ended before it trained, or has only begun"
    written = max(path.stat().st_mtime for path in folder.iterdir())
    return {
        "running": f"running, or killed; last written {datetime.fromtimestamp(written):%Y-%m-%d %H:%M}",
        "failed": "failed; its log says why",
        "interrupted": GOES_ON,
    }.get(str(run.summary["status"]), f"status {run.summary['status']}")


def sweeps(folders: Sequence[Path]) -> Iterator[RecordedSweep]:
    """Yield the sweeps of distillations and fits under some folders, each once, whose jobs lie in numbered folders."""
    seen = set()
    for file in sorted({file for folder in folders for file in folder.rglob("multirun.yaml")}):
        if file.resolve() not in seen:
            seen.add(file.resolve())
            try:
                hydra = read_yaml(file)["hydra"]
                known = hydra["job"]["config_name"] in COMMANDS and hydra["sweep"]["subdir"] == "${hydra.job.num}"
            except (UserError, KeyError, TypeError):
                continue  # no sweep of ours
            if known:
                yield _sweep(file.parent, hydra)


def _sweep(folder: Path, hydra: Config) -> RecordedSweep:
    places = [path for place in sweep_folders(folder) for path in sorted(place.iterdir())]
    jobs = {int(path.name): path for path in places if path.name.isdigit() and path.is_dir()}
    sweeper = hydra.get("sweeper") or {}
    told = jobs_of_grid(sweeper, hydra["overrides"]["task"])
    return RecordedSweep(folder, jobs, told, sweeper.get("n_trials", None if told is None else len(told)))


def _told(sweep: RecordedSweep, number: int) -> Overrides | None:
    """Return what a job was told, or would have been."""
    folder = sweep.jobs.get(number)
    if folder is not None and (file := folder / ".hydra" / "overrides.yaml").is_file():
        found: Any = OmegaConf.load(file)
        return frozenset(map(str, found))
    return frozenset(sweep.told[number]) if sweep.told is not None and number < len(sweep.told) else None


def _shown(sweep: RecordedSweep, told: Overrides | None) -> str:
    """Return what a job was told that other jobs of the sweep were not, in brackets."""
    if told is None or not sweep.told:
        return ""
    shared = frozenset.intersection(*map(frozenset, sweep.told))
    order = [override.partition("=")[0] for override in sweep.told[0]]
    own = [override for name in order for override in told - shared if override.partition("=")[0] == name]
    return f" ({' '.join(own)})" if own else ""
