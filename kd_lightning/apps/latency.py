"""How long a model takes for one row."""

from __future__ import annotations

import statistics
import time

import torch

from kd_lightning.apps.inputs import FitInputs
from kd_lightning.apps.trained_model import TrainedModel
from kd_lightning.data import EvaluationStream, Part


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
    stream = EvaluationStream(
        Part(model.head_task(task), split, table), batch_size=1, pad_id=model.tokenizer.pad_token_id
    )
    middle = len(stream) // 2  # rows come by length
    batches = [batch for i, batch in enumerate(stream) if abs(i - middle) < 8]
    system = model.system.cpu()
    times = []
    with torch.inference_mode():
        for i in range(repeats + 5):
            start = time.perf_counter()
            system(batches[i % len(batches)])
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])
