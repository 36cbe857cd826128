"""``kd-distill``: teachers, their soft targets, the student, the same student without a teacher, and one table.

Everything that is trained or predicted lives in the store, named by content: a run builds only what is missing, and a
run that was interrupted continues where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.build import Config, Materials
from kd_lightning.apps.evaluate import labels_by_id
from kd_lightning.apps.fit import SoftTargetMap, finished, stored_fit, versions, write_config
from kd_lightning.apps.label import TrainedModel, scores_from_logits
from kd_lightning.apps.report import distillation_rows, show_table, summarise, write_report
from kd_lightning.data import EvaluationStream, Part, SoftTargets, ensemble
from kd_lightning.data.folders import write_json
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

PER_FIT = ("encoder", "system", "optimizer", "scheduler", "task_sampler", "batching", "trainer")


@dataclass
class Stopwatch:
    """Seconds spent in each stage of this run; a stage found in the store takes next to none."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's duration to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def run(cfg: DictConfig) -> float | None:
    """Distil; return the student's average score (the objective of a sweep)."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    write_config(folder, plain)
    watch, materials = Stopwatch(), Materials(plain)
    learns = "distill_loss" in plain["system"]

    teachers = train_teachers(plain, materials, watch) if learns else {}
    soft_targets = label(plain, materials, teachers, watch) if learns else {}
    students = train_students(plain, materials, soft_targets, watch)
    baselines = train_baselines(plain, materials, watch) if learns and plain["baseline"] else {}

    scores = {"student": merged_scores(students)}
    if baselines:
        scores["baseline"] = merged_scores(baselines)
    if teachers:
        scores["teacher"] = teacher_scores(teachers)
        if len(plain["teacher"]["seeds"]) > 1:
            with watch.stage("evaluate"):
                scores["ensemble"] = ensemble_scores(teachers, materials)
    summary = finish(folder, plain, materials, scores, students, teachers, watch)
    show_table(f"{plain['name']}, seed {plain['seed']}", *distillation_rows(summary))
    log.info("report: %s", folder / "report.md")
    return summary["average"]["student"]


def only(cfg: Config, tasks: list[Task]) -> Config:
    """Return the configuration with some of its tasks."""
    return {**cfg, "task": {task.name: cfg["task"][task.name] for task in tasks}}


def scopes(tasks: list[Task], scope: str) -> list[list[Task]]:
    """Return the tasks of each model: one model per task (``single``), or one of all (``multi``)."""
    if scope not in ("single", "multi"):
        from kd_lightning.errors import UserError

        raise UserError(f"scope is '{scope}', expected single (one model per task) or multi (one of all tasks)")
    return [[task] for task in tasks] if scope == "single" else [tasks]


def role(stage: str, tasks: list[Task], scope: str) -> str:
    """Return the name of a model in messages and folders."""
    return f"{stage} {tasks[0].name}" if scope == "single" else stage


def teacher_config(cfg: Config, tasks: list[Task], seed: int) -> Config:
    """Return the configuration of a teacher: the run's, with the settings under ``teacher`` in their place."""
    fit = only(copy.deepcopy(cfg), tasks)
    for name in PER_FIT:
        if name in cfg["teacher"]:
            keep = fit[name] if name in ("batching", "trainer") else {}
            fit[name] = {**keep, **cfg["teacher"][name]}
    fit["batching"] |= {"unlabelled": False, "epoch_rows": cfg["teacher"]["batching"].get("epoch_rows")}
    return {**fit, "seed": seed}


def train_teachers(cfg: Config, materials: Materials, watch: Stopwatch) -> dict[str, list[TrainedModel]]:
    """Return task -> its teachers (one per seed), trained on gold labels or found in the store."""
    teachers: dict[str, list[TrainedModel]] = {}
    scope = cfg["teacher"]["scope"]
    with watch.stage("teacher"):
        for tasks in scopes(materials.tasks, scope):
            for seed in cfg["teacher"]["seeds"]:
                fit = teacher_config(cfg, tasks, seed)
                folder, _ = stored_fit(fit, role("teacher", tasks, scope), {})
                for task in tasks:
                    teachers.setdefault(task.name, []).append(TrainedModel(folder, fit))
    return teachers


def label(
    cfg: Config, materials: Materials, teachers: dict[str, list[TrainedModel]], watch: Stopwatch
) -> dict[tuple[str, str], SoftTargets]:
    """Return (task, split) -> soft targets on all rows the student trains on; of several teachers, their mean."""
    found: dict[tuple[str, str], SoftTargets] = {}
    by_name = {task.name: task for task in materials.tasks}
    with watch.stage("soft_targets"):
        for (name, split), rows in materials.training_rows.items():
            members = [model.stored_soft_targets(by_name[name], split, rows)[0] for model in teachers[name]]
            found[name, split] = ensemble(members) if len(members) > 1 else members[0]
    return found


def train_students(cfg: Config, materials: Materials, soft_targets: SoftTargetMap, watch: Stopwatch) -> dict[str, Path]:
    """Return task -> folder of its student."""
    students: dict[str, Path] = {}
    scope = cfg["student"]["scope"]
    with watch.stage("student"):
        for tasks in scopes(materials.tasks, scope):
            names = {task.name for task in tasks}
            own = {key: targets for key, targets in soft_targets.items() if key[0] in names}
            folder, _ = stored_fit(only(cfg, tasks), role("student", tasks, scope), own)
            students |= dict.fromkeys((task.name for task in tasks), folder)
    return students


