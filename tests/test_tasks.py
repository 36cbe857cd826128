"""Tasks: a field that does not fit is named, and metrics are what their names say."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import pearsonr, spearmanr

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
            CLASSES, {"kind": "tagging"}, "kind is 'tagging', expected one of classification, regr", id="kind"
        ),
        pytest.param(CLASSES, {"kind": "ranking"}, "kind: ranking needs group, the column that says", id="no group"),
        pytest.param(CLASSES, {"metrics": ["map"]}, "map needs group, the column that says", id="map without group"),
        pytest.param(
            CLASSES,
            {"metrics": ["mrr"], "group": "a", "labels": ["x", "y", "z"]},
            "labels has 3 names",
            id="three ranks",
        ),
        pytest.param(
            CLASSES,
            {"kind": "ranking", "metrics": ["map"], "group": "a", "both_orders": True},
            "both_orders does not fit ranking",
            id="ranking in both orders",
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
            CLASSES, {"labels": ["no", "no"]}, "labels has 'no' 2 times, expected distinct names", id="same labels"
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
            SCORES, {"score_range": None}, r"score_range is None, expected \[lowest, highest\], two", id="no range"
        ),
        pytest.param(SCORES, {"score_range": [5, 0]}, r"score_range is \[5, 0\], expected \[low", id="range reversed"),
        pytest.param(SCORES, {"score_range": [5, 5]}, r"score_range is \[5, 5\], expected \[low", id="empty range"),
        pytest.param(SCORES, {"score_range": [0, 1, 2]}, r"score_range is \[0, 1, 2\], exp", id="range of three"),
        pytest.param(SCORES, {"score_range": [0, math.inf]}, r"score_range is \[0, inf\], exp", id="range without end"),
        pytest.param(
            SCORES, {"score_range": [0, math.nan]}, r"score_range is \[0, nan\], exp", id="range of no number"
        ),
        pytest.param(SCORES, {"score_range": ["0", "5"]}, r"score_range is \['0', '5'\], exp", id="range of texts"),
        pytest.param(SCORES, {"score_range": 5}, r"score_range is 5, expected \[lowest", id="range of one"),
        pytest.param(CLASSES, {"labels": [0, 1]}, r"labels has 0 \(int\), .*; quote it: '0'$", id="labels of numbers"),
        pytest.param(
            CLASSES,
            {"labels": [False, True]},
            r"labels has False \(bool\), .*; quote the words 'yes' and",
            id="no: yes",
        ),
        pytest.param(CLASSES, {"labels": None}, "labels is None, expected a list", id="labels of nothing"),
        pytest.param(CLASSES, {"texts": ["a", "a"]}, "texts has 'a' 2 times, expected distinct", id="a text twice"),
        pytest.param(CLASSES, {"metrics": ["f1", "f1"]}, "metrics has 'f1' 2 times, expected d", id="a metric twice"),
        pytest.param(CLASSES, {"evaluation": []}, "evaluation is empty, expected the names of splits", id="no split"),
        pytest.param(CLASSES, {"evaluation": ["dev", "dev"]}, "evaluation has 'dev' 2 times, exp", id="a split twice"),
        pytest.param(CLASSES, {"evaluation": ["dev", "train"]}, "evaluation has 'train', which is trained", id="train"),
        pytest.param(CLASSES, {"evaluation": ["unlabelled"]}, "evaluation has 'unlabelled', which is", id="unlabelled"),
        pytest.param(
            CLASSES, {"files": {"train": None}}, "files has 'train': None, expected SPLIT: PATH", id="no path"
        ),
        pytest.param(CLASSES, {"files": {2024: "a.csv"}}, "files has 2024: 'a.csv', expected SPLIT: PATH", id="a year"),
        pytest.param(SCORES, {"metrics": ["accuracy"]}, "metric 'accuracy' does not fit regression", id="class metric"),
    ],
)
def test_refuses(fields, change, message):
    """A setting that is quietly ignored: the user believes it was followed."""
    with pytest.raises(UserError, match=f"^task toy: {message}"):
        Task(**{**fields, **change})


@pytest.mark.parametrize("name", ["", "2020-news", "my task", "a.b", "a:b", "../rte", "r\u00e9sum\u00e9", 7, None])
def test_names_that_are_no_words_are_refused(name):
    """A dot in a name ends in PyTorch's KeyError when the head is built, a slash in another folder's cache."""
    with pytest.raises(UserError, match=r"^task .*: name is .*, expected a letter, then letters, digits, _ and -"):
        Task(**{**CLASSES, "name": name})


@pytest.mark.parametrize("name", ["type", "keys", "training", "forward"])
def test_names_of_modules_attributes_are_refused(name):
    """A task called "type" fails where its head is registered, after the tokens of all tasks are built."""
    with pytest.raises(KeyError):
        torch.nn.ModuleDict({name: torch.nn.Identity()})
    with pytest.raises(UserError, match=f"^task {name}: name is '{name}', which PyTorch keeps for its modules"):
        Task(**{**CLASSES, "name": name})


def test_tasks_need_no_torch_to_be_imported():
    """Shell completion imports the package; a second of torch at each tab key."""
    code = "import sys, kd_lightning.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scores_of_a_split_have_a_name():
    """The first evaluated split is the task; another under the same name overwrites it."""
    task = Task(**{**CLASSES, "evaluation": ["matched", "mismatched"]})
    assert [task.score_key(split) for split in task.evaluation] == ["toy", "toy/mismatched"]


def test_scores_go_to_the_unit_interval_and_back():
    """A range taken from the data instead of the task: 2.5 of 5 is another number for each split."""
    task = Task(**{**SCORES, "score_range": [-1, 3]})
    raw = torch.tensor([-1.0, 0.0, 3.0])
    torch.testing.assert_close(task.to_unit(raw), torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(task.from_unit(task.to_unit(raw)), raw)
    with pytest.raises(ValueError, match="task toy has classes, expected a task with a score_range"):
        Task(**CLASSES).to_unit(raw)


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
        pytest.param({"a": {"x": 0.5}, "a/b": {"x": 0.7}, "c": {"x": 0.2}}, 0.4, id="splits of a task first"),
        pytest.param({"a": {"x": -0.5}, "b": {"x": 0.5}}, 0.0, id="negative correlations"),
    ],
)
def test_glue_average(scores, expected):
    """A mean over all metrics counts MRPC, QQP and STS-B twice."""
    assert glue_average(scores) == pytest.approx(expected)


def test_glue_average_is_the_papers():
    """BERT-large in MT-DNN's table of GLUE's test sets (arXiv:1901.11504): 80.5; MNLI matched alone would give 80.6."""
    row = {
        "cola": [60.5],
        "sst2": [94.9],
        "mrpc": [89.3, 85.4],
        "stsb": [87.6, 86.5],
        "qqp": [72.1, 89.3],
        "mnli": [86.7],
        "mnli/validation_mismatched": [85.9],
        "qnli": [92.7],
        "rte": [70.1],
        "wnli": [65.1],
    }
    scores = {name: {str(i): value for i, value in enumerate(values)} for name, values in row.items()}
    assert round(glue_average(scores), 1) == 80.5


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
    names = [name for name in METRICS["classification"] if name in REFERENCE and (name != "f1" or classes == 2)]
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


def shipped() -> list[Task]:
    """Return the tasks of conf/task."""
    files = sorted((Path(__file__).parents[1] / "conf" / "task").glob("*.yaml"))
    nodes = [node for file in files for node in yaml.safe_load(file.read_text()).values() if isinstance(node, dict)]
    return [Task(**{key: value for key, value in node.items() if key != "_target_"}) for node in nodes]


@pytest.mark.parametrize("task", shipped(), ids=lambda task: task.name)
def test_constant_predictions_of_the_shipped_tasks(task):
    """A student that says the same of everything: NaN for a score, and the average of all tasks with it."""
    random = np.random.default_rng(5)
    if task.kind == "ranking":  # equal candidates, in any order: the relevant ones come last
        gold, group = np.array([0, 1, 0, 0, 1, 0] * 15), np.arange(90) // 6
        for order in (np.arange(90), random.permutation(90)):
            metrics, scores = task.build_metrics(), torch.full((90,), 0.3)
            told = {"relevance": scores, "group": torch.from_numpy(group[order])}
            metrics.update(scores, torch.from_numpy(gold[order]), **told)
            found = {name: value.item() for name, value in metrics.compute().items()}
            assert found == pytest.approx({"map": (1 / 5 + 2 / 6) / 2, "mrr": 1 / 5, "accuracy": 0.0})
        return
    if task.kind == "regression":
        gold, constants = random.random(90).astype(np.float32), np.array([0.0, 0.3, 1.0], np.float32)
        expected = dict.fromkeys(task.metrics, lambda value: 0.0)
    else:
        gold, constants = random.choice(task.num_labels, 90), np.arange(task.num_labels)
        share = {value: float((gold == value).mean()) for value in constants}
        known = {"accuracy": share.get, "f1": lambda v: 2 * share[1] / (1 + share[1]) if v == 1 else 0.0}
        expected = {name: known.get(name, lambda value: 0.0) for name in task.metrics}
    for value in constants:
        found = fed(task, np.full(90, value), gold)
        assert found == pytest.approx({name: law(value) for name, law in expected.items()}, abs=1e-6)


@pytest.mark.parametrize("constant", [0, 1])
def test_matthews_of_a_constant_is_zero_on_colas_counts(constant):
    """torchmetrics gives +-0.0256 on CoLA's 721 acceptable and 322 other sentences, scikit-learn 0."""
    gold = np.repeat([1, 0], [721, 322])
    task = Task(**{**CLASSES, "metrics": ["matthews_corrcoef"]})
    assert fed(task, np.full(1043, constant), gold) == {"matthews_corrcoef": 0.0}
    assert fed(task, gold, np.full(1043, constant)) == {"matthews_corrcoef": 0.0}
    assert fed(task, gold, gold) == pytest.approx({"matthews_corrcoef": 1.0})
    assert fed(task, 1 - gold, gold) == pytest.approx({"matthews_corrcoef": -1.0})


