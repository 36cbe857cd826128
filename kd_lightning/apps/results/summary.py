"""``summary.json``: what a run found, in one schema for all commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from kd_lightning.apps.processes.team import team
from kd_lightning.apps.results.roles import GROUPS, MEASURED, ROLES
from kd_lightning.apps.results.scoring import Scores
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.files import write_json
from kd_lightning.tasks import Task, glue_average

BEFORE = {"baseline_fine_tuned": "baseline", "student_fine_tuned": "student"}
"""What was fine-tuned -> from what: it counts where a task was not."""


def new_summary(cfg: Config, versions: Mapping[str, str]) -> Config:
    """Return the summary of a run that has begun: everything that is not known yet is null."""
    return {
        "experiment": cfg["name"],
        "system": cfg["system"]["_target_"].rpartition(".")[2],
        "seed": cfg["seed"],
        "config_hash": config_hash(cfg),
        "tasks": {},
        "average": dict.fromkeys(ROLES),
        "objective": None,
        "averages": {},
        "teachers": [],
        "ensemble": None,
        "pretrain": None,
        "parameters": dict.fromkeys(f"{role}{part}" for role in MEASURED for part in ("", "_without_embeddings")),
        "latency_ms": dict.fromkeys(MEASURED),
        "seconds": {},
        "data": {},
        "folders": {},
        "versions": dict(versions),
        "status": "running",
    }


def add_scores(summary: Config, tasks: Sequence[Task], scores: Mapping[str, Scores]) -> None:
    """Enter who scored what: each task's main metric, all its metrics, and each role's average.

    Models that were fine-tuned on some of the tasks count on the others as they were before.

    Args:
        summary: Gets ``tasks`` and ``average``.
        tasks: The run's tasks.
        scores: Role (teacher, ensemble, baseline, student) -> task -> metric -> value.
    """
    for task in tasks:
        found = {role: scores[role][task.name] for role in ROLES if task.name in scores.get(role, {})}
        summary["tasks"][task.name] = {
            "metric": task.metric,
            **{role: found[role][task.metric] if role in found else None for role in ROLES},
            "metrics": {role: _all_metrics(scores[role], task) for role in found},
        }
    summary["average"] |= _averages(scores, [task.name for task in tasks])


def add_groups(summary: Config, scores: Mapping[str, Scores], taught: Sequence[str]) -> None:
    """Enter each role's average over the tasks with a teacher and over those without, where there are both.

    Args:
        summary: Gets ``averages``; its tasks are entered already.
        scores: As in ``add_scores``.
        taught: The tasks with a teacher.
    """
    tasks = list(summary["tasks"])
    groups = [[name for name in tasks if name in taught], [name for name in tasks if name not in taught]]
    if all(groups):
        summary["averages"] = {group: _averages(scores, names) for group, names in zip(GROUPS, groups, strict=True)}


def _averages(scores: Mapping[str, Scores], names: Sequence[str]) -> dict[str, float | None]:
    """Return role -> its average over some tasks, None where it has not all of them."""
    found: dict[str, float | None] = dict.fromkeys(ROLES)
    for role in ROLES:
        of_role = scores.get(role, {})
        if not any(name in of_role for name in names):
            continue
        counted = {**scores.get(BEFORE.get(role, ""), {}), **of_role}
        if all(name in counted for name in names):
            found[role] = glue_average({key: each for key, each in counted.items() if key.partition("/")[0] in names})
    return found


def _all_metrics(scores: Scores, task: Task) -> dict[str, float]:
    found = dict(scores[task.name])
    for split in task.evaluation[1:]:
        more = scores.get(task.score_key(split), {})
        found |= {f"{split}/{metric}": value for metric, value in more.items()}
    return found


class SummaryFile:
    """``summary.json`` of a run, there from its beginning and whole at any time.

    As a context: what ends the block ends the run, as ``finished``, ``interrupted`` or ``failed``. Of several
    processes the first writes.

    Args:
        folder: The run's.
        summary: Its content so far.
    """

    def __init__(self, folder: Path, summary: Config) -> None:
        self.path, self.summary = folder / "summary.json", summary

    def __enter__(self) -> Config:
        """Write the file, and return its content to be filled."""
        self._write()
        return self.summary

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        """Write the file again, with how the run ended."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.summary["status"] = "finished" if kind is None else "interrupted" if interrupted else "failed"
        with suppress(OSError) if kind is not None else nullcontext():  # what ended it may be a full disk
            self._write()

    def _write(self) -> None:
        if team().leads:
            write_json(self.path, self.summary)
