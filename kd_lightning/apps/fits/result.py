"""What a fit found, as ``fit.json`` holds it: scores, sizes, data and versions."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from kd_lightning.apps.fits.identity import versions
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import MultiTaskData, Rows
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import Task


def fit_result(
    stage: str, identity: str, inputs: FitInputs, system: NLUSystem, data: MultiTaskData, scores: Config
) -> Config:
    """Return what is known of a fit when its training has ended.

    Args:
        stage: What the fit is for.
        identity: Its content address.
        inputs: What it was made from.
        system: The trained system.
        data: What it was trained on.
        scores: Task -> metric -> value.
    """
    embeddings = sum(p.numel() for name, p in system.encoder.named_parameters() if not system.encoder.depth(name))
    parameters = sum(p.numel() for p in system.parameters())
    return {
        "stage": stage,
        "identity": identity,
        "scores": scores,
        "parameters": parameters,
        "parameters_without_embeddings": parameters - embeddings,
        "steps": system.trainer.global_step,
        "tokenizer": tokenizer_fingerprint(inputs.tokenizer),
        "data": data_facts(inputs),
        "versions": versions(),
    }


def data_facts(inputs: FitInputs) -> Config:
    """Return, for each task, the rows of each split and one fingerprint of all of them."""
    facts: Config = {}
    for (task, split), rows in inputs.rows.items():
        entry = facts.setdefault(
            task, dict.fromkeys(("train", "validation", "unlabelled", "synthetic"), 0) | {"fingerprint": ""}
        )
        entry[split if split in entry else "validation"] += rows.count
        entry["fingerprint"] = hashlib.sha256((entry["fingerprint"] + rows.fingerprint).encode()).hexdigest()[:16]
    return facts


def scores_from_logits(task: Task, logits: Tensor, rows: Rows) -> dict[str, float]:
    """Return the task's metrics of logits ``[N, C]`` (scores ``[N, 1]``) in order of example id."""
    metrics = task.build_metrics()
    label, group = map(torch.from_numpy, rows.by_id("label", "group"))
    targets = task.to_unit(label) if task.kind == "regression" else label.long()
    groups = {"relevance": task.relevance(logits), "group": group} if task.group else {}
    metrics.update(task.predictions(logits), targets, **groups)
    return {name: float(value) for name, value in metrics.compute().items()}
