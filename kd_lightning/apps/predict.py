"""``kd-predict``: a trained model's predictions, as a table or as soft targets for students."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.apps.fits.opened_run import OpenedRun
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.results.predicted import note_predicted
from kd_lightning.apps.stages.ensemble import Ensemble
from kd_lightning.apps.stages.teaching import expected_manifest, write_soft_targets
from kd_lightning.augmentation import MASKED
from kd_lightning.data import Manifest, Rows, SoftTargets
from kd_lightning.data.soft_targets.chunks import is_of
from kd_lightning.encoders.vocabulary import masked_as
from kd_lightning.ensembling import mean_logits
from kd_lightning.errors import UserError
from kd_lightning.files import locked, replacing
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Predict each task's split; write one file (or one folder of soft targets) per task."""
    if not own_seat().leads:
        return  # one process is enough
    check(cfg)
    opened = OpenedRun.of(cfg)
    now = HydraConfig.get()
    output = Path(cfg.output or now.runtime.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    asked = [(task, task.evaluation[0] if has_own_split(cfg) else cfg.split) for task in asked_tasks(cfg, opened)]
    targets = [target_of(cfg, output, task, split) for task, split in asked]
    sweep = Path(now.runtime.cwd, now.sweep.dir) if now.mode is RunMode.MULTIRUN else None
    note_predicted(Path(now.runtime.output_dir), Path(cfg.run), targets, sweep)
    for (task, split), target in zip(asked, targets, strict=True):
        models = opened.models_for(task)
        if split == "synthetic" and cfg.file is None:
            rows = synthetic(cfg, opened.inputs.shared, task)
        else:
            rows = rows_of(cfg, opened.inputs.shared, task, split)
        write = write_targets if cfg.format == "soft_targets" else write_table
        write(cfg, target, models, task, split, rows)


def has_own_split(cfg: DictConfig) -> bool:
    """Tell whether a task's own validation split is asked for, which may be called otherwise."""
    return bool(cfg.split == "validation" and cfg.file is None)


def target_of(cfg: DictConfig, output: Path, task: Task, split: str) -> Path:
    """Return the file of a task's predictions, or the folder of its soft targets."""
    if cfg.format == "soft_targets":
        return output / f"{task.name}-{split}"
    return output / f"{task.name}-{Path(cfg.file).stem if cfg.file else split}.{cfg.format}"


def check(cfg: DictConfig) -> None:
    """Check what is asked for, before a model is looked at.

    Raises:
        UserError: If the format is none, or an augmenter has nothing to write.
    """
    if cfg.format not in ("csv", "jsonl", "soft_targets"):
        raise UserError(f"format is '{cfg.format}', expected csv, jsonl or soft_targets")
    if cfg.augmenter and (cfg.split != "synthetic" or cfg.file is not None):
        raise UserError(
            f"augmenter writes texts of its own, but split is {cfg.split}: add split=synthetic, without file="
        )


def asked_tasks(cfg: DictConfig, opened: OpenedRun) -> Sequence[Task]:
    """Return the tasks that are asked for, one with the file that is named, if one is.

    Raises:
        UserError: If a file is named for several tasks.
    """
    tasks = opened.inputs.tasks
    if cfg.file is None:
        return tasks
    if len(tasks) != 1:
        raise UserError(f"file={cfg.file} is of one task, but the run has {len(tasks)}: add task=NAME")
    return [replace(tasks[0], files={cfg.split: cfg.file})]


def write_targets(
    cfg: DictConfig, target: Path, models: Sequence[TrainedModel], task: Task, split: str, rows: Rows
) -> None:
    """Write a folder of soft targets, unless it is there.

    Raises:
        UserError: If the run has several models of the task.
    """
    if len(models) > 1:
        raise UserError(
            f"run={cfg.run} has {len(models)} students of {task.name}, and soft targets are of one model: "
            f"choose one of them, run={models[0].folder}"
        )
    models[0].head_task(task)  # it is read, so that its weights are checked
    if is_there(target, expected_manifest(models[0], task, split, rows)):
        log.info("%s %s: %s is there already", task.name, cfg.file or split, target)
        return
    replaced = target.exists()
    write_soft_targets(models[0], target, task, split, rows)
    tell(cfg, target, models, task, split, rows, replaced=replaced)


def write_table(
    cfg: DictConfig, target: Path, models: Sequence[TrainedModel], task: Task, split: str, rows: Rows
) -> None:
    """Write a table of predictions; of several models, of their mean."""
    replaced = target.exists()
    each = [one.logits(task, split, rows) for one in models]
    recipe = Ensemble({task.name: list(models)}).recipe(task, rows)
    ids, logits = each[0][0], mean_logits(torch.stack([said for _, said in each], dim=1), **recipe)
    mask = masked_as(models[0].tokenizer) if split == "synthetic" and rows.augmenter else None
    write_predictions(target, task, rows, ids, logits, mask)
    tell(cfg, target, models, task, split, rows, replaced=replaced)


def tell(
    cfg: DictConfig,
    target: Path,
    models: Sequence[TrainedModel],
    task: Task,
    split: str,
    rows: Rows,
    *,
    replaced: bool,
) -> None:
    """Say in the log what was written."""
    where, precision = f"{target} (replaced)" if replaced else target, choose_precision(models[0].cfg)
    log.info("%s %s: %s rows, %s, %s", task.name, cfg.file or split, f"{rows.count:,}", precision, where)


def rows_of(cfg: DictConfig, shared: Shared, task: Task, split: str) -> Rows:
    """Return the rows of a split; a table needs no labels, and has them where the task is evaluated on the split.

    Soft targets name the data that they are of, labels included.
    """
    if cfg.format == "soft_targets":
        return shared.corpus.require(task, split)
    if cfg.file is None and split in task.evaluation:
        with suppress(UserError):
            return shared.corpus.require(task, split, labelled=True)
    return shared.corpus.require(task, split, labelled=False)


def is_there(folder: Path, expected: Manifest) -> bool:
    """Tell whether a folder holds soft targets as expected; a damaged one is removed, to be written again."""
    if _is_whole(folder, expected):
        return True
    with locked(folder):  # others may have found it damaged, too, and one have written it again
        if _is_whole(folder, expected):
            return True
        if is_of(folder, expected):
            shutil.rmtree(folder)
    return False


def _is_whole(folder: Path, expected: Manifest) -> bool:
    try:
        return is_of(folder, expected) and SoftTargets.open(folder, expected) is not None
    except UserError:
        return False


def synthetic(cfg: DictConfig, shared: Shared, task: Task) -> Rows:
    """Return the rows that the chosen augmenter writes from the task's ``train``.

    Raises:
        UserError: If none is chosen.
    """
    recipe: Any = OmegaConf.to_container(cfg.augmenter, resolve=True)
    if not recipe:
        raise UserError("split=synthetic is what an augmenter writes, but none is chosen: add augmenter=rules")
    return shared.synthetic(task, recipe)


def write_predictions(path: Path, task: Task, rows: Rows, ids: Tensor, logits: Tensor, mask: str | None = None) -> None:
    """Write one line per row, in the order of the data: id, prediction, the probability of each class, and its label.

    Where candidates of a question are ranked, their place among them stands there, 1 for the highest. Rows without
    labels have no such column.

    Args:
        path: A .csv or .jsonl file.
        task: Names the classes, or the range of the scores.
        rows: The rows that were predicted.
        ids: Their example ids ``[N]``, sorted.
        logits: ``[N, C]``, row by row for ``ids``.
        mask: What the model reads for a masked word. With it the texts are written too: no file has synthetic ones.
    """
    table = predictions(task, logits)
    frame = pd.DataFrame(table, index=ids.numpy())
    read = pa.Table.from_batches(rows.batches())
    frame = frame.loc[read["example_id"].to_numpy()]
    if task.kind == "ranking":
        questions = frame.groupby(read["group"].to_numpy())["prediction"]
        frame["rank"] = questions.rank(method="min", ascending=False).astype(int)
    frame.insert(0, "id", read["row_id"].to_pylist())
    labels = read["label"].to_numpy()
    if not np.isnan(labels).all():
        frame["label"] = [task.labels[int(label)] for label in labels] if task.labels else labels
    if mask is not None:
        for place, (name, column) in enumerate(zip(task.texts, ("text_a", "text_b"), strict=False), start=1):
            frame.insert(place, name, pc.replace_substring(read[column], MASKED, mask).to_pylist())
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            frame.to_csv(temporary, index=False, float_format="%.6f")
        else:
            frame.to_json(temporary, orient="records", lines=True, double_precision=6)


def predictions(task: Task, logits: Tensor) -> dict[str, Any]:
    """Return column -> values: ``prediction`` (a label; a score, of ranking any) and ``p_LABEL`` per class."""
    if task.kind == "regression":
        return {"prediction": task.from_unit(logits.squeeze(-1)).tolist()}
    if task.kind == "ranking":
        return {"prediction": logits.squeeze(-1).tolist()}
    probabilities = logits.softmax(-1)
    named = {f"p_{label}": probabilities[:, i].tolist() for i, label in enumerate(task.labels)}
    return {"prediction": [task.labels[i] for i in logits.argmax(-1).tolist()], **named}
