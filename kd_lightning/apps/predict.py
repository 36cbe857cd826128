"""``kd-predict``: a trained model's predictions, as a table or as soft targets for students."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.apps.build import Materials, build_tasks
from kd_lightning.apps.label import TrainedModel
from kd_lightning.data import Rows
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def open_run(cfg: DictConfig) -> tuple[TrainedModel, Materials]:
    """Return the model of ``run=`` and the data to feed it: the run's own, unless ``task`` or ``data`` are chosen."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(plain["run"])
    if (folder / "student" / "fit.json").is_file():
        folder = folder / "student"
    model = TrainedModel.open(folder)
    kept = ("task", "data")
    settings = {name: plain[name] for name in kept if plain.get(name)}
    settings["paths"] = plain["paths"]
    settings["trainer"] = {**model.cfg["trainer"], **plain["trainer"]}
    return TrainedModel(folder, {**model.cfg, **settings, "task": model.cfg["task"]}), Materials(
        {**model.cfg, **settings}
    )


def run(cfg: DictConfig) -> None:
    """Predict each task's split; write one file (or one folder of soft targets) per task."""
    model, materials = open_run(cfg)
    if cfg.format not in ("csv", "jsonl", "soft_targets"):
        raise UserError(f"format is '{cfg.format}', expected csv, jsonl or soft_targets")
    tasks = build_tasks(materials.cfg)
    if cfg.file is not None:
        if len(tasks) != 1:
            raise UserError(f"file={cfg.file} is of one task, but the run has {len(tasks)}: add task=NAME")
        tasks = [replace(tasks[0], files={cfg.split: cfg.file})]
    output = Path(cfg.output or HydraConfig.get().runtime.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        split = task.evaluation[0] if cfg.split == "validation" and cfg.file is None else cfg.split
        rows = materials.corpus.require(task, split)
        target = output / f"{task.name}-{split}"
        if cfg.format == "soft_targets":
            model.write_soft_targets(target, task, split, rows)
        else:
            target = target.with_name(f"{target.name}.{cfg.format}")
            ids, logits = model.logits(task, split, rows)
            write_predictions(target, task, rows, logits, ids)
        log.info("%s %s: %s rows, %s", task.name, split, f"{rows.count:,}", target)


def write_predictions(path: Path, task: Task, rows: Rows, logits: Tensor, ids: Tensor) -> None:
    """Write one line per row, in the order of the data: id, prediction, and the probability of each class."""
    batches = list(rows.batches())
    order = [str(name) for batch in batches for name in batch.column("row_id").to_pylist()]
    example_id = [int(number) for batch in batches for number in batch.column("example_id").to_pylist()]
    place = {number: row for row, number in enumerate(ids.tolist())}
    logits = logits[[place[number] for number in example_id]]
    table: dict[str, Any] = {"id": order}
    if task.score_range is not None:
        low, high = task.score_range
        table["prediction"] = (logits.squeeze(-1) * (high - low) + low).tolist()
    else:
        table["prediction"] = [task.labels[i] for i in logits.argmax(-1).tolist()]
        probabilities = logits.softmax(-1)
        table |= {f"p_{label}": probabilities[:, i].tolist() for i, label in enumerate(task.labels)}
    frame = pd.DataFrame(table)
    temporary = path.with_name(f".{path.name}.part")
    if path.suffix == ".csv":
        frame.to_csv(temporary, index=False, float_format="%.6f")
    else:
        frame.to_json(temporary, orient="records", lines=True, double_precision=6)
    os.replace(temporary, path)
