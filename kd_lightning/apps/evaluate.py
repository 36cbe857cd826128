"""``kd-evaluate``: a trained model's scores on the evaluation splits of its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.fits.opened_run import OpenedRun
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.results.job_run import job_run
from kd_lightning.apps.results.scoring import score_ensemble
from kd_lightning.apps.results.tables import show_scores
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.apps.settings.paths import EVALUATION
from kd_lightning.apps.stages.ensemble import Ensemble
from kd_lightning.files import write_json
from kd_lightning.tasks import glue_average


def run(cfg: DictConfig) -> float | None:
    """Evaluate, print a table, write ``evaluation.json``; return the average score."""
    if not own_seat().leads:
        return None  # one process is enough
    opened = OpenedRun.of(cfg)
    tasks = opened.inputs.tasks
    folder = Path(HydraConfig.get().runtime.output_dir)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    found: Config = {"run": cfg.run, "config_hash": config_hash(plain)}
    with job_run(plain, folder, found):
        models = {task.name: opened.models_for(task) for task in tasks}
        found["scores"] = score_ensemble(Ensemble(models), opened.inputs)
        found["average"] = glue_average(found["scores"])
    write_json(folder / EVALUATION, found)
    show_scores(cfg.run, found["scores"])
    return float(found["average"])
