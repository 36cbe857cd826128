"""What rows to evaluate cannot tell: scores of them would be as high, or as low, for any model."""

from __future__ import annotations

import logging

from kd_lightning.data.batches.grouping import count_candidates
from kd_lightning.data.rows import Rows
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def check_evaluation_rows(task: Task, split: str, rows: Rows) -> None:
    """Say which rows of an evaluated split count in no score, and which scores tell nothing.

    Args:
        task: The task.
        split: One of its evaluated splits.
        rows: Its rows, with labels.

    Raises:
        UserError: If candidates of questions are to be ranked, and most questions have one alone.
    """
    if task.ranks:
        sizes, relevant = count_candidates(task, split, rows)
        questions = f"{len(sizes):,}"
        if none := int((relevant == 0).sum()):
            found = "have no relevant candidate: no score counts them"
            log.warning("%s %s: of %s questions %s %s", task.name, split, questions, f"{none:,}", found)
        if every := int((relevant == sizes).sum()):
            found = "have relevant candidates alone: any order of them is right"
            log.warning("%s %s: of %s questions %s %s", task.name, split, questions, f"{every:,}", found)
    if task.kind == "ranking":
        return
    (label,) = rows.by_id("label")
    if (label == label[0]).all():
        value = task.labels[int(label[0])] if task.labels else f"{label[0]:g}"
        log.warning("%s %s: of %s rows all are %s: scores tell nothing", task.name, split, f"{len(label):,}", value)
