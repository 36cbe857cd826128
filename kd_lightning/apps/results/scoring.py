"""Scores of models and of ensembles, task by task."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.stages.teachers import Ensemble
from kd_lightning.data import Rows
from kd_lightning.ensembling import mean_logits
from kd_lightning.tasks import Task

Scores = dict[str, dict[str, float]]
"""Task (``task/split`` for a split after the first) -> metric -> value."""


def columns_by_id(rows: Rows) -> dict[str, Tensor]:
    """Return gold labels and groups in order of example id, ``[N]`` each; -1 where there is no group."""
    names = ("example_id", "label", "group")
    parts = [[batch.column(name).fill_null(-1).to_numpy().copy() for name in names] for batch in rows.batches()]
    ids, *columns = (torch.cat([torch.from_numpy(one) for one in column]) for column in zip(*parts, strict=True))
    return {name: column[ids.argsort()] for name, column in zip(names[1:], columns, strict=True)}


def scores_from_logits(task: Task, logits: Tensor, rows: Rows) -> dict[str, float]:
    """Return the task's metrics of logits ``[N, C]`` (scores ``[N, 1]``) in order of example id."""
    metrics, gold = task.build_metrics(), columns_by_id(rows)
    targets = task.to_unit(gold["label"]) if task.kind == "regression" else gold["label"].long()
    groups = {"relevance": task.relevance(logits), "group": gold["group"]} if task.group else {}
    metrics.update(task.predictions(logits), targets, **groups)
    return {name: float(value) for name, value in metrics.compute().items()}


def score_ensemble(found: Ensemble, inputs: FitInputs) -> Scores:
    """Return the scores of an ensemble's predictions, of the tasks that it has; one model is scored as it is.

    Args:
        found: The models, and how their predictions become one.
        inputs: The tasks and the rows to evaluate.
    """
    scores: Scores = {}
    by_name = {task.name: task for task in inputs.tasks}
    asked = found.ask(
        inputs.evaluation_rows, lambda model, name, split, rows: model.logits(by_name[name], split, rows)[1]
    )
    for (name, split), each in asked.items():
        task, rows = by_name[name], inputs.evaluation_rows[name, split]
        logits = torch.stack(each, dim=1)  # [N, T, C]
        group = columns_by_id(rows)["group"] if task.kind == "ranking" else None
        mean = mean_logits(logits, mean=found.mean, weights=found.weights_of(name), group=group)
        scores[task.score_key(split)] = scores_from_logits(task, mean, rows)
    return scores


def mean_scores(models: Mapping[str, Sequence[TrainedModel]]) -> Scores:
    """Return the scores that the models' fits wrote, each task's from its own models; of several, their mean.

    Args:
        models: Task -> its models.
    """
    scores: Scores = {}
    for task, each in models.items():
        found = [model.result["scores"] for model in each]
        for name in found[0]:
            if name == task or name.startswith(f"{task}/"):
                scores[name] = {m: statistics.fmean(one[name][m] for one in found) for m in found[0][name]}
    return scores
