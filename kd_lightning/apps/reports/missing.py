"""What is missing: runs that did not finish, jobs of sweeps that failed or never started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from kd_lightning.apps.command_line.jobs import CRASHED, INTERRUPTED, REFUSED
from kd_lightning.apps.reports.collect import Run, read_yaml, sweep_folders
from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError

Overrides = frozenset[str]
GOES_ON = "interrupted; the same command goes on"
COMMANDS = ("distill", "train")
"""Commands whose runs have a summary."""


@dataclass(frozen=True)
class Sweep:
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
    error = folder / "error.txt"
    if error.is_file():
        text = " ".join(error.read_text(encoding="utf-8", errors="replace").split())
        how = text.partition(":")[0]
        return GOES_ON if how == INTERRUPTED else text if how in (REFUSED, CRASHED) else f"failed: {text}"
    if run is None:
        return "no summary.json: refused or ended before it trained, or has only begun"
    written = max(path.stat().st_mtime for path in folder.iterdir())
    return {
        "running": f"running, or killed; last written {datetime.fromtimestamp(written):%Y-%m-%d %H:%M}",
        "failed": "failed; its log says why",
        "interrupted": GOES_ON,
    }.get(str(run.summary["status"]), f"status {run.summary['status']}")


def sweeps(folders: Sequence[Path]) -> Iterator[Sweep]:
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


def _sweep(folder: Path, hydra: Config) -> Sweep:
    places = [path for place in sweep_folders(folder) for path in sorted(place.iterdir())]
    jobs = {int(path.name): path for path in places if path.name.isdigit() and path.is_dir()}
    sweeper = hydra.get("sweeper") or {}
    params = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    told = None if "n_trials" in sweeper else expanded([*params, *hydra["overrides"]["task"]])
    return Sweep(folder, jobs, told, sweeper.get("n_trials", None if told is None else len(told)))


def expanded(overrides: Sequence[str]) -> list[list[str]] | None:
    """Return the overrides of each job of a sweep, as Hydra makes them; None where it needs more than these.

    Example:
        >>> expanded(["task=[rte]", "seed=1,2"])
        [['task=[rte]', 'seed=1'], ['task=[rte]', 'seed=2']]
        >>> expanded(["lr=interval(0,1)"])
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except (HydraException, AssertionError, ValueError):  # glob(*) needs the config groups, interval(0,1) a sampler
        return None
    return [list(job) for job in jobs]


def _told(sweep: Sweep, number: int) -> Overrides | None:
    """Return what a job was told, or would have been."""
    folder = sweep.jobs.get(number)
    if folder is not None and (file := folder / ".hydra" / "overrides.yaml").is_file():
        found: Any = OmegaConf.load(file)
        return frozenset(map(str, found))
    return frozenset(sweep.told[number]) if sweep.told is not None and number < len(sweep.told) else None


def _shown(sweep: Sweep, told: Overrides | None) -> str:
    """Return what a job was told that other jobs of the sweep were not, in brackets."""
    if told is None or not sweep.told:
        return ""
    shared = frozenset.intersection(*map(frozenset, sweep.told))
    order = [override.partition("=")[0] for override in sweep.told[0]]
    own = [override for name in order for override in told - shared if override.partition("=")[0] == name]
    return f" ({' '.join(own)})" if own else ""