def test_correlations_against_scipy():
    """Scores that hardly differ lose their ranks in float32 sums of squares."""
    random = np.random.default_rng(6)
    gold = random.random(200).astype(np.float32).round(1)
    predicted = (0.7 + 1e-5 * (gold + random.random(200))).astype(np.float32)
    exact = predicted.astype(np.float64), gold.astype(np.float64)
    expected = {"pearson": pearsonr(*exact).statistic, "spearman": spearmanr(*exact).statistic}
    assert fed(Task(**{**SCORES, "metrics": list(expected)}), predicted, gold) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_model_that_diverged_shows(metric):
    """NaN predictions are broken, not constant: a score of 0 would hide it."""
    task = Task(**{**SCORES, "metrics": [metric]})
    predicted = np.array([0.1, np.nan, 0.3, 0.2], np.float32)
    assert math.isnan(fed(task, predicted, np.array([0.1, 0.2, 0.3, 0.4], np.float32))[metric])


@pytest.mark.parametrize("low", [1.1999998, -1e-30, 1e-8, -3e38])
def test_the_nearest_scores_are_no_tie(low):
    """One float apart: taken for equal, the order of the rows decides."""
    task = next(task for task in shipped() if task.kind == "ranking")
    high = np.nextafter(np.float32(low), np.float32(np.inf))
    for place in (0, 1):
        scores = torch.tensor([np.float32(low), high] if place else [high, np.float32(low)])
        for relevant in (0, 1):
            metrics, gold = task.build_metrics(), torch.tensor([1 - relevant, relevant])
            metrics.update(scores, gold, relevance=scores, group=torch.zeros(2, dtype=torch.int64))
            expected = 1.0 if relevant == place else 0.5
            assert metrics.compute()["map"] == expected


