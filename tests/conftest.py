"""Toys that every test may use: three small tasks, a tokenizer trained on them, and a tiny random transformer.

The tasks have the shapes that matter: one text with two classes, a pair with three, a pair with scores from 1 to 5 in
both orders. Their rows have ids of their own, so that a join by position gives wrong results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from kd_lightning.data import Manifest, MultiTaskData, Part, Rows, SoftTargets, TokenTable, tokenise
from kd_lightning.data.reading.reader import check_columns
from kd_lightning.data.rows import cache_rows
from kd_lightning.data.sampling import size_power
from kd_lightning.data.soft_targets.ensembles import StackedTeachers
from kd_lightning.encoders import NewTransformer
from kd_lightning.tasks import Task

FILLERS = [
    "the",
    "a",
    "film",
    "plot",
    "man",
    "dog",
    "old",
    "new",
    "red",
    "cup",
    "sees",
    "holds",
    "has",
    "with",
    "under",
    "near",
]

MOOD = Task(
    name="mood", kind="classification", texts=("text",), labels=("bad", "good"), metrics=("accuracy", "f1"), id="id"
)
NLI = Task(
    name="nli",
    kind="classification",
    texts=("first", "second"),
    labels=("contradiction", "entailment", "neutral"),
    metrics=("accuracy",),
    id="id",
)
NEAR = Task(
    name="near",
    kind="regression",
    texts=("first", "second"),
    score_range=(1, 5),
    metrics=("pearson", "spearman"),
    id="id",
    both_orders=True,
)


class Toy(NamedTuple):
    """A task with its training rows and their tokens."""

    task: Task
    columns: dict[str, list[Any]]
    rows: Rows
    tokens: TokenTable

    @property
    def part(self) -> Part:
        """Return the examples without a teacher."""
        return Part(self.task, "train", self.tokens)


def toy_columns() -> dict[str, dict[str, list[Any]]]:
    """Return task -> column -> values; the label follows from the text."""
    random = np.random.default_rng(7)

    def words() -> list[str]:
        return list(random.choice(FILLERS, random.integers(2, 9)))

    mood: dict[str, list[Any]] = {"text": [], "label": []}
    for number in range(24):
        label = number % 2
        mood["text"].append(" ".join([*words(), MOOD.labels[label], *words()[:2]]))
        mood["label"].append(MOOD.labels[label])
    nli: dict[str, list[Any]] = {"first": [], "second": [], "label": []}
    for number in range(18):
        first, label = words(), number % 3
        second = [["not", *first], first[: len(first) // 2 + 1], words()][label]
        nli["first"].append(" ".join(first))
        nli["second"].append(" ".join(second))
        nli["label"].append(NLI.labels[label])
    near: dict[str, list[Any]] = {"first": [], "second": [], "label": []}
    for number in range(14):
        first, score = words(), number % 5 + 1
        near["first"].append(" ".join(first))
        near["second"].append(" ".join([*words()[:1], *["cup"] * score]))
        near["label"].append(float(score))
    tables = {"mood": mood, "nli": nli, "near": near}
    for number, table in enumerate(tables.values()):
        count = len(table["label"])
        table["id"] = (100 * number + 3 * random.permutation(count) + 5).tolist()
    return tables


def make_rows(folder: Path, task: Task, columns: Mapping[str, Any], *, labelled: bool = True) -> Rows:
    """Return the rows of a task, written into a folder of their own."""
    batch = check_columns(columns, task, labelled=labelled, source=task.name)
    return cache_rows(folder, lambda: [batch], task.name)


@pytest.fixture
def glue() -> Path:
    """Return the folder with real data of GLUE, TASK/SPLIT.parquet, if there is one."""
    folder = Path(os.environ.get("KD_GLUE", Path(__file__).parents[2] / "shared" / "data" / "glue"))
    if not folder.is_dir():
        pytest.skip(f"no real data under {folder}: set KD_GLUE to a folder with TASK/SPLIT.parquet")
    return folder


@pytest.fixture
def nltk_data() -> Path:
    """Return the folder with NLTK's tagger: ``$NLTK_DATA``, or that beside the checkout."""
    found = Path(os.environ.get("NLTK_DATA", Path(__file__).parents[2] / "shared" / "data" / "nltk_data"))
    if not (found / "taggers").is_dir():
        pytest.skip("no tagger's data: set NLTK_DATA to a folder with taggers/averaged_perceptron_tagger_eng")
    return found


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def spec() -> NewTransformer:
    """Return the recipe of a transformer of two layers, without dropout."""
    return NewTransformer(hidden_size=16, num_layers=2, num_heads=2, vocab_size=150, max_length=32, dropout=0.0)


