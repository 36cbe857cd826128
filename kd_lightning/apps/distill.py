"""``kd-distill``: teachers, their soft targets, the student, the same student without a teacher, and one table.

Everything that is trained or predicted lives in the store, named by content: a run builds only what is missing, and a
run that was interrupted continues where it was.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.build import Config, learns_from_teachers
from kd_lightning.apps.fit import Fit
from kd_lightning.apps.identity import SoftTargetMap, versions
from kd_lightning.apps.inputs import FitInputs, Shared, check_unlabelled
from kd_lightning.apps.latency import latency
from kd_lightning.apps.report import distillation_rows, show_table, write_report
from kd_lightning.apps.scoring import score_ensemble, stored_scores
from kd_lightning.apps.store import stored
from kd_lightning.apps.summary import SummaryFile, add_scores, new_summary
from kd_lightning.apps.teaching import stored_soft_targets
from kd_lightning.apps.trained_model import TrainedModel, distinct, write_config
from kd_lightning.apps.trainer import refuse_scripts, silence_libraries
from kd_lightning.apps.variants import baseline_fits, student_fits, teacher_fits
from kd_lightning.data import SoftTargets, ensemble
from kd_lightning.encoders import Encoder

log = logging.getLogger(__name__)

Models = dict[str, list[TrainedModel]]
"""Task -> its models."""


def run(cfg: DictConfig) -> float | None:
    """Distil; return the student's average score (the objective of a sweep)."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    silence_libraries()
    plan = Plan.of(plain)
    plan.check()
    write_config(folder, plain)
    with SummaryFile(folder, new_summary(plain, versions())) as summary:
        distill(plan, folder, summary)
    show_table(f"{plain['name']}, seed {plain['seed']}", *distillation_rows(summary))
    log.info("report: %s", folder / "report.md")
    return summary["average"]["student"]


@dataclass(frozen=True)
class Plan:
    """The fits of a distillation, in the order in which they are trained.

    Args:
        inputs: Settings, tasks and rows of the whole run.
        teachers: One per seed, and per task or of all tasks.
        students: One per task, or one of all tasks; their soft targets are still to come.
    """

    inputs: FitInputs
    teachers: list[Fit]
    students: list[Fit]

    @classmethod
    def of(cls, cfg: Config) -> Plan:
        """Return the plan of a configuration."""
        check_unlabelled(cfg)
        shared = Shared.of(cfg)
        teachers = list(teacher_fits(cfg, shared)) if learns_from_teachers(cfg) else []
        return cls(FitInputs(cfg, shared), teachers, list(student_fits(cfg, shared)))

    @cached_property
    def baselines(self) -> list[Fit]:
        """The students without a teacher; none without teachers. Their budget counts the synthetic rows: write them."""
        wanted = self.teachers and self.inputs.cfg["baseline"]
        return list(baseline_fits(self.inputs.cfg, self.inputs.shared)) if wanted else []

    def __iter__(self) -> Iterator[Fit]:
        """Yield the fits, the baselines last."""
        yield from self.teachers
        yield from self.students
        yield from self.baselines

    def check(self) -> None:
        """Tell mistakes of any fit before the first is trained.

        Raises:
            UserError: If data or settings of a fit are wrong.
        """
        encoders: dict[str, Encoder] = {}
        for fit in self:
            refuse_scripts(fit.idle_trainer, "a command of several fits", "kd-train for each")
            fit.check(encoders)
        for fit in [*self.teachers, *self.students]:
            fit.warn_of_few_steps()


def distill(plan: Plan, folder: Path, summary: Config) -> None:
    """Build what is missing, in the order in which it is needed, and enter the results into the summary."""
    inputs = plan.inputs
    with stage(summary, "teacher"):
        taught_by = train_all(plan.teachers)
    with stage(summary, "soft_targets"):
        soft_targets = predict_soft_targets(taught_by, inputs) if taught_by else {}
    with stage(summary, "student"):
        learners = train_all(with_soft_targets(fit, soft_targets) for fit in plan.students)
    with stage(summary, "baseline"):
        untaught = train_all(plan.baselines)

    scores = {
        "student": stored_scores(learners),
        "baseline": stored_scores(untaught),
        "teacher": stored_scores(taught_by),
    }
    if any(len(models) > 1 for models in taught_by.values()):
        with stage(summary, "evaluate"):
            scores["ensemble"] = score_ensemble(taught_by, inputs)
    add_scores(summary, inputs.tasks, scores)
    with stage(summary, "latency"):
        add_models(summary, inputs, learners, taught_by)
    hand_over(learners, folder)
    write_report(folder, summary)


@contextmanager
def stage(summary: Config, name: str) -> Iterator[None]:
    """Enter the block's duration in seconds; a stage found in the store takes next to none."""
    start = time.perf_counter()
    yield
    summary["seconds"][name] = round(time.perf_counter() - start, 2)


def train_all(fits: Iterable[Fit]) -> Models:
    """Return task -> its models, trained or found in the store, in the order of the fits."""
    models: Models = {}
    for fit in fits:
        model = stored(fit)
        for task in fit.inputs.tasks:
            models.setdefault(task.name, []).append(model)
    return models


def predict_soft_targets(teachers: Models, inputs: FitInputs) -> SoftTargetMap:
    """Return (task, split) -> soft targets on all rows the student trains on; of several teachers, their mean."""
    by_name = {task.name: task for task in inputs.tasks}
    members: dict[tuple[str, str], list[SoftTargets]] = {key: [] for key in inputs.training_rows}
    for teacher in distinct(teachers):
        for (name, split), rows in inputs.training_rows.items():
            if teacher in teachers[name]:
                members[name, split].append(stored_soft_targets(teacher, by_name[name], split, rows))
        teacher.release()  # many large teachers fit neither beside each other nor beside the student
    return {key: ensemble(found) if len(found) > 1 else found[0] for key, found in members.items()}


def with_soft_targets(fit: Fit, soft_targets: SoftTargetMap) -> Fit:
    """Return the fit with the soft targets of its tasks."""
    names = {task.name for task in fit.inputs.tasks}
    return replace(fit, soft_targets={key: found for key, found in soft_targets.items() if key[0] in names})


def add_models(summary: Config, inputs: FitInputs, students: Models, teachers: Models) -> None:
    """Enter sizes, latencies, data and folders of the models; sizes and latencies are those of the first task's."""
    first = inputs.tasks[0].name
    student, teacher = students[first][0], teachers[first][0] if teachers else None
    summary["data"] = {task: models[0].result["data"][task] for task, models in students.items()}
    summary["parameters"] = {
        "teacher": teacher.result["parameters"] if teacher else None,
        "teacher_without_embeddings": teacher.result["parameters_without_embeddings"] if teacher else None,
        "student": student.result["parameters"],
        "student_without_embeddings": student.result["parameters_without_embeddings"],
    }
    summary["latency_ms"] = {
        "teacher": latency(teacher, inputs) if teacher else None,
        "student": latency(student, inputs),
    }
    summary["folders"] = {
        role: {task: [str(model.folder) for model in found] for task, found in models.items()}
        for role, models in (("student", students), ("teacher", teachers))
    }


def hand_over(students: Models, folder: Path) -> None:
    """Copy the student into the run's folder: ``student/``, or ``student-TASK/`` where each task has its own."""
    models = {model.folder: (model, task) for task, (model, *_) in students.items()}
    for model, task in models.values():
        ending = "" if len(models) == 1 else f"-{task}"
        model.copy_to(folder / f"student{ending}")
        shutil.copy(model.folder / "metrics.csv", folder / f"metrics{ending}.csv")