def test_metrics_keep_their_order():
    """The first metric is the task's score: in another order the table reports another one."""
    names = ["matthews_corrcoef", "f1", "accuracy"]
    task = Task(**{**CLASSES, "metrics": names})
    assert task.metric == "matthews_corrcoef"
    assert set(task.build_metrics()) == set(names)


def of_questions(relevance: np.ndarray, gold: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Return the mean over questions with a relevant candidate, each ordered by itself."""
    found: dict[str, list[float]] = {"map": [], "mrr": [], "accuracy": []}
    for question in np.unique(group):
        order = np.argsort(-relevance[group == question])
        right = gold[group == question][order]
        if right.any():
            places = np.flatnonzero(right) + 1
            found["map"].append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
            found["mrr"].append(1 / places[0])
            found["accuracy"].append(right[0])
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("kind", ["ranking", "classification"])
def test_metrics_of_questions_against_numpy(kind, seed):
    """Questions mixed with each other, those without an answer counted as failures, or classes instead of scores."""
    random = np.random.default_rng(seed)
    group, gold = random.integers(0, 9, 60) * 10**12, random.integers(0, 2, 60)
    gold[group == 0] = 0
    logits = torch.from_numpy(random.normal(size=(60, 2 if kind == "classification" else 1)).astype(np.float32))
    names = ["map", "mrr", "accuracy"] if kind == "ranking" else ["map", "mrr"]
    task = Task(**{**CLASSES, "kind": kind, "metrics": names, "group": "a"})
    assert task.num_labels == logits.shape[1]
    metrics = task.build_metrics()
    for part in np.array_split(random.permutation(60), 4):  # a question's candidates come in several batches
        some = logits[part]
        told = {"relevance": task.relevance(some), "group": torch.from_numpy(group[part])}
        metrics.update(task.predictions(some), torch.from_numpy(gold[part]), **told)
    relevance = (logits[:, -1] - (logits[:, 0] if kind == "classification" else 0)).numpy()
    expected = of_questions(relevance, gold, group)
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == pytest.approx({name: expected[name] for name in names}, abs=1e-6)
