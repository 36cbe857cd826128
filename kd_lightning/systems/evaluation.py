"""What a system is told of its predictions: metrics of all tasks, over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torchmetrics import MetricCollection

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task, glue_average


class EvaluatedModule(pl.LightningModule):
    """A module whose ``forward`` returns task -> logits ``[n, C]`` of a batch: it is scored, and predicts.

    Args:
        tasks: What it is scored on.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.metrics = nn.ModuleDict({f"{t.name}:{split}": t.build_metrics() for t in tasks for split in t.evaluation})

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Feed the metrics of the batch's task and split."""
        by_name = {task.name: task for task in self.tasks}
        for name, logits in self(batch).items():
            rows = batch["tasks"][name]
            if not rows["has_label"].all():
                raise ValueError(f"task {name}: {batch['split']} has rows without a label, expected labels to score on")
            if not logits.isfinite().all():
                raise UserError(
                    f"task {name}: after {self.trainer.global_step} steps the model predicts numbers that are not "
                    "finite, it has diverged; lower optimizer.lr (or, with fp16, use trainer.precision=32-true)"
                )
            task, logits = by_name[name], logits.float()
            groups = {"relevance": task.relevance(logits), "group": rows["group"]} if task.group else {}
            self.metric(name, batch["split"]).update(task.predictions(logits), rows["labels"], **groups)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/TASK/METRIC`` (further splits: ``val/TASK/SPLIT/METRIC``) and ``val/average``."""
        scores = self.scores()
        values = {f"val/{name}/{metric}": v for name, metrics in scores.items() for metric, v in metrics.items()}
        if scores:
            values["val/average"] = glue_average(scores)
        self.log_dict(values, batch_size=1, sync_dist=True)  # the metrics are of all ranks already
        for task in self.tasks:
            for split in task.evaluation:
                self.metric(task.name, split).reset()

    def metric(self, task: str, split: str) -> MetricCollection:
        """Return the metrics of a task's split."""
        found = self.metrics[f"{task}:{split}"]
        assert isinstance(found, MetricCollection)
        return found

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the metrics of this evaluation: task (``task/split`` for further splits) -> metric -> value."""
        scores = {}
        for task in self.tasks:
            for split in task.evaluation:
                metric = self.metric(task.name, split)
                if all(m.update_called for m in metric.values()):
                    scores[task.score_key(split)] = {name: value.item() for name, value in metric.compute().items()}
        return scores

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``example_id [B]`` and ``logits [B, C]`` of a batch of one task."""
        ((_, logits),) = self(batch).items()
        return {"example_id": batch["example_id"], "logits": logits.float()}
