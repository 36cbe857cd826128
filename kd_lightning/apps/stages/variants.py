"""From the configuration of a distillation to those of its fits: teachers, students, and students without a teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.apps.fits.build import with_changes, with_teacher_heads
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.stages import (
    OF_A_FIT,
    member_settings,
    named_teachers,
    score_files,
    teachers_heard,
    tuned_tasks,
    who_teaches,
)
from kd_lightning.apps.stages.given_scores import GivenScores


@dataclass(frozen=True)
class Member:
    """A teacher: one model of all tasks, or one for each that it teaches.

    Args:
        name: Of its settings and its seed; empty if it is the only one.
        fits: Its models, to be trained.
        fine_tuned: Task -> the model that goes on from there, on this task alone; none if there is no fine-tuning.
        scores: What it has said, in the place of models; None if it is trained.
    """

    name: str
    fits: tuple[Fit, ...]
    fine_tuned: Mapping[str, Fit]
    scores: GivenScores | None = None


def scopes(cfg: Config, role: str, scope: str, tasks: Iterable[str]) -> list[tuple[str, Config]]:
    """Return, for each model of a role, its stage and the run's configuration with this model's tasks.

    Args:
        cfg: The run's configuration.
        role: What the models are.
        scope: ``single`` is one model per task, ``multi`` one of all.
        tasks: The tasks that get a model each.
    """
    if scope == "multi":
        return [(role, cfg)]
    return [(f"{role} {name}", of_task(cfg, name)) for name in tasks]


def of_task(cfg: Config, name: str) -> Config:
    """Return a configuration with one of its tasks alone."""
    return {**cfg, "task": {name: cfg["task"][name]}}


def members(inputs: FitInputs) -> Iterator[Member]:
    """Yield the teachers, one for each of ``teacher.members`` and each seed, or for what has been said already.

    They have the run's settings, with those under ``teacher`` in their place, and those of the member in theirs.
    """
    cfg, shared = inputs.cfg, inputs.shared
    own, taught, given = cfg["teacher"], who_teaches(cfg), score_files(cfg["teacher"])
    teacher = copy.deepcopy(cfg)
    for name in OF_A_FIT:
        if name in own:
            kept = teacher[name] if name in ("batching", "trainer") else {}
            teacher[name] = {**kept, **own[name]}
    teacher["batching"] |= {"unlabelled": False, "epoch_rows": own["batching"].get("epoch_rows")}
    teacher["augmenter"] = {}
    for name, (member, seed) in named_teachers(own).items():
        if member in given:
            files = {key: Path(file) for key, file in given[member].items()}
            called = "" if member == "given" else member  # the one of teacher=scores_file
            yield Member(name, (), {}, GivenScores(files, inputs, called))
            continue
        settings = {**with_changes(teacher, member_settings(own)[member]), "seed": seed}
        where = f"teacher.members.{member}." if member_settings(own)[member] else "teacher."
        tasks = [task for task, names in taught.items() if name in names]
        stages = scopes(settings, "teacher", own["scope"], tasks)
        fits = tuple(Fit(f"{stage} {name}".strip(), fit, shared, {}, where) for stage, fit in stages)
        tuned = [task for task in tuned_tasks(cfg, "teacher.fine_tune") if task in tasks]
        yield Member(name, fits, fine_tuned(settings, "teacher.fine_tune", f"teacher {name}".strip(), shared, tuned))


def student_fits(cfg: Config, shared: Shared, untaught: Iterable[str]) -> Iterator[Fit]:
    """Yield the students, their soft targets still to come; ``untaught`` are the tasks that have no teacher."""
    for stage, scoped in scopes(cfg, "student", cfg["student"]["scope"], list(cfg["task"])):
        yield Fit(stage, with_teacher_heads(scoped, teachers_heard(cfg)), shared, {}, untaught=tuple(untaught))


def gold_only(cfg: Config) -> Config:
    """Return a student's configuration for a fit on gold labels alone."""
    kept = {name: cfg["system"][name] for name in ("reduction", "head") if name in cfg["system"]}
    kept["task_heads"] = cfg["system"].get("task_heads")
    batching = cfg["batching"] | {"unlabelled": False}
    return {**copy.deepcopy(cfg), "system": cfg["teacher"]["system"] | kept, "batching": batching, "augmenter": {}}


def baseline_fits(cfg: Config, shared: Shared, untaught: Iterable[str]) -> Iterator[Fit]:
    """Yield the students without a teacher: gold labels alone, for as many steps."""
    for stage, scoped in scopes(cfg, "baseline", cfg["student"]["scope"], list(cfg["task"])):
        fit = gold_only(scoped)
        examples = FitInputs(scoped, shared, untaught=tuple(untaught)).examples
        fit["batching"]["epoch_rows"] = cfg["batching"]["epoch_rows"] or examples
        yield Fit(stage, fit, shared, {})


def fine_tuned_students(cfg: Config, role: str, shared: Shared) -> dict[str, Fit]:
    """Return task -> the fit on gold labels that goes on from the student (or from the baseline, the ``role``)."""
    where = "student.fine_tune"
    return fine_tuned(gold_only(cfg), where, role, shared, tuned_tasks(cfg, where))


def fine_tuned(cfg: Config, where: str, stage: str, shared: Shared, tasks: Iterable[str]) -> dict[str, Fit]:
    """Return task -> the fit that goes on from a model, on this task alone.

    Args:
        cfg: The settings of the model.
        where: Which settings of the configuration change them: ``teacher.fine_tune`` or ``student.fine_tune``.
        stage: What the model is called.
        shared: What the run's fits have in common.
        tasks: The tasks.
    """
    role, _, name = where.partition(".")
    node = cfg[role][name] or {}
    changes = {name: value for name, value in node.items() if name not in ("tasks", "heads")}
    settings = with_changes(cfg, changes)
    settings["batching"] = settings["batching"] | {"epoch_rows": changes.get("batching", {}).get("epoch_rows")}
    return {task: Fit(f"{stage} {task} fine-tuned", of_task(settings, task), shared, {}, f"{where}.") for task in tasks}
