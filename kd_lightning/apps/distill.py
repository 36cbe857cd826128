"""``kd-distill``: teachers, their soft targets, the student, the same student without a teacher, and one table.

Everything that is trained or predicted lives in the store, named by content: a run builds only what is missing, and a
run that was interrupted continues where it was.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.finished import skipped_by_all
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.identity import SoftTargetMap, versions
from kd_lightning.apps.fits.model_folder import write_config
from kd_lightning.apps.fits.resume import claimed
from kd_lightning.apps.fits.start import Start
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.fits.trainer import silence_libraries
from kd_lightning.apps.processes.meeting import met
from kd_lightning.apps.processes.team import team
from kd_lightning.apps.results.job_run import job_run
from kd_lightning.apps.results.models import add_models, ensemble_facts, teacher_facts
from kd_lightning.apps.results.report import doubt, write_report
from kd_lightning.apps.results.scoring import mean_scores, score_ensemble
from kd_lightning.apps.results.summary import SummaryFile, add_groups, add_scores, new_summary
from kd_lightning.apps.results.tables import distillation_rows, show_table, teacher_rows
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.stages.ensemble import Ensemble
from kd_lightning.apps.stages.plan import Plan
from kd_lightning.apps.stages.teachers import (
    Students,
    TrainedMember,
    ensemble_of,
    fine_tune,
    train_all,
    train_members,
)
from kd_lightning.apps.stages.teaching import predict_soft_targets
from kd_lightning.apps.stages.trained import Trained, hand_over, several

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float | None:
    """Distil; return the average score of the student that is handed over (the objective of a sweep)."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    silence_libraries()
    plan = Plan.of(plain)
    with met(plan.processes, Path(plain["paths"]["store"])) as all_of_us:
        if (found := skipped_by_all(cfg, all_of_us)) is not None:
            return found[1]
        all_of_us.agree(plan.check)
        if all_of_us.leads:
            plan.warn_of_few_steps()
        folder = Path(all_of_us.agree(lambda: str(folder)))
        summary = new_summary(plain, versions())
        with claimed(folder), recorded(plain, folder, summary):
            if plain["until"]:
                prepare(plan, summary)
                return None
            distill(plan, folder, summary)
    return show(plain, folder, summary) if all_of_us.leads else None


@contextmanager
def recorded(plain: Config, folder: Path, summary: Config) -> Iterator[None]:
    """Keep word of a run while the block does it: in its folder, and in the dashboards that it asks for."""
    if team().leads:
        write_config(folder, plain)
    with job_run(plain, folder, summary) if team().leads else nullcontext(), SummaryFile(folder, summary):
        yield


def show(plain: Config, folder: Path, summary: Config) -> float | None:
    """Print the tables of a run; return its objective."""
    if len(summary["teachers"]) > 1:
        show_table("teachers", *teacher_rows(summary))
    show_table(f"{plain['name']}, seed {plain['seed']}", *distillation_rows(summary))
    if said := doubt(summary):
        log.warning("%s", said)
    log.info("report: %s", folder / "report.md")
    objective: float | None = summary["objective"]
    return objective


def distill(plan: Plan, folder: Path, summary: Config) -> Students:
    """Build what is missing, enter the results into the summary and write the report; return task -> its students."""
    trained = train(plan, folder, summary)
    if team().leads:
        evaluate(plan, trained, summary)
        hand_over(trained.students, trained.fine_tuned, folder)
        write_report(folder, summary)
    return trained.students


def train(plan: Plan, folder: Path, summary: Config) -> Trained:
    """Train what is missing, in the order in which it is needed."""
    cfg = plan.inputs.cfg
    tuning = cfg["student"]["fine_tune"]
    with stage(summary, "pretrain"):
        starts = pretrain(plan.first, folder / "pretrain", summary) if plan.first else [None]
    teachers, found, soft_targets = teach(plan, summary)
    with stage(summary, "student"):
        students = train_students(plan, found, soft_targets, starts)
        tuned = fine_tune(plan.fine_tuned, {task: each[0] for task, each in students.items()}, tuning)
    with stage(summary, "baseline"):
        baselines = train_all(plan.baselines)
        tuned_baselines = fine_tune(plan.fine_tuned_baselines, baselines, tuning)
    return Trained(teachers, found, students, baselines, tuned, tuned_baselines)


