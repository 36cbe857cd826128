"""A task is data, not a class: which columns to read, which labels to expect, which metrics to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from kd_lightning.errors import UserError
from kd_lightning.fields import check_name, check_splits, distinct_texts, two_numbers

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric, MetricCollection

Kind = Literal["classification", "regression", "ranking"]

METRICS = {
    "classification": ("accuracy", "f1", "matthews_corrcoef", "map", "mrr"),
    "regression": ("pearson", "spearman"),
    "ranking": ("map", "mrr", "accuracy"),
}
OF_GROUPS = ("map", "mrr")
"""Metrics of the candidates of one question."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A supervised task over one text or a pair of texts.

    Args:
        name: Name of the task, also of its head and of its folder in a data root: a letter, then letters, digits,
            ``_`` and ``-``, and no name of an attribute of PyTorch's modules (``type``).
        kind: ``"classification"``, ``"regression"``, or ``"ranking"`` of the candidates of one question, as those that
            answer it and those that do not.
        texts: The one or two columns that hold the text.
        metrics: Names of the reported metrics, higher is better; the first is the task's main one. Classification:
            ``accuracy``, ``f1`` (of the class with index 1; two classes), ``matthews_corrcoef``. Regression:
            ``pearson``, ``spearman``. Ranking: ``map``, ``mrr``, and ``accuracy``, the share of the questions whose
            highest candidate is relevant; with two classes and a ``group``, ``map`` and ``mrr`` are classification's
            too, by how much the class with index 1 is preferred.
        labels: Class names, in the order of the class index (not of regression); of ranking, two: what is irrelevant,
            what is relevant.
        score_range: Lowest and highest score (regression only); scores are mapped to [0, 1] by this range.
        label: Column that holds the label: a class name or index, or a score.
        id: Column that holds a unique id; None numbers the rows of each split.
        group: Column that says which question a row's text is a candidate for: a text or an integer. Needed by
            ranking and its metrics.
        both_orders: Train on both orders of the pair (symmetric pairs, as BAM does for MRPC and STS-B). The swapped
            copy of example i has the id ``~i`` and soft targets of its own.
        evaluation: The evaluated splits, none that is trained on. Tables show the first; averages count all.
        files: Split name -> file (csv, tsv, jsonl, parquet), for data of your own.
        head: Predict with the head of this other task (the AX diagnostic set uses MNLI's); such a task is not trained.

    Raises:
        UserError: If the fields do not fit together; the message names the task and the field.
    """

    name: str
    kind: Kind
    texts: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    score_range: tuple[float, float] | None = None
    label: str = "label"
    id: str | None = None
    group: str | None = None
    both_orders: bool = False
    evaluation: tuple[str, ...] = ("validation",)
    files: Mapping[str, str] = field(default_factory=dict)
    head: str | None = None

    def __post_init__(self) -> None:
        """Turn lists (as YAML has them) into tuples and check that the fields fit together."""
        check_name(self.name)
        for name in ("texts", "metrics", "labels", "evaluation"):
            object.__setattr__(self, name, distinct_texts(f"task {self.name}: {name}", getattr(self, name)))
        if self.score_range is not None:
            bounds = two_numbers(f"task {self.name}: score_range", self.score_range)
            object.__setattr__(self, "score_range", bounds)
        object.__setattr__(self, "files", dict(self.files or {}))
        check_splits(f"task {self.name}:", self.evaluation, self.files)
        self._check()

    def _fail(self, text: str) -> UserError:
        return UserError(f"task {self.name}: {text}")

    def _check(self) -> None:
        if self.kind not in METRICS:
            raise self._fail(f"kind is '{self.kind}', expected one of {', '.join(METRICS)}")
        if len(self.texts) not in (1, 2):
            raise self._fail(f"texts names {len(self.texts)} columns, expected one or two")
        if self.both_orders and not self.is_pair:
            raise self._fail("both_orders needs two text columns, texts has one")
        known = METRICS[self.kind]
        if not self.metrics:
            raise self._fail(f"metrics is empty, expected some of {', '.join(known)}")
        for metric in self.metrics:
            if metric not in known:
                raise self._fail(f"metric '{metric}' does not fit {self.kind}, expected some of {', '.join(known)}")
        if self.kind == "regression":
            self._check_scores()
        else:
            self._check_labels()
        self._check_groups()

    def _check_labels(self) -> None:
        if len(self.labels) < 2:
            raise self._fail(f"labels is {list(self.labels)}, expected at least two distinct names")
        if self.score_range is not None:
            raise self._fail("score_range belongs to regression; remove it or set kind: regression")
        if "f1" in self.metrics and len(self.labels) != 2:
            raise self._fail(f"f1 is that of two classes, labels has {len(self.labels)}; use accuracy")

    def _check_groups(self) -> None:
        wanted = "kind: ranking" if self.kind == "ranking" else next((m for m in self.metrics if m in OF_GROUPS), None)
        if wanted and self.group is None:
            raise self._fail(
                f"{wanted} needs group, the column that says which question a row is a candidate for (QNLI has none "
                "since its second version: there is nothing to rank)"
            )
        if wanted and len(self.labels) != 2:
            raise self._fail(f"labels has {len(self.labels)} names, expected two for {wanted}: irrelevant, relevant")
        if self.kind == "ranking" and self.both_orders:
            raise self._fail("both_orders does not fit ranking: a question is no candidate for its answer")

    def _check_scores(self) -> None:
        if self.labels:
            raise self._fail("labels belongs to classification; remove it or set kind: classification")
        if self.score_range is None:
            raise self._fail("score_range is None, expected [lowest, highest], two finite numbers")

    @property
    def is_pair(self) -> bool:
        """Whether the task reads two texts."""
        return len(self.texts) == 2

    @property
    def ranks(self) -> bool:
        """Whether candidates of one question are compared, by the head or by a metric."""
        return self.kind == "ranking" or any(metric in OF_GROUPS for metric in self.metrics)

    @property
    def num_labels(self) -> int:
        """Width of the task's logits: the number of classes, or 1 for a score."""
        return len(self.classes) or 1

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the task's logits; none of a score, which ranking has too."""
        return self.labels if self.kind == "classification" else ()

    @property
    def metric(self) -> str:
        """The task's main metric."""
        return self.metrics[0]

    @property
    def head_name(self) -> str:
        """The task whose head predicts this one."""
        return self.head or self.name

    def score_key(self, split: str) -> str:
        """Return what tables call a split's scores: ``NAME`` for the first evaluated split, else ``NAME/SPLIT``."""
        return self.name if split == self.evaluation[0] else f"{self.name}/{split}"

    def predictions(self, logits: Tensor) -> Tensor:
        """Return what metrics take of logits ``[N, C]``: class indices ``[N]``, or scores ``[N]``."""
        return logits.argmax(-1) if self.kind == "classification" else logits.squeeze(-1)

    def relevance(self, logits: Tensor) -> Tensor:
        """Return by what candidates of one question are ordered, ``[N]``, of logits ``[N, 2]`` or ``[N, 1]``."""
        return logits[:, 1] - logits[:, 0] if self.kind == "classification" else logits.squeeze(-1)

    def to_unit(self, scores: Tensor) -> Tensor:
        """Return raw scores mapped to [0, 1], the range that heads predict; same shape (regression only)."""
        low, high = self._bounds()
        return (scores - low) / (high - low)

    def from_unit(self, predictions: Tensor) -> Tensor:
        """Return predictions in [0, 1] mapped to raw scores, the inverse of ``to_unit`` (regression only)."""
        low, high = self._bounds()
        return predictions * (high - low) + low

    def _bounds(self) -> tuple[float, float]:
        if self.score_range is None:
            raise ValueError(f"task {self.name} has classes, expected a task with a score_range")
        return self.score_range

    def build_metrics(self) -> MetricCollection:
        """Return the task's metrics, fed with (predictions, targets); each gives 0 for constant scores, never NaN.

        Predictions are class indices ``[B]`` (classification) or scores ``[B]``; targets are of the same kind, of
        ranking 1 for what is relevant. Metrics of groups take ``relevance`` and ``group``, ``[B]`` each, as well.
        """
        from torchmetrics import MetricCollection
        from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy

        from kd_lightning.metrics import (
            FirstIsRelevant,
            MatthewsCorrCoef,
            MeanAveragePrecision,
            MeanReciprocalRank,
            PearsonCorrCoef,
            SpearmanCorrCoef,
        )

        of_classes = partial(MulticlassAccuracy, num_classes=self.num_labels, average="micro")
        build: dict[str, Callable[[], Metric]] = {
            "accuracy": FirstIsRelevant if self.kind == "ranking" else of_classes,
            "map": MeanAveragePrecision,
            "mrr": MeanReciprocalRank,
            "f1": BinaryF1Score,
            "matthews_corrcoef": lambda: MatthewsCorrCoef(self.num_labels),
            "pearson": PearsonCorrCoef,
            "spearman": SpearmanCorrCoef,
        }
        return MetricCollection({name: build[name]() for name in self.metrics}, compute_groups=False)


def glue_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over tasks of the mean over each task's metrics, as the GLUE benchmark averages.

    A task with several evaluated splits counts with the mean of them, as MNLI does with matched and mismatched.

    Args:
        scores: Task (``task/split`` for its further splits) -> metric -> value, for the tasks present.

    Raises:
        ValueError: If there is no task.

    Source: Wang et al. 2019, arXiv:1804.07461, section 4.

    Example:
        >>> glue_average({"rte": {"accuracy": 0.5}, "mrpc": {"accuracy": 0.8, "f1": 0.9}})
        0.675
    """
    if not scores:
        raise ValueError("no scores to average")
    splits: dict[str, list[float]] = {}
    for name, metrics in scores.items():
        splits.setdefault(name.partition("/")[0], []).append(fmean(metrics.values()))
    return fmean(fmean(found) for found in splits.values())