@pytest.fixture(scope="session")
def tokenizer(spec):
    """Return a tokenizer trained on the toy texts."""
    columns = [
        values for table in toy_columns().values() for name, values in table.items() if name not in ("label", "id")
    ]
    return spec.tokenizer(text for texts in columns for text in texts)


@pytest.fixture(scope="session")
def toys(tmp_path_factory, spec, tokenizer) -> dict[str, Toy]:
    """Return the three toy tasks by name."""
    cache = tmp_path_factory.mktemp("toys")
    found = {}
    for task in (MOOD, NLI, NEAR):
        columns = toy_columns()[task.name]
        rows = make_rows(cache / task.name, task, columns)
        tokens = tokenise(
            rows, tokenizer, max_length=spec.max_length, both_orders=task.both_orders, cache=cache, name=task.name
        )
        found[task.name] = Toy(task, columns, rows, tokens)
    return found


@pytest.fixture
def write_rows(tmp_path) -> Callable[..., Rows]:
    """Return a function that writes rows of a task: name, task, columns -> rows."""
    return lambda name, task, columns, **settings: make_rows(tmp_path / name, task, columns, **settings)


@pytest.fixture
def parts(toys) -> list[Part]:
    """Return the examples of the three tasks, without teachers."""
    return [toy.part for toy in toys.values()]


@pytest.fixture
def teach(tmp_path, toys) -> Callable[..., Part]:
    """Return a function that gives a part teachers of random logits, stored in another order than the rows."""

    def teach(part: Part, seed: int = 0, only: Iterable[int] | None = None, teachers: int | None = None) -> Part:
        if teachers is not None:  # side by side
            each = [teach(part, 100 * seed + number, only).soft_targets for number in range(teachers)]
            return replace(part, soft_targets=StackedTeachers(each))
        random = np.random.default_rng(seed)
        ids = random.permutation(part.tokens.example_id if only is None else np.asarray(list(only)))
        logits = random.normal(size=(len(ids), part.task.num_labels)).astype(np.float32)
        if part.task.kind == "regression":
            logits = 1 / (1 + np.exp(-logits))
        manifest = Manifest(
            task=part.task.name,
            split=part.split,
            labels=part.task.labels,
            rows=len(ids),
            data=toys[part.task.name].rows.fingerprint,
            teacher=f"teacher {seed}",
            tokenizer="of the teacher",
            max_length=32,
            precision="32-true",
            both_orders=part.task.both_orders,
        )
        folder = tmp_path / f"soft-{part.task.name}-{part.split}-{seed}"
        SoftTargets.write(folder, manifest, torch.from_numpy(ids), torch.from_numpy(logits))
        return replace(part, soft_targets=SoftTargets.open(folder, manifest))

    return teach


@pytest.fixture
def attach() -> Callable[..., Any]:
    """Return a function that puts a system at a step of a run, without a trainer."""

    def attach(system: Any, *, step: int = 1, total: int = 10, world_size: int = 1) -> Any:
        system.trainer = SimpleNamespace(
            global_step=step,
            estimated_stepping_batches=total,
            world_size=world_size,
            accumulate_grad_batches=1,
            loggers=[],
        )
        return system

    return attach


@pytest.fixture
def make_data(tokenizer) -> Callable[..., MultiTaskData]:
    """Return a function: parts to train on -> data of seven steps an epoch, evaluated on the same examples."""

    def make_data(parts: list[Part], **settings: Any) -> MultiTaskData:
        defaults = {"task_sampler": size_power, "batch_size": 10, "eval_batch_size": 16, "window": 3, "seed": 5}
        evaluation = [replace(part, split=part.task.evaluation[0], soft_targets=None) for part in parts]
        known = {"epoch_rows": None, "pad_id": tokenizer.pad_token_id}
        return MultiTaskData(train=parts, evaluation=evaluation, **{**defaults, **known, **settings})

    return make_data


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., pl.Trainer]:
    """Return a function: name of its root folder, settings -> a trainer as the commands build it, on the CPU."""

    def make_trainer(name: str = "fit", **settings: Any) -> pl.Trainer:
        defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "gradient_clip_val": 1.0}
        defaults |= {"log_every_n_steps": 1}
        return pl.Trainer(
            default_root_dir=str(tmp_path / name),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **{**defaults, **settings},
        )

    return make_trainer
