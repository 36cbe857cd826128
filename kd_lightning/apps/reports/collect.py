"""The runs under some folders: their summaries and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kd_lightning.apps.arguments import name_of
from kd_lightning.apps.command_line.finished import result_of_job
from kd_lightning.apps.command_line.jobs import ELSEWHERE
from kd_lightning.apps.reports.noted import arguments_of, cwd_of, read_yaml, runtime_of
from kd_lightning.apps.results.roles import ROLES
from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import files_named, read_json

KEYS = ("experiment", "system", "seed", "tasks", "average", "parameters", "latency_ms", "status")
"""What is read of every summary."""

MAPPINGS = ("tasks", "average", "parameters", "latency_ms", "averages", "data", "folders")
"""What maps names to something in a summary, where it is there."""


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        folder: Its folder.
        summary: Its ``summary.json``.
        config: Its ``config.yaml``, if it has finished.
    """

    folder: Path
    summary: Config
    config: Config

    @cached_property
    def choices(self) -> dict[str, str]:
        """Config group, or the package of its choice -> the option that Hydra was told; none if that is not known."""
        told = self._runtime.get("choices", {})
        if not isinstance(told, dict):
            raise UserError(f"{self.folder}: hydra.runtime.choices is no mapping, expected what Hydra notes of a run")
        chosen = {str(name).rpartition("@")[2]: option for name, option in told.items()}
        return {name: str(option) for name, option in chosen.items() if option and not name.startswith("hydra/")}

    @cached_property
    def overrides(self) -> frozenset[str] | None:
        """What the run was told on the command line; None if that is not known."""
        told, file = arguments_of(self.folder), self.folder / ".hydra" / "overrides.yaml"
        if file.is_file() and (told is None or not file.stat().st_size):
            raise UserError(f"{file} cannot be read, expected the list of a run's arguments")
        return told

    @property
    def told(self) -> frozenset[str]:
        """The settings, config groups or packages that the run was told on the command line."""
        return frozenset(name_of(argument).rpartition("@")[2] for argument in self.overrides or ())

    @property
    def began_in(self) -> Path:
        """The working directory of its command, from which its paths are told."""
        return cwd_of(self._runtime)

    @cached_property
    def _runtime(self) -> Config:
        return runtime_of(self.folder)

    @property
    def is_trial(self) -> bool:
        """Whether it only tried that all of it runs: its scores tell nothing."""
        return self.finished and self.choices.get("debug") == "fast_dev_run"

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return bool(self.summary["status"] == "finished")


def collect(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs under some folders, each once, in the order of their paths, and what could not be read.

    The summary of a first stage (``RUN/pretrain/summary.json``) is a part of its run. A run of which a file cannot be
    read is one line, and the others count: one job that a full disk has damaged should not hide the rest of a sweep.

    Args:
        folders: Where to look, at any depth; of a job that was skipped, also where its results are.
    """
    runs: dict[Path, Run] = {}
    damaged: dict[Path, str] = {}
    for path in sorted({path for folder in folders for path in _summaries(folder)}):
        place = path.resolve()
        if place in runs or place in damaged:
            continue
        try:
            runs[place] = _read_run(path)
        except UserError as error:
            damaged[place] = f"{error}: the run is left out"
    return list(runs.values()), list(damaged.values())


def _read_run(path: Path) -> Run:
    """Return the run of a summary, with all that a report asks of its files.

    Raises:
        UserError: If one of them is damaged.
    """
    summary = read_summary(path)
    finished = summary["status"] == "finished"
    run = Run(path.parent, summary, read_yaml(path.with_name("config.yaml")) if finished else {})
    _ = run.overrides, run.choices if finished else None
    return run


def _summaries(folder: Path) -> Iterator[Path]:
    for path in files_named("summary.json", folder):
        if path.parent.name != "pretrain" or not (path.parent.parent / "summary.json").exists():
            yield path
    for path in files_named(ELSEWHERE, folder):
        if (run := result_of_job(path.parent)) is not None:
            yield run / "summary.json"


def read_summary(path: Path) -> Config:
    """Return a run's summary.

    Raises:
        UserError: If it is none; one line that names the file.
    """
    try:
        found = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    missing = [key for key in KEYS if key not in found] if isinstance(found, dict) else list(KEYS)
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}, expected a run's summary")
    wrong = [key for key in MAPPINGS if not isinstance(found.get(key, {}), dict)]
    if wrong or not isinstance(found["seed"], int):
        raise UserError(f"{path}: {', '.join(wrong) or 'seed'} is not what a run's summary has")
    scores = [*found["tasks"].values(), found["average"]]
    if not _are_scores(scores) or not all("metric" in of_task for of_task in scores[:-1]):
        raise UserError(f"{path} has scores that are no numbers, or of no metric")
    return found


def _are_scores(each: Sequence[Config]) -> bool:
    values = [scores.get(role) for scores in each if isinstance(scores, dict) for role in ROLES]
    return all(isinstance(scores, dict) for scores in each) and all(
        value is None or (isinstance(value, int | float) and value == value) for value in values
    )
