"""``kd-evaluate``: a trained model's scores on the evaluation splits of its tasks."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_lightning.apps.fits.opened_run import OpenedRun
from kd_lightning.apps.results.report import show_scores
from kd_lightning.apps.results.scoring import score_ensemble
from kd_lightning.apps.stages.teachers import Ensemble
from kd_lightning.data.folders import write_json
from kd_lightning.tasks import glue_average


def run(cfg: DictConfig) -> float:
    """Evaluate, print a table, write ``evaluation.json``; return the average score."""
    opened = OpenedRun.of(cfg)
    tasks = opened.inputs.tasks
    scores = score_ensemble(Ensemble({task.name: opened.models_for(task) for task in tasks}), opened.inputs)
    average = glue_average(scores)
    folder = Path(HydraConfig.get().runtime.output_dir)
    write_json(folder / "evaluation.json", {"run": cfg.run, "scores": scores, "average": average})
    show_scores(cfg.run, scores)
    return average
