"""From the plan of the teachers to an ensemble: train them, choose the best, fine-tune them, weigh them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

import torch

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.start import Start
from kd_lightning.apps.fits.store import stored
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.stages import selection, who_teaches
from kd_lightning.apps.stages.given_scores import GivenScores
from kd_lightning.apps.stages.variants import Member
from kd_lightning.data import Rows
from kd_lightning.ensembling import Mean
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

Models = dict[str, TrainedModel]
"""Task -> its model."""

Model = TrainedModel | GivenScores
"""What teaches."""

ModelLists = Mapping[str, Sequence[Model]]
"""Task -> its models."""

Students = Mapping[str, Sequence[TrainedModel]]
"""Task -> its students: one, or one for each teacher."""


@dataclass(frozen=True)
class TrainedMember:
    """A teacher, trained.

    Args:
        name: See ``Member``.
        trained: Task -> its model, or the scores that were given in its place.
        fine_tuned: Task -> the model that went on from there, on this task alone.
        chosen: The tasks in which it is among the best, which teach.
    """

    name: str
    trained: Mapping[str, Model]
    fine_tuned: Models
    chosen: Collection[str]

    @property
    def models(self) -> dict[str, Model]:
        """Task -> the model that teaches it."""
        return {**self.trained, **self.fine_tuned}


def score(model: Model, task: Task, metric: str | None = None) -> float:
    """Return a model's score in a metric of a task, its main one if none is named, on the split that tables show."""
    value: float = model.result["scores"][task.name][metric or task.metric]
    return value


@dataclass(frozen=True)
class Ensemble:
    """The teachers of each task, and how their predictions become one.

    Args:
        models: Task -> its teachers, of the tasks that have some.
        mean: What is averaged; None if the student hears each of them (what they say together is then the mean of
            their probabilities).
        weights: Task -> a weight for each of its teachers; None for equal ones.
    """

    models: ModelLists
    mean: Mean | None = "probabilities"
    weights: Mapping[str, Sequence[float] | None] | None = None

    def members(self) -> list[Ensemble]:
        """Return the teachers one by one; each task must have as many."""
        counts = {len(each) for each in self.models.values()}
        return [Ensemble({task: each[i : i + 1] for task, each in self.models.items()}) for i in range(max(counts))]

    def ask(
        self, rows: Mapping[tuple[str, str], Rows], question: Callable[[Model, str, str, Rows], Answer]
    ) -> dict[tuple[str, str], list[Answer]]:
        """Return (task, split) -> the answers of the task's teachers, in order; of splits that all of them know.

        Each teacher is asked all at once and then released: many large ones fit neither beside each other nor beside
        the student.

        Args:
            rows: (task, split) -> its rows.
            question: (model, task, split, rows) -> answer.
        """
        asked = {key: some for key, some in rows.items() if key[0] in self.models}
        wanted = {key: some for key, some in asked.items() if all(model.knows(*key) for model in self.models[key[0]])}
        found: dict[tuple[str, str], dict[int, Answer]] = {key: {} for key in wanted}
        for number, model in {id(one): one for of_task in self.models.values() for one in of_task}.items():
            for (task, split), some in wanted.items():
                if any(one is model for one in self.models[task]):
                    found[task, split][number] = question(model, task, split, some)
            model.release()
        return {key: [each[id(model)] for model in self.models[key[0]]] for key, each in found.items()}

    def recipe(self, task: Task, rows: Rows) -> dict[str, Any]:
        """Return how the predictions of a task's teachers become one, as ``mean_logits`` takes it.

        Args:
            task: The task.
            rows: What is predicted; candidates of one question are averaged together.
        """
        group = torch.from_numpy(rows.by_id("group")[0]) if task.kind == "ranking" else None
        return {"mean": self.mean or "probabilities", "weights": (self.weights or {}).get(task.name), "group": group}


def train_all(fits: Iterable[Fit]) -> Models:
    """Return task -> its model, trained or found in the store."""
    models: Models = {}
    for fit in fits:
        model = stored(fit)
        models |= {task.name: model for task in fit.inputs.tasks}
    return models


def fine_tune(fits: Mapping[str, Fit], models: Mapping[str, TrainedModel], node: Config | None) -> Models:
    """Return task -> the model that went on from its own in ``models``, with heads kept or new as the node says."""
    return {name: stored(replace(fit, start=Start(models[name], keeps_heads(node)))) for name, fit in fits.items()}


