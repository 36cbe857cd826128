"""From trained teachers to soft targets: written to a folder, or found in the store."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from kd_lightning.apps.fits.build import system_class
from kd_lightning.apps.fits.identity import SoftTargetMap, versions
from kd_lightning.apps.fits.inputs import FitInputs, swapped_copies
from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.apps.stages.ensemble import Ensemble, Model
from kd_lightning.data import Manifest, Rows, SoftTargets, StackedTeachers, ensemble
from kd_lightning.data.soft_targets.chunks import write_in_chunks
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def expected_manifest(teacher: Model, task: Task, split: str, rows: Rows) -> Manifest:
    """Return what a teacher's soft targets of a split must say of themselves."""
    both_orders = swapped_copies(task, split)
    return Manifest(
        task=task.name,
        split=split,
        labels=task.classes,
        rows=rows.count * (2 if both_orders else 1),
        data=rows.fingerprint,
        both_orders=both_orders,
        augmenter=rows.augmenter,
        versions=versions(),
        **teacher.origin(task.name, split),
    )


def write_soft_targets(teacher: Model, folder: Path, task: Task, split: str, rows: Rows) -> None:
    """Predict a split and write its soft targets into the folder; other jobs that do the same share the work.

    Raises:
        UserError: If the teacher's folder was changed after its fit, or it has no head for the task, or no score.
    """
    manifest = expected_manifest(teacher, task, split, rows)
    predict = partial(teacher.logits, task, split, rows, both_orders=manifest.both_orders)
    write_in_chunks(folder, manifest, lambda some: predict(some=some))


def is_stored(teacher: Model, task: Task, split: str, rows: Rows) -> bool:
    """Tell whether the store has a teacher's soft targets of a split."""
    return _place(teacher, expected_manifest(teacher, task, split, rows)).exists()


def stored_soft_targets(teacher: Model, task: Task, split: str, rows: Rows) -> SoftTargets:
    """Return a split's soft targets from the store, predicted now if they are not there."""
    manifest = expected_manifest(teacher, task, split, rows)
    folder = _place(teacher, manifest)
    if not folder.exists():
        stage = teacher.result["stage"]
        log.info("%s: soft targets for %s %s, %s examples", stage, task.name, split, f"{manifest.rows:,}")
        write_soft_targets(teacher, folder, task, split, rows)
    return SoftTargets.open(folder, expected=manifest)


def _place(teacher: Model, manifest: Manifest) -> Path:
    """Return where the store has the soft targets that a manifest tells of."""
    return teacher.store / "soft_targets" / f"{manifest.task}-{manifest.split}-{manifest.key()}"


def predict_soft_targets(found: Ensemble, inputs: FitInputs) -> SoftTargetMap:
    """Return (task, split) -> soft targets on all rows of taught tasks; of several teachers, the ensemble's.

    Where each teacher has a head, all of them are there, side by side.
    """
    by_name = {task.name: task for task in inputs.tasks}
    asked = found.ask(
        inputs.training_rows, lambda model, name, split, rows: stored_soft_targets(model, by_name[name], split, rows)
    )
    heads = system_class(inputs.cfg).has_teacher_heads
    heard = {}
    for key, each in asked.items():
        if len(each) > 1 and found.mean:
            recipe = found.recipe(by_name[key[0]], inputs.training_rows[key])
            each = [refused_by("teacher.ensemble", {}, ensemble, each, **recipe)]
        heard[key] = StackedTeachers(each) if heads else each[0]
    return heard
