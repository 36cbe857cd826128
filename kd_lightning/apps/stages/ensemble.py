"""The teachers of each task, asked one by one, and how what they say becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from kd_lightning.apps.settings.config import Config
from kd_lightning.data import Rows
from kd_lightning.ensembling import Mean
from kd_lightning.tasks import Task

Answer = TypeVar("Answer")


class Model(Protocol):
    """What teaches: a trained model, or the scores that one gave elsewhere."""

    @property
    def location(self) -> Path:
        """Where it lies, as lists of models have it."""

    @property
    def store(self) -> Path:
        """Where its soft targets are kept."""

    @property
    def result(self) -> Config:
        """What ``fit.json`` says of a fit; ``stage`` and ``scores`` at least."""

    def knows(self, task: str, split: str) -> bool:
        """Tell whether it can be asked about a task's split."""

    def origin(self, task: str, split: str) -> Config:
        """Return what its soft targets of a split depend on beside the rows, as manifests name it."""

    def logits(
        self, task: Task, split: str, rows: Rows, *, both_orders: bool = False, some: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Return ``example_id [N]`` and ``logits [N, C]`` of some of the examples, in order of id."""

    def release(self) -> None:
        """Give memory back; what was in it is read again when it is next asked for."""


ModelLists = Mapping[str, Sequence[Model]]
"""Task -> its models."""


@dataclass(frozen=True)
class Ensemble:
    """The teachers of each task, and how their predictions become one.

    Args:
        models: Task -> its teachers, of the tasks that have some.
        mean: What is averaged; None if the student hears each of them (what they say together is then the mean of
            their probabilities).
        weights: Task -> a weight for each of its teachers; None for equal ones.
    """

    models: ModelLists
    mean: Mean | None = "probabilities"
    weights: Mapping[str, Sequence[float] | None] | None = None

    def members(self) -> list[Ensemble]:
        """Return the teachers one by one; each task must have as many."""
        counts = {len(each) for each in self.models.values()}
        return [Ensemble({task: each[i : i + 1] for task, each in self.models.items()}) for i in range(max(counts))]

    def ask(
        self, rows: Mapping[tuple[str, str], Rows], question: Callable[[Model, str, str, Rows], Answer]
    ) -> dict[tuple[str, str], list[Answer]]:
        """Return (task, split) -> the answers of the task's teachers, in order; of splits that all of them know.

        Each teacher is asked all at once and then released: many large ones fit neither beside each other nor beside
        the student.

        Args:
            rows: (task, split) -> its rows.
            question: (model, task, split, rows) -> answer.
        """
        asked = {key: some for key, some in rows.items() if key[0] in self.models}
        wanted = {key: some for key, some in asked.items() if all(model.knows(*key) for model in self.models[key[0]])}
        found: dict[tuple[str, str], dict[int, Answer]] = {key: {} for key in wanted}
        for number, model in {id(one): one for of_task in self.models.values() for one in of_task}.items():
            for (task, split), some in wanted.items():
                if any(one is model for one in self.models[task]):
                    found[task, split][number] = question(model, task, split, some)
            model.release()
        return {key: [each[id(model)] for model in self.models[key[0]]] for key, each in found.items()}

    def recipe(self, task: Task, rows: Rows) -> dict[str, Any]:
        """Return how the predictions of a task's teachers become one, as ``mean_logits`` takes it.

        Args:
            task: The task.
            rows: What is predicted; candidates of one question are averaged together.
        """
        group = torch.from_numpy(rows.by_id("group")[0]) if task.kind == "ranking" else None
        return {"mean": self.mean or "probabilities", "weights": (self.weights or {}).get(task.name), "group": group}
