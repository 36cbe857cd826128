"""The models of a distillation, and the copies of its students in the run's folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.stages.ensemble import Ensemble, ModelLists
from kd_lightning.apps.stages.teachers import Models, Students, TrainedMember


@dataclass(frozen=True)
class Trained:
    """The models of a distillation.

    Args:
        teachers: One by one.
        ensemble: What they say together.
        students: Task -> its students.
        baselines: Task -> the same student without a teacher.
        fine_tuned: Task -> the model that went on from its student, on this task alone.
        fine_tuned_baselines: The same, from its baseline.
    """

    teachers: list[TrainedMember]
    ensemble: Ensemble
    students: Students
    baselines: Models
    fine_tuned: Models
    fine_tuned_baselines: Models

    @property
    def by_role(self) -> dict[str, ModelLists]:
        """Role -> task -> its models."""
        return {
            "teacher": self.ensemble.models,
            "baseline": one_each(self.baselines),
            "student": self.students,
            "baseline_fine_tuned": one_each(self.fine_tuned_baselines),
            "student_fine_tuned": one_each(self.fine_tuned),
        }


def several(models: ModelLists) -> bool:
    """Tell whether a task has several models, whose predictions are averaged."""
    return any(len(each) > 1 for each in models.values())


def one_each(models: Models) -> dict[str, list[TrainedModel]]:
    """Return task -> its only model."""
    return {task: [model] for task, model in models.items()}


def hand_over(students: Students, tuned: Models, folder: Path) -> None:
    """Copy the student into the run's folder: ``student/``, or ``student-TASK/`` where a task has its own.

    Of several, one for each teacher, the names end in the number of the teacher.
    """
    for old in folder.glob("student*"):
        shutil.rmtree(old)
    whole = len({each[0].folder for each in students.values()}) == 1
    models = {}
    for task, each in students.items():
        for number, model in enumerate(each, 1):
            name = "student" if whole else f"student-{task}"
            models[f"{name}-{number}" if len(each) > 1 else name] = model
    models |= {f"student-{task}": model for task, model in tuned.items()}
    for name, model in models.items():
        model.copy_to(folder / name)
        shutil.copy(model.folder / "metrics.csv", folder / f"{name.replace('student', 'metrics', 1)}.csv")
