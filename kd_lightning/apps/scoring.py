"""Scores of models and of ensembles, task by task."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kd_lightning.apps.inputs import FitInputs
from kd_lightning.apps.trained_model import TrainedModel, distinct
from kd_lightning.data import Rows
from kd_lightning.tasks import Task

Scores = dict[str, dict[str, float]]
"""Task (``task/split`` for a split after the first) -> metric -> value."""


def labels_by_id(rows: Rows) -> Tensor:
    """Return the gold labels in order of example id, ``[N]``."""
    pairs = [(batch.column("example_id").to_numpy(), batch.column("label").to_numpy()) for batch in rows.batches()]
    ids = torch.cat([torch.from_numpy(some.copy()) for some, _ in pairs])
    return torch.cat([torch.from_numpy(some.copy()) for _, some in pairs])[ids.argsort()]


def scores_from_logits(task: Task, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the task's metrics of logits ``[N, C]`` (scores in [0, 1]) against class indices or raw scores ``[N]``."""
    metrics = task.build_metrics()
    targets = task.to_unit(labels) if task.kind == "regression" else labels.long()
    metrics.update(task.predictions(logits), targets)
    return {name: float(value) for name, value in metrics.compute().items()}


def score_ensemble(models: Mapping[str, Sequence[TrainedModel]], inputs: FitInputs) -> Scores:
    """Return the scores of the mean of several models' probabilities (of regression: of their scores).

    Args:
        models: Task -> its models; one alone is scored as it is.
        inputs: The tasks and the rows to evaluate.
    """
    scores: Scores = {}
    by_name = {task.name: task for task in inputs.tasks}
    members: dict[tuple[str, str], list[Tensor]] = {key: [] for key in inputs.evaluation_rows}
    for model in distinct(models):
        for (name, split), rows in inputs.evaluation_rows.items():
            if model in models[name]:
                members[name, split].append(model.logits(by_name[name], split, rows)[1])
        model.release()
    for (name, split), rows in inputs.evaluation_rows.items():
        task, each = by_name[name], torch.stack(members[name, split])
        mean = each.mean(0) if task.kind == "regression" else each.softmax(-1).mean(0)
        scores[task.score_key(split)] = scores_from_logits(task, mean, labels_by_id(rows))
    return scores


def stored_scores(models: Mapping[str, Sequence[TrainedModel]]) -> Scores:
    """Return the scores that the models' fits wrote, each task's from its own models, the mean of several."""
    scores: Scores = {}
    for task, members in models.items():
        each = [model.result["scores"] for model in members]
        for name in each[0]:
            if name == task or name.startswith(f"{task}/"):
                scores[name] = {m: statistics.fmean(one[name][m] for one in each) for m in each[0][name]}
    return scores
