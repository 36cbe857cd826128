"""Tasks: a field that does not fit is named, and metrics are what their names say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.tasks import METRICS, Task, glue_average

CLASSES: dict[str, Any] = {
    "name": "toy",
    "kind": "classification",
    "texts": ["a", "b"],
    "metrics": ["accuracy"],
    "labels": ["no", "yes"],
}
SCORES: dict[str, Any] = {
    "name": "toy",
    "kind": "regression",
    "texts": ["a", "b"],
    "metrics": ["pearson"],
    "score_range": [0, 5],
}


@pytest.mark.parametrize("fields", [CLASSES, SCORES], ids=["classification", "regression"])
def test_a_task_that_fits(fields):
    """YAML brings lists; a task must stay hashable plain data all the same."""
    task = Task(**fields)
    for name in ("texts", "metrics", "labels", "evaluation"):
        assert isinstance(getattr(task, name), tuple), name
    assert task.is_pair
    assert (task.metric, task.num_labels) == (fields["metrics"][0], len(fields.get("labels", "1")))
    assert Task(**dataclasses.asdict(task)) == task
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        pytest.param(
            CLASSES, {"kind": "ranking"}, "kind is 'ranking', expected one of classification, regr", id="kind"
        ),
        pytest.param(CLASSES, {"texts": []}, "texts names 0 columns, expected one or two", id="no text"),
        pytest.param(
            CLASSES, {"texts": ["a", "b", "c"]}, "texts names 3 columns, expected one or two", id="three texts"
        ),
        pytest.param(CLASSES, {"texts": "a"}, r"texts is the text 'a', expected a list: \[a\]", id="text for a list"),
        pytest.param(CLASSES, {"labels": "no"}, "labels is the text 'no', expected a list", id="label for a list"),
        pytest.param(CLASSES, {"metrics": "f1"}, "metrics is the text 'f1', expected a list", id="metric for a list"),
        pytest.param(CLASSES, {"evaluation": "test"}, "evaluation is the text 'test', expected a list", id="split"),
        pytest.param(CLASSES, {"metrics": []}, "metrics is empty, expected some of accuracy, f1", id="no metric"),
        pytest.param(
            CLASSES, {"metrics": ["pearson"]}, "metric 'pearson' does not fit classification", id="its metric"
        ),
        pytest.param(CLASSES, {"metrics": ["bleu"]}, "metric 'bleu' does not fit classification", id="unknown metric"),
        pytest.param(CLASSES, {"labels": []}, r"labels is \[\], expected at least two distinct", id="no labels"),
        pytest.param(
            CLASSES, {"labels": ["no"]}, r"labels is \['no'\], expected at least two distinct", id="one label"
        ),
        pytest.param(
            CLASSES, {"labels": ["no", "no"]}, r"labels is \['no', 'no'\], expected at least", id="same labels"
        ),
        pytest.param(CLASSES, {"score_range": [0, 1]}, "score_range belongs to regression", id="range of classes"),
        pytest.param(
            CLASSES,
            {"labels": ["a", "b", "c"], "metrics": ["f1"]},
            "f1 is that of two classes, labels has 3; use accuracy",
            id="f1 of three",
        ),
        pytest.param(CLASSES, {"texts": ["a"], "both_orders": True}, "both_orders needs two text columns", id="orders"),
        pytest.param(SCORES, {"labels": ["a", "b"]}, "labels belongs to classification", id="labels of scores"),
        pytest.param(
            SCORES, {"score_range": None}, r"score_range is None, expected \[lowest, highest\]", id="no range"
        ),
        pytest.param(
            SCORES, {"score_range": [5, 0]}, r"score_range is \(5.0, 0.0\), expected \[low", id="range reversed"
        ),
        pytest.param(SCORES, {"score_range": [5, 5]}, r"score_range is \(5.0, 5.0\), expected \[low", id="empty range"),
        pytest.param(SCORES, {"score_range": [0, 1, 2]}, r"score_range is \(0.0, 1.0, 2.0\), exp", id="range of three"),
        pytest.param(SCORES, {"metrics": ["accuracy"]}, "metric 'accuracy' does not fit regression", id="class metric"),
    ],
)
def test_refuses(fields, change, message):
    """A setting that is quietly ignored: the user believes it was followed."""
    with pytest.raises(UserError, match=f"^task toy: {message}"):
        Task(**{**fields, **change})


def test_head_of_another_task():
    """The diagnostic set must be predicted with MNLI's head, not with a new one."""
    assert Task(**CLASSES).head_name == "toy"
    assert Task(**CLASSES, head="mnli").head_name == "mnli"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param({"a": {"x": 0.5}}, 0.5, id="one task"),
        pytest.param({"a": {"x": 0.2}, "b": {"x": 0.6}}, 0.4, id="mean over tasks"),
        pytest.param({"a": {"x": 0.5}, "b": {"x": 0.8, "y": 0.9}}, 0.675, id="metrics of a task first"),
        pytest.param({"a": {"x": -0.5}, "b": {"x": 0.5}}, 0.0, id="negative correlations"),
    ],
)
def test_glue_average(scores, expected):
    """A mean over all metrics counts MRPC, QQP and STS-B twice."""
    assert glue_average(scores) == pytest.approx(expected)


