"""``kd-train``: one fit of one system, in the run's own folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.command_line.finished import (
    files_of_runs,
    note_elsewhere,
    read_summary,
    result_of_job,
    skipped_by_all,
)
from kd_lightning.apps.command_line.going_on import LEFT_AS_IT_IS
from kd_lightning.apps.command_line.jobs import ERROR, MARK
from kd_lightning.apps.fits.build import learns_from_teachers, system_class, with_teacher_heads
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.fit_checks import check_fit, warn_of_few_steps
from kd_lightning.apps.fits.identity import IDENTITY, SoftTargetMap, identity_in, versions
from kd_lightning.apps.fits.inputs import FitInputs, check_unlabelled, swapped_copies
from kd_lightning.apps.fits.resume import claimed, find_checkpoint, read_checkpoint
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.trainer import silence_libraries
from kd_lightning.apps.processes.meeting import met
from kd_lightning.apps.processes.preemption import started_before
from kd_lightning.apps.results.report import write_report
from kd_lightning.apps.results.summary import SummaryFile, add_scores, new_summary
from kd_lightning.apps.results.tables import show_scores
from kd_lightning.apps.settings.config import Config
from kd_lightning.callbacks import resume_path
from kd_lightning.data import SoftTargets, StackedTeachers, TeacherLogits
from kd_lightning.data.soft_targets.manifest import check_expected
from kd_lightning.errors import UserError
from kd_lightning.files import files_named, from_here
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import glue_average


def run(cfg: DictConfig) -> float | None:
    """Train; return the average score (the objective of a sweep)."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    own = Path(HydraConfig.get().runtime.output_dir)
    check_unlabelled(plain)
    summary = new_summary(plain, versions())
    shared = Shared.of(plain)
    soft_targets = open_soft_targets(plain, FitInputs(plain, shared))
    if system_class(plain).has_teacher_heads:
        plain = with_teacher_heads(plain, teachers_named(soft_targets))
    fit = Fit(plain["name"], plain, shared, soft_targets)
    silence_libraries()
    with met(fit.processes, Path(plain["paths"]["store"])) as team:
        if (before := skipped_by_all(cfg, team)) is not None:
            return before[1]
        team.agree(lambda: check(fit))
        folder, checkpoint = (path and Path(path) for path in team.agree(partial(where, fit, own)))
        with claimed(folder), SummaryFile(folder, summary):
            warn_of_few_steps(fit)
            if not (team.leads or fit.processes > 1):
                return None  # the first trains alone
            result = fit.run(folder, checkpoint)
            summary["objective"] = glue_average(result["scores"])
            if team.leads:
                report(fit, result, folder, summary)
                (folder / ERROR).unlink(missing_ok=True)  # of a job that ended before
        if team.leads and folder != own:
            (folder / MARK).unlink(missing_ok=True)  # of a job that was killed
    return glue_average(result["scores"])


def where(fit: Fit, folder: Path) -> list[str | None]:
    """Return the folder to train in, and the checkpoint from which it goes on, if it does.

    Args:
        fit: What is trained.
        folder: Of this job. If another is found, that is noted there.
    """
    cfg, in_sweep = fit.cfg, HydraConfig.get().mode is RunMode.MULTIRUN
    again = "last" if started_before() and resume_path(folder).is_file() else cfg["ckpt_path"]
    is_there = result_of_job(folder) == folder and identity_in(folder) == fit.identity
    if again == "last" and is_there and not started_before():
        raise UserError(
            f"ckpt_path=last: {from_here(folder)} has finished; {LEFT_AS_IT_IS}, without ckpt_path it is trained anew"
        )
    runs = (path.parent for path in chain(files_named(IDENTITY, folder.parent), files_of_runs(IDENTITY, cfg)))
    ours = (run for run in runs if _is_called(cfg["name"], run))
    found, checkpoint = find_checkpoint(again, folder, fit.identity, ours, in_sweep)
    if checkpoint:
        read_checkpoint(checkpoint, fit.identity)  # what is refused here has written nothing
    if in_sweep and found != folder:
        note_elsewhere(folder, found)
    return [str(found), str(checkpoint) if checkpoint else None]


def _is_called(name: str, folder: Path) -> bool:
    """Tell whether a run has a name; a fit's identity has none."""
    return bool(read_summary(folder / "summary.json").get("experiment") == name)


def check(fit: Fit) -> None:
    """Check a fit and its soft targets, before anything is written.

    Raises:
        UserError: If a setting or the data is wrong.
    """
    check_fit(fit, {})
    check_soft_targets(fit.soft_targets, fit.inputs)


