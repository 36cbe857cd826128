"""From trained teachers to soft targets: written to a folder, or found in the store."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from kd_lightning.apps.fits.identity import versions
from kd_lightning.apps.fits.inputs import swapped_copies
from kd_lightning.apps.stages.given_scores import GivenScores
from kd_lightning.apps.stages.teachers import Model
from kd_lightning.data import Manifest, Rows, SoftTargets
from kd_lightning.data.soft_targets.chunks import write_in_chunks
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError
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
    if isinstance(teacher, GivenScores):  # a file is read whole
        whole = partial(teacher.logits, task, split, rows, both_orders=manifest.both_orders)
        write_in_chunks(folder, manifest, lambda _: whole(), chunk=manifest.rows)
        return
    if tokenizer_fingerprint(teacher.tokenizer) != manifest.tokenizer:
        raise UserError(
            f"{teacher.folder}: the tokenizer is not the one the model was trained with; restore the folder"
        )
    predict = partial(teacher.logits, task, split, rows, both_orders=manifest.both_orders)
    write_in_chunks(folder, manifest, lambda some: predict(some=some))


def stored_soft_targets(teacher: Model, task: Task, split: str, rows: Rows) -> SoftTargets:
    """Return a split's soft targets from the store, predicted now if they are not there."""
    manifest = expected_manifest(teacher, task, split, rows)
    folder = teacher.store / "soft_targets" / f"{task.name}-{split}-{manifest.key()}"
    if not folder.exists():
        stage = teacher.result["stage"]
        log.info("%s: soft targets for %s %s, %s examples", stage, task.name, split, f"{manifest.rows:,}")
        write_soft_targets(teacher, folder, task, split, rows)
    return SoftTargets.open(folder, expected=manifest)
