"""Runs that differ in their seed alone, under a name that says in what the groups differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.apps.command_line.notes import counting
from kd_lightning.apps.reports.collect import Run
from kd_lightning.apps.reports.naming import Settings, names_of
from kd_lightning.apps.settings.config_hash import OF_A_SEED, counted_settings


@dataclass(frozen=True)
class Group:
    """Finished runs of the same settings and data, one for each seed, in their order.

    Args:
        name: The settings in which it differs from the other groups.
        settings: All of them, by their dotted names.
        runs: One for each seed.
        repeated: Older runs of a seed that is there already: they tell nothing new.
    """

    name: str
    settings: Settings
    runs: Sequence[Run]
    repeated: Sequence[Run]

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [run.summary["seed"] for run in self.runs]


def group(runs: Sequence[Run]) -> list[Group]:
    """Return the groups of the runs that have finished with scores, in the order of their first folders.

    A run belongs to a group by ``config.yaml`` without the seed, and by the fingerprints of its data; places, loggers,
    hardware, where it was resumed and whether it has a baseline do not count. Of runs whose teachers have the run's own
    seed (``teacher.seeds=[SEED]``), two or more, theirs does not count either.
    """
    buckets: dict[str, list[tuple[Run, Settings]]] = {}
    for run in sorted(runs, key=lambda run: [counting(part) for part in run.folder.parts]):
        if run.finished and run.summary["tasks"]:  # those that end with soft targets have none
            settings = settings_of(run)
            buckets.setdefault(_key(settings, "teacher.seeds"), []).append((run, settings))
    split: dict[str, list[tuple[Run, Settings]]] = {}
    for shared, found in buckets.items():
        own = _with_own_teachers(found)
        for run, settings in found:
            if run.folder in own:
                settings["teacher.seeds"] = "seed"
            split.setdefault(shared if run.folder in own else _key(settings), []).append((run, settings))
    members = list(split.values())
    runs_of = [[run for run, _ in found] for found in members]
    told = [frozenset(name for run in runs for name in run.told) for runs in runs_of]
    names = names_of([found[0][1] for found in members], [_choices(runs) for runs in runs_of], told)
    return [_group(name, found) for name, found in zip(names, members, strict=True)]


def _with_own_teachers(found: Sequence[tuple[Run, Settings]]) -> set[Path]:
    """Return the folders of runs, of two seeds or more, whose teachers have the run's own seed.

    A run that is as well one of more seeds with the same teachers is one of these.
    """
    alike: dict[str, set[int]] = {}
    for run, settings in found:
        alike.setdefault(str(settings.get("teacher.seeds")), set()).add(run.summary["seed"])
    own = [run for run, settings in found if settings.get("teacher.seeds") == [run.summary["seed"]]]
    count = len({run.summary["seed"] for run in own})
    own = [run for run in own if len(alike[str([run.summary["seed"]])]) <= count]
    return {run.folder for run in own} if len({run.summary["seed"] for run in own}) > 1 else set()


def _group(name: str, found: Sequence[tuple[Run, Settings]]) -> Group:
    newest: dict[int, Run] = {}
    for run in sorted((run for run, _ in found), key=_worth):
        newest[run.summary["seed"]] = run
    kept = [newest[seed] for seed in sorted(newest)]
    return Group(name, found[0][1], kept, [run for run, _ in found if run not in kept])


def _worth(run: Run) -> tuple[bool, float]:
    """Return what counts among runs of one seed: a baseline to compare with, then when it ended."""
    return run.config.get("baseline", True), (run.folder / "summary.json").stat().st_mtime


def settings_of(run: Run) -> Settings:
    """Return what makes a run one of its group, by dotted names: no seed, no places, and what its data were."""
    found = {name: value for name, value in counted_settings(run.config).items() if name not in OF_A_SEED}
    found["task"] = list(run.config.get("task") or {})
    if run.config.get("pretrain"):
        found["pretrain.task"] = list(run.config["pretrain"].get("task", found["task"]))
    for task, facts in (run.summary.get("data") or {}).items():
        found[f"task.{task}.rows"] = facts.get("fingerprint")
    return found


def _key(settings: Settings, *apart: str) -> str:
    kept = {name: value for name, value in settings.items() if name not in apart}
    return json.dumps(kept, sort_keys=True, default=str)


def _choices(runs: Sequence[Run]) -> dict[str, str]:
    """Return the options that all runs of a group chose: group, or its package -> option."""
    each = [run.choices for run in runs]
    return {name: option for name, option in each[0].items() if all(one.get(name) == option for one in each)}