def keeps_heads(node: Config | None) -> bool:
    """Tell whether fine-tuned models go on with the heads that they have."""
    return (node or {}).get("heads", "kept") == "kept"


def train_members(members: Sequence[Member], cfg: Config, tasks: Sequence[Task]) -> list[TrainedMember]:
    """Return the teachers, trained or found in the store; those that are chosen are fine-tuned.

    Args:
        members: To be trained.
        cfg: The run's configuration.
        tasks: The run's tasks.
    """
    trained: dict[str, Models] = {member.name: train_all(member.fits) for member in members}
    given = {member.name: dict.fromkeys(member.scores.tasks, member.scores) for member in members if member.scores}
    taught = who_teaches(cfg) if given else {}
    heard = {name: {t: one for t, one in of.items() if name in taught.get(t, ())} for name, of in given.items()}
    chosen = best({**trained, **heard}, cfg, tasks)
    found = []
    for member in members:
        where = [task for task, names in chosen.items() if member.name in names]
        wanted = {task: fit for task, fit in member.fine_tuned.items() if task in where}
        tuned = fine_tune(wanted, trained[member.name], cfg["teacher"]["fine_tune"])
        found.append(TrainedMember(member.name, given.get(member.name, trained[member.name]), tuned, where))
    return found


def best(trained: Mapping[str, Mapping[str, Model]], cfg: Config, tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return task -> the names of the teachers of the highest scores; of all where none is to be left out.

    Models of all tasks are chosen for all of them, by the mean of the scores that are named; of models of single tasks,
    those of each task, by its main metric.

    Args:
        trained: Name -> task -> its model.
        cfg: The run's configuration.
        tasks: The run's tasks.
    """
    by = selection(cfg)
    names = {task.name: [name for name, models in trained.items() if task.name in models] for task in tasks}
    if not by:
        return names
    by_name = {task.name: task for task in tasks}
    if cfg["teacher"]["scope"] == "multi":
        ranked = _ranked(trained, [(by_name[name], metric) for name, metric in by], cfg)
        return dict.fromkeys(names, ranked)
    of_task = {task: {name: trained[name] for name in found} for task, found in names.items() if found}
    return {task: _ranked(found, [(by_name[task], None)], cfg) for task, found in of_task.items()}


def _ranked(
    trained: Mapping[str, Mapping[str, Model]], by: Sequence[tuple[Task, str | None]], cfg: Config
) -> list[str]:
    """Return the names of the best by their mean score in some tasks' metrics; of equal ones the first."""
    count = cfg["teacher"]["select"]["best"]
    means = {name: fmean(score(models[t.name], t, metric) for t, metric in by) for name, models in trained.items()}
    ranked = sorted(means, key=lambda name: -means[name])
    shown = ", ".join(f"{name} {100 * means[name]:.1f}" for name in ranked)
    what = ", ".join(f"{task.name} {metric or task.metric}" for task, metric in by)
    log.info("teachers by %s: %s; the best %d teach", what, shown, count)
    return ranked[:count]


def ensemble_of(teachers: Sequence[TrainedMember], cfg: Config, tasks: Sequence[Task]) -> Ensemble:
    """Return the ensemble that the run's configuration makes of its teachers.

    Args:
        teachers: All of them; those teach that are chosen.
        cfg: The run's configuration.
        tasks: The tasks that have a teacher.
    """
    rule, taught = cfg["teacher"]["ensemble"]["weights"], who_teaches(cfg) if tasks else {}
    models, weights = {}, {}
    for task in tasks:
        of_task = [teacher for teacher in teachers if teacher.name in taught[task.name] and task.name in teacher.chosen]
        models[task.name] = [teacher.models[task.name] for teacher in of_task]
        weights[task.name] = _weights(rule, of_task, task)
    return Ensemble(models, cfg["teacher"]["ensemble"]["mean"], weights)


def _weights(rule: Any, teachers: Sequence[TrainedMember], task: Task) -> Sequence[float] | None:
    if rule == "equal":
        return None
    if rule == "score":
        scores = [max(0.0, score(teacher.models[task.name], task)) for teacher in teachers]  # some are below 0
        return scores if any(scores) else None
    by_name = {str(name): weight for name, weight in rule.items()}
    return [by_name[teacher.name] for teacher in teachers]