def teach(plan: Plan, summary: Config) -> tuple[list[TrainedMember], Ensemble, SoftTargetMap]:
    """Return the teachers, one by one and together, and what they say of the rows that they teach."""
    with stage(summary, "teacher"):
        teachers = train_members(plan.teachers, plan.inputs.cfg, plan.inputs.tasks)
        found = ensemble_of(teachers, plan.inputs.cfg, plan.taught)
    with stage(summary, "soft_targets"), team().first():
        return teachers, found, predict_soft_targets(found, plan.inputs)


def prepare(plan: Plan, summary: Config) -> None:
    """Put teachers and soft targets, of all stages, into the store, where the jobs of a sweep find them."""
    teachers = [teacher for each in (plan.first, plan) if each for teacher in teach(each, summary)[0]]
    summary["until"], summary["teachers"] = plan.inputs.cfg["until"], [teacher_facts(each) for each in teachers]
    log.info("the store has what the jobs of a sweep share: teachers (%d), and what they say", len(teachers))


def evaluate(plan: Plan, trained: Trained, summary: Config) -> None:
    """Enter scores, sizes and latencies into the summary."""
    inputs, found, students = plan.inputs, trained.ensemble, trained.students
    scores = {role: mean_scores(each) for role, each in trained.by_role.items()}
    with stage(summary, "evaluate"):
        if several(found.models):
            scores["ensemble"] = score_ensemble(found, inputs)
        if several(students):
            scores["student"] = score_ensemble(Ensemble(students), inputs)
    add_scores(summary, inputs.tasks, scores)
    add_groups(summary, scores, [task.name for task in plan.taught])
    summary["objective"] = summary["average"]["student_fine_tuned" if trained.fine_tuned else "student"]
    summary["teachers"] = [teacher_facts(teacher) for teacher in trained.teachers]
    if several(found.models):
        summary["ensemble"] = ensemble_facts(found, trained.teachers)
    with stage(summary, "latency"):
        add_models(summary, inputs, trained.teachers, students, trained.by_role)


def pretrain(plan: Plan, folder: Path, summary: Config) -> list[Start | None]:
    """Distil once before the run's own distillation, which goes on from the encoders, with heads of its own.

    Returns:
        Where each student goes on: one for all, or one for each teacher.
    """
    summary["pretrain"] = new_summary(plan.inputs.cfg, versions())
    if team().leads:
        folder.mkdir(exist_ok=True)
        write_config(folder, plan.inputs.cfg)
    with SummaryFile(folder, summary["pretrain"]) as own:
        students = distill(plan, folder, own)
    return [Start(model, keep_heads=False) for model in next(iter(students.values()))]


def train_students(
    plan: Plan, found: Ensemble, soft_targets: SoftTargetMap, starts: Sequence[Start | None]
) -> Students:
    """Return task -> its students: one of all its teachers, or one for each of them.

    Args:
        plan: What is trained.
        found: The teachers.
        soft_targets: What they say together.
        starts: Where students begin, None is anew: one for all, or one for each of them.
    """
    told = {"": soft_targets}
    if plan.inputs.cfg["student"]["per_teacher"]:
        with team().first():
            told = {str(i): predict_soft_targets(each, plan.inputs) for i, each in enumerate(found.members(), 1)}
    students: dict[str, list[TrainedModel]] = {}
    for (name, said), start in zip(told.items(), itertools.cycle(starts)):
        fits = [
            replace(with_soft_targets(fit, said), start=start, stage=f"{fit.stage} {name}".strip())
            for fit in plan.students
        ]
        for task, model in train_all(fits).items():
            students.setdefault(task, []).append(model)
    return students


@contextmanager
def stage(summary: Config, name: str) -> Iterator[None]:
    """Enter the block's duration in seconds; a stage found in the store takes next to none."""
    start = time.perf_counter()
    yield
    summary["seconds"][name] = round(time.perf_counter() - start, 2)


def with_soft_targets(fit: Fit, soft_targets: SoftTargetMap) -> Fit:
    """Return the fit with the soft targets of its tasks."""
    names = {task.name for task in fit.inputs.tasks}
    return replace(fit, soft_targets={key: found for key, found in soft_targets.items() if key[0] in names})
