"""From the plan of the teachers to an ensemble: train them, choose the best, fine-tune them, weigh them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.start import Start
from kd_lightning.apps.fits.store import stored
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.stages import selection, who_teaches
from kd_lightning.apps.stages.ensemble import Ensemble, Model
from kd_lightning.apps.stages.variants import Member
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

Models = dict[str, TrainedModel]
"""Task -> its model."""

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