def train_baselines(cfg: Config, materials: Materials, watch: Stopwatch) -> dict[str, Path]:
    """Return task -> folder of the student without a teacher: gold labels alone, for the same number of steps."""
    baselines: dict[str, Path] = {}
    scope = cfg["student"]["scope"]
    parts = ("_target_", "_partial_", "reduction", "head")
    with watch.stage("baseline"):
        for tasks in scopes(materials.tasks, scope):
            fit = only(copy.deepcopy(cfg), tasks)
            fit["system"] = {**{k: v for k, v in cfg["system"].items() if k in parts}}
            fit["system"]["_target_"] = "kd_lightning.systems.Teacher"
            names = {task.name for task in tasks}
            doubled = {task.name: 2 if task.both_orders else 1 for task in tasks}
            rows = sum(r.count * doubled[t] for (t, _), r in materials.training_rows.items() if t in names)
            fit["batching"] |= {"unlabelled": False, "epoch_rows": cfg["batching"]["epoch_rows"] or rows}
            folder, _ = stored_fit(fit, role("baseline", tasks, scope), {})
            baselines |= dict.fromkeys((task.name for task in tasks), folder)
    return baselines


def result_of(folder: Path) -> Config:
    """Return a finished fit's ``fit.json``."""
    found = finished(folder)
    assert found is not None
    return found


def merged_scores(folders: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return task -> metric -> value, each task's from its own model."""
    scores: dict[str, dict[str, float]] = {}
    for task, folder in folders.items():
        found = result_of(folder)["scores"]
        scores |= {name: values for name, values in found.items() if name == task or name.startswith(f"{task}/")}
    return scores


def teacher_scores(teachers: dict[str, list[TrainedModel]]) -> dict[str, dict[str, float]]:
    """Return task -> metric -> value, the mean over each task's teachers."""
    scores: dict[str, dict[str, float]] = {}
    for task, models in teachers.items():
        each = [merged_scores({task: model.folder}) for model in models]
        for name in each[0]:
            scores[name] = {m: statistics.fmean(one[name][m] for one in each) for m in each[0][name]}
    return scores


def ensemble_scores(teachers: dict[str, list[TrainedModel]], materials: Materials) -> dict[str, dict[str, float]]:
    """Return task -> metric -> value of the mean of the teachers' probabilities (of scores, their mean)."""
    scores = {}
    by_name = {task.name: task for task in materials.tasks}
    for (name, split), rows in materials.evaluation_rows.items():
        task = by_name[name]
        each = torch.stack([model.logits(task, split, rows)[1] for model in teachers[name]])
        mean = each.mean(0) if task.kind == "regression" else each.softmax(-1).mean(0).log()
        key = name if split == task.evaluation[0] else f"{name}/{split}"
        scores[key] = scores_from_logits(task, mean, labels_by_id(rows))
    return scores


def latency(model: TrainedModel, materials: Materials, repeats: int = 50) -> float:
    """Return the median milliseconds of one forward pass of one validation row, on the processor, in float32."""
    system, tokenizer, _ = model.loaded
    task = next(task for task in materials.tasks if task.head_name in system.heads)
    rows = materials.evaluation_rows[task.name, task.evaluation[0]]
    table = model.tokens(task, task.evaluation[0], rows, both_orders=False)
    stream = EvaluationStream(Part(task, "", table), batch_size=1, pad_id=tokenizer.pad_token_id)
    middle = len(stream) // 2  # rows come by length: those around the median length
    batches = [batch for i, batch in enumerate(stream) if abs(i - middle) < 8]
    times = []
    with torch.inference_mode():
        for i in range(repeats + 5):
            start = time.perf_counter()
            system(batches[i % len(batches)])
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])


def finish(
    folder: Path,
    cfg: Config,
    materials: Materials,
    scores: dict[str, dict[str, dict[str, float]]],
    students: dict[str, Path],
    teachers: dict[str, list[TrainedModel]],
    watch: Stopwatch,
) -> Config:
    """Put the student into the run's folder and write ``summary.json``, ``metrics.csv`` and ``report.md``."""
    results = {task: result_of(path) for task, path in students.items()}
    data = {task: results[task]["data"][task] for task in results}
    summary = summarise(cfg, materials.tasks, scores, data, versions())
    first = next(iter(students))
    with watch.stage("latency"):
        summary["latency_ms"]["student"] = latency(TrainedModel.open(students[first], paths=cfg["paths"]), materials)
        if teachers:
            summary["latency_ms"]["teacher"] = latency(teachers[first][0], materials)
    summary["parameters"] = {
        "teacher": result_of(teachers[first][0].folder)["parameters"] if teachers else None,
        "student": results[first]["parameters"],
        "student_without_embeddings": results[first]["parameters_without_embeddings"],
    }
    plain = {k: v for k, v in cfg.items() if k not in ("paths", "logger", "callbacks")}
    summary["config_hash"] = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
    summary["seconds"], summary["status"] = watch.seconds, "finished"
    summary["folders"] = {
        "student": {task: str(path) for task, path in students.items()},
        "teacher": {task: [str(model.folder) for model in models] for task, models in teachers.items()},
    }
    for path in dict.fromkeys(students.values()):
        name = "student" if len(set(students.values())) == 1 else path.name.rpartition("-")[0]
        shutil.copytree(path, folder / name, copy_function=_link, dirs_exist_ok=True)
        if name == "student":
            shutil.copy(path / "metrics.csv", folder / "metrics.csv")
    write_report(folder, summary)
    write_json(folder / "summary.json", summary)
    return summary


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where links are not to be had."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