def report(fit: Fit, result: Config, folder: Path, summary: Config) -> None:
    """Fill the summary, as of a distillation with a student alone, write ``report.md``, print the scores."""
    add_scores(summary, fit.inputs.tasks, {"student": result["scores"]})
    summary["data"] = result["data"]
    summary["parameters"]["student"] = result["parameters"]
    summary["parameters"]["student_without_embeddings"] = result["parameters_without_embeddings"]
    summary["seconds"] = {"student": result["seconds"]}
    write_report(folder, summary)
    show_scores(f"{fit.stage}: {folder}", result["scores"])


def open_soft_targets(cfg: Config, inputs: FitInputs) -> SoftTargetMap:
    """Return the soft targets that the configuration names: task -> folder, or task -> split -> folder.

    Of a system with a head for each teacher, task or split -> list of folders, too.

    Raises:
        UserError: If the system needs some and there are none, or the other way round; if a task or split is not
            trained here, or a folder cannot be read.
    """
    named = cfg["soft_targets"] or {}
    if not isinstance(named, dict):
        raise UserError(f"soft_targets is {named!r}, expected a folder per task: +soft_targets.TASK=FOLDER")
    system, learns = cfg["system"]["_target_"].rpartition(".")[2], learns_from_teachers(cfg)
    if learns and not named:
        raise UserError(
            f"{system} learns from teachers, but no soft targets are named: add +soft_targets.TASK=FOLDER (kd-predict "
            "format=soft_targets writes them), or let kd-distill do all of it"
        )
    if named and not learns:
        raise UserError(f"{system} learns from gold labels alone, but soft_targets names some: choose system=bam")
    if cfg["augmenter"]:
        _check_synthetic(cfg, named)
    tasks = {task.name: task for task in inputs.tasks}
    found: dict[tuple[str, str], TeacherLogits] = {}
    for name, folders in named.items():
        if name not in tasks:
            raise UserError(f"soft_targets names the task {name}, which is not trained: expected one of task=[...]")
        for split, named_folders in (folders if isinstance(folders, dict) else {"train": folders}).items():
            if (name, split) not in inputs.training_splits:
                trained = ", ".join(of for task, of in inputs.training_splits if task == name)
                raise UserError(f"soft_targets.{name} names the split {split}, which is not trained: {trained} is")
            found[name, split] = _open(f"soft_targets.{name}.{split}", named_folders, system_class(cfg))
    return found


def _open(where: str, folders: Any, system: type[NLUSystem]) -> TeacherLogits:
    """Return the soft targets of a folder, or of several side by side."""
    each = folders if isinstance(folders, list) else [folders]
    if not each or not all(isinstance(folder, str) for folder in each):
        raise UserError(f"{where} is {folders!r}, expected a folder, or a list of folders")
    if len(each) > 1 and not system.has_teacher_heads:
        raise UserError(
            f"{where} names {len(each)} folders, but {system.__name__} hears one teacher: choose system=tmkd"
        )
    opened = [SoftTargets.open(Path(folder)) for folder in each]
    return StackedTeachers(opened) if system.has_teacher_heads else opened[0]


def teachers_named(soft_targets: SoftTargetMap) -> dict[str, int]:
    """Return task -> number of its teachers, whose logits are side by side.

    Raises:
        UserError: If the splits of a task have different numbers of them.
    """
    found: dict[str, int] = {}
    for (task, split), targets in soft_targets.items():
        count = targets.shape[0]
        if found.setdefault(task, count) != count:
            raise UserError(
                f"soft_targets.{task}.{split} has {count} teachers, other splits {found[task]}: expected as many"
            )
    return found


def _check_synthetic(cfg: Config, named: Config) -> None:
    """Check, before texts are written, that each task has a teacher for them; they have no labels."""
    for name in cfg["task"]:
        folders = named.get(name)
        if not isinstance(folders, dict) or not folders.get("synthetic"):
            raise UserError(
                f"soft_targets.{name} names no soft targets of the rows that the augmenter writes: add "
                f"'+soft_targets.{name}={{train: FOLDER, synthetic: FOLDER}}' (kd-predict split=synthetic "
                "format=soft_targets writes them), or set augmenter=none"
            )


def check_soft_targets(soft_targets: SoftTargetMap, inputs: FitInputs) -> None:
    """Check that soft targets are of the task, split, labels and data that they are to teach.

    Raises:
        UserError: If some are not; the message names folder, field and both values.
    """
    by_name = {task.name: task for task in inputs.tasks}
    for (name, split), targets in soft_targets.items():
        task = by_name[name]
        expected = replace(
            targets.manifest,
            task=name,
            split=split,
            labels=task.classes,
            both_orders=swapped_copies(task, split),
            data=inputs.training_rows[name, split].fingerprint,
        )
        check_expected(targets.folder, targets.manifest, expected)
