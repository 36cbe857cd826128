"""What the summary of a distillation says of its models: teachers, their ensemble, sizes, latencies, data, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.results.latency import latency
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.stages.ensemble import Ensemble, ModelLists
from kd_lightning.apps.stages.teachers import Students, TrainedMember


def teacher_facts(teacher: TrainedMember) -> Config:
    """Return what the summary says of a teacher: scores by task, before and after fine-tuning, size and folders."""
    return {
        "name": teacher.name or "teacher",
        "chosen": list(teacher.chosen),
        "scores": {task: model.result["scores"].get(task, {}) for task, model in teacher.trained.items()},
        "fine_tuned": {task: model.result["scores"][task] for task, model in teacher.fine_tuned.items()},
        "parameters": next(model.result.get("parameters") for model in teacher.trained.values()),
        "folders": {task: str(model.location) for task, model in teacher.models.items()},
    }


def ensemble_facts(found: Ensemble, teachers: Sequence[TrainedMember]) -> Config:
    """Return what the summary says of an ensemble: what is averaged, and task -> teacher -> its share."""
    shares = {}
    for task, models in found.models.items():
        names = {id(teacher.models[task]): teacher.name for teacher in teachers if task in teacher.models}
        weights = (found.weights or {}).get(task) or [1.0] * len(models)
        total = sum(weights)
        shares[task] = {names[id(m)]: round(w / total, 4) for m, w in zip(models, weights, strict=True)}
    return {"mean": found.mean, "shares": shares}


def add_models(
    summary: Config,
    inputs: FitInputs,
    teachers: Sequence[TrainedMember],
    students: Students,
    models: Mapping[str, ModelLists],
) -> None:
    """Enter sizes, latencies, data and folders of the models; sizes and latencies are those of the first task's.

    Students whose predictions are averaged, one for each teacher, count together.

    Args:
        summary: Gets them.
        inputs: Tasks and rows.
        teachers: All of them; sizes and latency are those of the first that is chosen, before it is fine-tuned.
        students: What is handed over, before it is fine-tuned.
        models: Role -> task -> its models.
    """
    task = inputs.tasks[0].name
    trained = [model for teacher in teachers if teacher.chosen for model in teacher.trained.values()]
    each = {"teacher": trained, "baseline": models["baseline"].get(task, []), "student": students[task]}
    first = {role: next((one for one in found if isinstance(one, TrainedModel)), None) for role, found in each.items()}
    summary["data"] = {task: each[0].result["data"][task] for task, each in students.items()}
    for role, model in first.items():
        models_asked = len(students[task]) if role == "student" else 1
        for suffix in ("", "_without_embeddings"):
            own = model.result[f"parameters{suffix}"] if model else None
            summary["parameters"][role + suffix] = own and models_asked * own
        summary["latency_ms"][role] = models_asked * latency(model, inputs) if model else None
    summary["folders"] = {
        role: {task: [str(model.location) for model in each] for task, each in found.items()}
        for role, found in models.items()
    }
