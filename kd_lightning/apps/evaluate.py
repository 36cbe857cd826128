"""``kd-evaluate``: a trained model's scores on the evaluation splits of its tasks."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_lightning.apps.label import scores_from_logits
from kd_lightning.apps.predict import open_run
from kd_lightning.apps.report import show_scores
from kd_lightning.data import Rows
from kd_lightning.data.folders import write_json
from kd_lightning.tasks import glue_average

log = logging.getLogger(__name__)


def labels_by_id(rows: Rows) -> torch.Tensor:
    """Return the gold labels in order of example id, ``[N]``."""
    pairs = [(batch.column("example_id").to_numpy(), batch.column("label").to_numpy()) for batch in rows.batches()]
    ids = torch.cat([torch.from_numpy(some.copy()) for some, _ in pairs])
    return torch.cat([torch.from_numpy(some.copy()) for _, some in pairs])[ids.argsort()]


def run(cfg: DictConfig) -> float:
    """Evaluate, print a table, write ``evaluation.json``; return the average score."""
    model, materials = open_run(cfg)
    scores = {}
    for (name, split), rows in materials.evaluation_rows.items():
        task = next(task for task in materials.tasks if task.name == name)
        _, logits = model.logits(task, split, rows)
        key = name if split == task.evaluation[0] else f"{name}/{split}"
        scores[key] = scores_from_logits(task, logits, labels_by_id(rows))
    average = glue_average({task.name: scores[task.name] for task in materials.tasks})
    folder = Path(HydraConfig.get().runtime.output_dir)
    write_json(folder / "evaluation.json", {"run": str(model.folder), "scores": scores, "average": average})
    show_scores(f"{model.folder}", scores)
    return average
