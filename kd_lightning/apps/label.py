"""A trained model's logits: for soft targets, for predictions, for an ensemble's scores."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.apps.build import Config, load_system
from kd_lightning.apps.fit import build_trainer, finished, read_config, silence_libraries
from kd_lightning.data import EvaluationStream, Manifest, Part, Rows, SoftTargets, TokenTable, tokenise
from kd_lightning.data.folders import locked
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """The model in a finished fit's folder, loaded when first needed.

    Args:
        folder: Of the fit.
        cfg: Its configuration; paths and hardware may be those of another run.
    """

    folder: Path
    cfg: Config

    @classmethod
    def open(cls, folder: Path, **settings: Any) -> TrainedModel:
        """Return the model of a folder, with some of its settings (paths, trainer, data) replaced.

        Raises:
            UserError: If the folder holds no finished fit.
        """
        cfg = read_config(folder)
        return cls(folder, {**cfg, **settings})

    @cached_property
    def loaded(self) -> Any:
        """The system, its tokenizer and its encoder's recipe."""
        return load_system(self.folder, self.cfg)

    @cached_property
    def result(self) -> Config:
        """The fit's ``fit.json``."""
        found = finished(self.folder)
        if found is None:
            raise UserError(f"{self.folder} holds no fit.json: the fit has not finished; run it again to continue it")
        return found

    def tokens(self, task: Task, split: str, rows: Rows, *, both_orders: bool) -> TokenTable:
        """Return the rows in this model's tokens."""
        _, tokenizer, spec = self.loaded
        return tokenise(
            rows,
            tokenizer,
            max_length=spec.max_length,
            both_orders=both_orders,
            cache=Path(self.cfg["paths"]["cache"]) / "tokens",
            name=f"{task.name}-{split}",
        )

    def logits(self, task: Task, split: str, rows: Rows, *, both_orders: bool = False) -> tuple[Tensor, Tensor]:
        """Return ``example_id [N]`` and ``logits [N, C]`` of all rows, in order of id.

        Raises:
            UserError: If the model has no head for the task.
        """
        system, tokenizer, _ = self.loaded
        if task.head_name not in system.heads:
            known = ", ".join(system.heads)
            raise UserError(f"the model in {self.folder} has no head for {task.head_name}, it has {known}")
        silence_libraries()
        table = self.tokens(task, split, rows, both_orders=both_orders)
        # The rows go to the head that predicts them, under that head's name.
        head = next(t for t in system.tasks if t.name == task.head_name)
        stream = EvaluationStream(
            Part(head, split, table),
            batch_size=self.cfg["batching"]["eval_batch_size"],
            pad_id=tokenizer.pad_token_id,
        )
        single = {**self.cfg, "trainer": {**self.cfg["trainer"], "devices": 1, "strategy": "auto"}}
        trainer = build_trainer({**single, "logger": {}, "callbacks": {}}, self.folder, f"{task.name} {split}")
        batches: Any = trainer.predict(system, dataloaders=stream)
        ids = torch.cat([batch["example_id"] for batch in batches])
        logits = torch.cat([batch["logits"].cpu() for batch in batches])
        order = ids.argsort()
        distinct = len(set(ids.tolist()))
        if not len(ids) == distinct == len(table):
            raise RuntimeError(f"predicted {len(ids)} rows ({distinct} distinct) of {len(table)}")
        return ids[order], logits[order]

    def manifest(self, task: Task, split: str, rows: Rows) -> Manifest:
        """Return what this model's soft targets of a split must say of themselves."""
        both_orders = task.both_orders and split not in task.evaluation
        return Manifest(
            task=task.name,
            split=split,
            labels=task.labels,
            rows=rows.count * (2 if both_orders else 1),
            data=rows.fingerprint,
            teacher=self.result["weights"],
            tokenizer=self.result["tokenizer"],
            max_length=self.cfg["encoder"]["max_length"],
            both_orders=both_orders,
        )

    def write_soft_targets(self, folder: Path, task: Task, split: str, rows: Rows) -> Manifest:
        """Predict the split and write its soft targets into the folder."""
        manifest = self.manifest(task, split, rows)
        own = tokenizer_fingerprint(self.loaded[1])
        if own != manifest.tokenizer:
            raise UserError(
                f"{self.folder}: the tokenizer is not the one the model was trained with; restore the folder"
            )
        ids, logits = self.logits(task, split, rows, both_orders=manifest.both_orders)
        SoftTargets.write(folder, manifest, ids, logits)
        return manifest

    def stored_soft_targets(self, task: Task, split: str, rows: Rows) -> tuple[SoftTargets, bool]:
        """Return the split's soft targets from the store, and whether they had to be written now."""
        manifest = self.manifest(task, split, rows)
        name = f"{task.name}-{split}-{manifest.key()}"
        folder = Path(self.cfg["paths"]["store"]) / "soft_targets" / name
        with locked(folder):
            new = not folder.exists()
            if new:
                log.info("soft targets: %s %s, %s examples", task.name, split, f"{manifest.rows:,}")
                self.write_soft_targets(folder, task, split, rows)
            return SoftTargets.open(folder, expected=manifest), new


def scores_from_logits(task: Task, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the task's metrics of logits ``[N, C]`` against class indices or raw scores ``[N]``."""
    predictions = logits.squeeze(-1) if task.kind == "regression" else logits.argmax(-1)
    targets = labels
    if task.score_range is not None:
        low, high = task.score_range
        targets = (labels - low) / (high - low)
    metrics = task.build_metrics()
    metrics.update(predictions, targets if task.kind == "regression" else targets.long())
    return {name: float(value) for name, value in metrics.compute().items()}
