"""Scores of models and of ensembles, task by task."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.result import scores_from_logits
from kd_lightning.apps.stages.ensemble import Ensemble, Model
from kd_lightning.ensembling import mean_logits

Scores = dict[str, dict[str, float]]
"""Task (``task/split`` for a split after the first) -> metric -> value."""


def score_ensemble(found: Ensemble, inputs: FitInputs) -> Scores:
    """Return the scores of an ensemble's predictions, of the tasks that it has; one model is scored as it is.

    Given scores may be of other rows than those that are evaluated: such splits have none.

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
        mean = mean_logits(logits, **found.recipe(task, rows))
        scores[task.score_key(split)] = scores_from_logits(task, mean, rows)
    return scores


def mean_scores(models: Mapping[str, Sequence[Model]]) -> Scores:
    """Return the scores that the models' fits wrote, each task's from its own models; of several, their mean.

    Args:
        models: Task -> its models.
    """
    scores: Scores = {}
    for task, each in models.items():
        found = [model.result["scores"] for model in each]
        for name in set.intersection(*map(set, found)):
            if name == task or name.startswith(f"{task}/"):
                scores[name] = {m: statistics.fmean(one[name][m] for one in found) for m in found[0][name]}
    return scores