def test_average_of_nothing_is_refused():
    """An average of no task is not 0."""
    with pytest.raises(ValueError, match="no scores"):
        glue_average({})


def matthews(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Return the correlation of the one-hot tables (Gorodkin 2004), in float64."""
    x, y = (np.eye(classes)[v] - np.eye(classes)[v].mean(0) for v in (predicted, gold))
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, ties sharing their mean."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Return F1 of the class 1 from its counts."""
    hits = (predicted & gold).sum()
    precision, recall = hits / predicted.sum(), hits / gold.sum()
    return 2 * precision * recall / (precision + recall)


REFERENCE = {
    "accuracy": lambda p, y: (p == y).mean(),
    "f1": f1,
    "matthews_corrcoef": lambda p, y: matthews(p, y, int(max(p.max(), y.max())) + 1),
    "pearson": lambda p, y: np.corrcoef(p, y)[0, 1],
    "spearman": lambda p, y: np.corrcoef(ranks(p), ranks(y))[0, 1],
    "mse": lambda p, y: ((p - y) ** 2).mean(),
}


def fed(task: Task, predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Return the task's metrics of values that come in three batches."""
    metrics = task.build_metrics()
    for part in np.array_split(np.arange(len(gold)), 3):
        metrics.update(torch.from_numpy(predicted[part]), torch.from_numpy(gold[part]))
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("classes", [2, 3])
def test_class_metrics_against_numpy(classes):
    """F1 of the wrong class (BAM's scorer miscounts it), macro accuracy, or a mean of the batches' scores."""
    random = np.random.default_rng(3)
    gold = random.choice(classes, 47, p=[0.7, 0.3] if classes == 2 else [0.6, 0.3, 0.1])
    predicted = np.where(random.random(47) < 0.6, gold, random.integers(0, classes, 47))
    names = [name for name in METRICS["classification"] if name != "f1" or classes == 2]
    task = Task(**{**CLASSES, "metrics": names, "labels": [f"c{i}" for i in range(classes)]})
    expected = {name: REFERENCE[name](predicted, gold) for name in names}
    assert fed(task, predicted, gold) == pytest.approx(expected, abs=1e-6)


def test_score_metrics_against_numpy():
    """Ranks of ties by position, or a correlation of the first batch."""
    random = np.random.default_rng(4)
    gold = np.round(random.random(43), 1).astype(np.float32)
    predicted = (gold + 0.3 * random.normal(size=43)).round(1).astype(np.float32)
    task = Task(**{**SCORES, "metrics": METRICS["regression"]})
    expected = {name: REFERENCE[name](predicted, gold) for name in METRICS["regression"]}
    assert fed(task, predicted, gold) == pytest.approx(expected, abs=1e-5)


def test_metrics_keep_their_order():
    """The first metric is the task's score: in another order the table reports another one."""
    names = ["matthews_corrcoef", "f1", "accuracy"]
    task = Task(**{**CLASSES, "metrics": names})
    assert task.metric == "matthews_corrcoef"
    assert set(task.build_metrics()) == set(names)
