"""How long a model takes for one row."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.data import Part, collate


def latency(model: TrainedModel, inputs: FitInputs, repeats: int = 50) -> float:
    """Return the median milliseconds of one forward pass of one row, on the processor, in float32.

    The rows are those around the median length of a task's evaluation split.

    Args:
        model: The model.
        inputs: Tasks and rows; the first task that the model has a head for is taken.
        repeats: Number of passes, after five that are not counted.
    """
    task = next(task for task in inputs.tasks if task.head_name in model.system.heads)
    split = task.evaluation[0]
    table = model.tokens(task, split, inputs.evaluation_rows[task.name, split])
    part = Part(model.head_task(task), split, table)
    by_length = np.argsort(table.lengths(np.arange(len(table))), kind="stable")
    middle = len(table) // 2
    rows = by_length[max(0, middle - 8) : middle + 8]
    batches = [collate([part], np.zeros(1, np.int64), row[None], model.tokenizer.pad_token_id) for row in rows]
    system = model.system.cpu()
    times = []
    with torch.inference_mode():
        for i in range(repeats + 5):
            start = time.perf_counter()
            system(batches[i % len(batches)])
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])
