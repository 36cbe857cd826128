"""Metrics that give 0 to a model that says the same of everything, as the official scorers do for classes.

torchmetrics gives a Matthews correlation of +-0.03 (of rounding) or a correlation of NaN to constant predictions,
which happen: a student that collapses predicts the larger class, or the mean score. Such a model ranks nothing. The
metrics of questions are torchmetrics' own, told of groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalPrecision
from torchmetrics.retrieval.base import RetrievalMetric
from torchmetrics.utilities import dim_zero_cat


class MatthewsCorrCoef(Metric):
    """Matthews correlation of class indices, in [-1, 1]; 0 if the predictions or the targets are all of one class.

    Args:
        num_classes: C.

    Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006, equation 8; as scikit-learn computes it.

    Example:
        >>> metric = MatthewsCorrCoef(num_classes=2)
        >>> metric.update(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0]))
        >>> round(metric.compute().item(), 4)
        0.5774
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Count predicted and true class indices, int64 ``[B]`` each."""
        cells = torch.bincount(targets * self.num_classes + predictions, minlength=self.num_classes**2)
        self.counts += cells.view_as(self.counts)

    def compute(self) -> Tensor:
        """Return the correlation, float64."""
        counts = self.counts.cpu().double()  # [C, C], targets by predictions; some devices lack float64
        true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
        spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
        return (counts.trace() * total - true @ predicted) / spread.sqrt() if spread > 0 else spread


class PearsonCorrCoef(Metric):
    """Pearson correlation of scores, in [-1, 1]; 0 if the predictions or the targets are all the same.

    All scores are kept until the end (8 bytes each), so that the result does not depend on the batches.

    Example:
        >>> metric = PearsonCorrCoef()
        >>> metric.update(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.1, 0.2, 0.3]))
        >>> metric.compute().item()
        0.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Keep predicted and true scores, float ``[B]`` each."""
        self.predictions.append(predictions.detach())
        self.targets.append(targets.detach())

    def compute(self) -> Tensor:
        """Return the correlation, float64; NaN if a prediction is."""
        return _correlation(*(dim_zero_cat(state).cpu().double() for state in (self.predictions, self.targets)))


class SpearmanCorrCoef(PearsonCorrCoef):
    """Spearman correlation of scores: the Pearson correlation of their ranks, ties sharing the mean of theirs."""

    def compute(self) -> Tensor:
        """Return the correlation, float64; NaN if a prediction is."""
        return _correlation(*(_ranks(dim_zero_cat(state).cpu()) for state in (self.predictions, self.targets)))


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    if (x == x[0]).all() or (y == y[0]).all():
        return torch.zeros((), dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return (x @ y) / (x.norm() * y.norm())


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 1, float64 ``[N]``, ties sharing the mean of theirs; NaN if a value is."""
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts.double() - 1) / 2)[places]
    return ranks.masked_fill(values.isnan(), float("nan"))


class _OfQuestions(RetrievalMetric):
    """What the metrics of questions share: how they are fed, and that questions without an answer do not count.

    torchmetrics takes a candidate with a score below 0 for one not found, and orders equal ones by chance. Here scores
    become their places from below, of equal ones the relevant candidates' below the others'.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(empty_target_action="skip", **settings)

    def update(  # type: ignore[override]
        self, predictions: Tensor, targets: Tensor, *, relevance: Tensor, group: Tensor
    ) -> None:
        """Keep scores, labels (1 is relevant) and questions of candidates, ``[B]`` each."""
        super().update(relevance.float(), targets, group)

    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        """Return the metric of one question."""
        _, place = torch.unique(preds, return_inverse=True)
        return super()._metric((2 * place + 1 + (target == 0)).float(), target)  # type: ignore[safe-super]


class MeanAveragePrecision(_OfQuestions, RetrievalMAP):
    """Mean average precision of the candidates of each question; questions without a relevant one do not count.

    Source: torchmetrics, ``RetrievalMAP``.

    Example:
        >>> metric = MeanAveragePrecision()
        >>> relevance, group = torch.tensor([0.9, 0.2, 0.1]), torch.tensor([4, 4, 4])
        >>> metric.update(relevance, torch.tensor([0, 1, 0]), relevance=relevance, group=group)
        >>> metric.compute().item()
        0.5
    """


class MeanReciprocalRank(_OfQuestions, RetrievalMRR):
    """Mean of one over the rank of the first relevant candidate; questions without one do not count.

    Source: torchmetrics, ``RetrievalMRR``.
    """


class FirstIsRelevant(_OfQuestions, RetrievalPrecision):
    """Share of the questions whose highest candidate is relevant; questions without a relevant one do not count.

    Source: torchmetrics, ``RetrievalPrecision`` with ``top_k=1``.
    """

    def __init__(self) -> None:
        super().__init__(top_k=1)
