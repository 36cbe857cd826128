"""Tasks that rank the candidates of a question, through the commands."""

from __future__ import annotations

import csv
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.predict import write_predictions
from kd_lightning.apps.results import scoring
from kd_lightning.apps.stages import teaching
from kd_lightning.data.reading.reader import check_columns
from kd_lightning.data.rows import cache_rows
from kd_lightning.errors import UserError
from kd_lightning.files import read_json
from kd_lightning.tasks import Task

COLOURS, ANIMALS = ["red", "blue", "green", "black"], ["cat", "dog", "bird", "fish"]
SHORT = ["task=[answers,animals]", "batching.single_task=true", "trainer.max_epochs=1"]


def candidates(number, generator):
    """Return the rows of one question: one candidate or two of its colour, some of others."""
    colour = generator.choice(COLOURS)
    others = [one for one in COLOURS if one != colour]
    right = [[f"what is {colour}", f"{colour} {generator.choice(ANIMALS)}", "yes"] for _ in range(1 + number % 2)]
    wrong = [[f"what is {colour}", f"{generator.choice(others)} {generator.choice(ANIMALS)}", "no"] for _ in range(3)]
    rows = [[f"q{number}", *row] for row in [*right, *wrong]]
    generator.shuffle(rows)
    return rows


@pytest.fixture
def answers(workplace):
    """A task of one's own that ranks."""
    for split, questions in (("train", 60), ("dev", 20)):
        generator = random.Random(split)
        with (workplace / f"answers-{split}.csv").open("w", newline="") as file:
            rows = [row for number in range(questions) for row in candidates(number, generator)]
            generator.shuffle(rows)
            numbered = [[*row, number] for number, row in enumerate(rows)]
            csv.writer(file).writerows([["question", "first", "second", "label", "row"], *numbered])
    task = {
        "_target_": "kd_lightning.tasks.Task",
        "name": "answers",
        "kind": "ranking",
        "texts": ["first", "second"],
        "labels": ["no", "yes"],
        "group": "question",
        "metrics": ["map", "mrr", "accuracy"],
        "files": {"train": "answers-train.csv", "validation": "answers-dev.csv"},
    }
    (workplace / "mine" / "task" / "answers.yaml").write_text(yaml.safe_dump({"answers": task}))
    return workplace


def test_a_teacher_that_ranks_teaches(kd, answers):
    """Scores of the whole way: trained, predicted, joined, distilled, evaluated, predicted as a table."""
    teacher = ["teacher.trainer.max_epochs=8", "teacher.batching.batch_size=8", "teacher.seeds=[1,2]"]
    folder = kd("distill", *SHORT, "system=mt_dnn_kd", *teacher, "trainer.max_epochs=8", "optimizer.lr=2e-3")
    summary = read_json(folder / "summary.json")
    found = summary["tasks"]["answers"]
    assert found["metric"] == "map"
    assert found["teacher"] > 0.6, "a random order of four or five has about 0.5"
    assert found["ensemble"] > 0.6
    assert set(found["metrics"]["student"]) == {"map", "mrr", "accuracy"}
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    assert evaluation["scores"]["answers"] == pytest.approx(found["metrics"]["student"], abs=1e-6)
    kd("predict", f"run={folder}", "task=answers", "output=predicted")
    table = pd.read_csv(answers / "predicted" / "answers-validation.csv")
    dev = pd.read_csv(answers / "answers-dev.csv")
    assert [table.columns.tolist(), sorted({*table["rank"]})[:4]] == [
        ["id", "prediction", "rank", "label"],
        [1, 2, 3, 4],
    ]
    best = table["rank"] == 1
    assert best.sum() == dev["question"].nunique()
    assert np.mean(dev["label"][best] == "yes") == pytest.approx(found["metrics"]["student"]["accuracy"])
    first = [dev.loc[of.index[np.argmax(table["prediction"][of.index])], "label"] for _, of in dev.groupby("question")]
    assert np.mean(np.array(first) == "yes") == pytest.approx(found["metrics"]["student"]["accuracy"])


def test_an_ensemble_averages_as_it_is_told(kd, answers, monkeypatch):
    """Scores of rankers averaged as they are, or probabilities where logits are asked for; in one of two places."""
    seen = []

    def recording(place, mean):
        def record(found, **recipe):
            seen.append((place, recipe["mean"], recipe["weights"], recipe["group"]))
            return mean(found, **recipe)

        return record

    monkeypatch.setattr(teaching, "ensemble", recording("soft targets", teaching.ensemble))
    monkeypatch.setattr(scoring, "mean_logits", recording("scores", scoring.mean_logits))
    rule = ["teacher.seeds=[1,2]", "teacher.ensemble={mean: logits, weights: {1: 1, 2: 3}}", "baseline=false"]
    kd("distill", *SHORT, "system=mt_dnn_kd", "teacher.scope=multi", *rule, "teacher.trainer.max_epochs=1")
    for place in ("soft targets", "scores"):
        groups = [group for where, mean, weights, group in seen if (where, mean, weights) == (place, "logits", [1, 3])]
        assert len(groups) == 2, "one of each task"
        assert [group is None for group in groups] == [False, True]
        assert groups[0].unique().numel() == (60 if place == "soft targets" else 20), "questions"


def test_a_classifier_has_the_metrics_of_questions(kd, answers):
    """What ranking is compared with: the same rows, a label each."""
    kinds = ["task.answers.kind=classification", "task.answers.metrics=[map,accuracy]"]
    scores = read_json(kd("train", "task=[answers]", *kinds, "trainer.max_epochs=1") / "fit.json")["scores"]
    assert set(scores["answers"]) == {"map", "accuracy"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["batching.single_task=false"], r"task answers ranks the candidates of a question.*batching.single_task=true"),
        (["task.answers.group=row"], r"have more than one candidate, expected at least half"),
        (["task.answers.group=null"], r"kind: ranking needs group"),
        (["task.answers.group=asked"], r"found the columns .*, expected 'asked'"),
    ],
)
def test_what_cannot_be_ranked_is_told(kd, answers, settings, message):
    for command in ("train", "distill"):
        with pytest.raises(UserError, match=message):
            kd(command, *SHORT, *settings)
    assert not list(answers.glob("outputs/store/fits/*"))


def test_large_questions_are_told(kd, answers, caplog):
    """Out of memory at the one batch of an epoch that has the largest question."""
    with caplog.at_level("WARNING"):
        kd("train", *SHORT, "batching.batch_size=4", "trainer.max_epochs=-1", "trainer.max_steps=1")
        kd("train", *SHORT, "batching.batch_size=5", "trainer.max_epochs=-1", "trainer.max_steps=1")
    told = [message for message in caplog.messages if "more candidates" in message]
    assert told == [
        "answers train: 30 of 60 questions have more candidates than the 4 rows of a batch, up to 5; batches are as "
        "large as their questions, and memory must hold them; an epoch reads each question 1.1 times"
    ]


def test_questions_that_teach_nothing_are_told(kd, answers, caplog):
    """All of a question's candidates relevant, or none: half of the data is there, and nothing comes of it."""
    path = answers / "answers-train.csv"
    told = ["q0,what is red,red cat,yes,900", "q900,what is red,red cat,yes,901", "q900,what is red,red dog,yes,902"]
    path.write_text("\n".join([path.read_text().strip(), *told, "q901,what is red,blue dog,no,903", ""]))
    with caplog.at_level("WARNING"):
        kd("train", *SHORT, "trainer.max_epochs=-1", "trainer.max_steps=1")
    assert (
        "answers train: of 62 questions 2 have candidates of one kind alone: labels teach nothing there" in caplog.text
    )


def test_equal_candidates_share_a_rank(tmp_path):
    """The order of the file under the name of a rank."""
    task = Task(
        name="x", kind="ranking", texts=("text",), labels=("no", "yes"), group="q", metrics=("map",), label="label"
    )
    columns = {"text": list("abcde"), "q": [7, 7, 7, 7, 8]}
    rows = cache_rows(tmp_path / "r", lambda: [check_columns(columns, task, labelled=False, source="x")], "x")
    write_predictions(
        tmp_path / "p.csv", task, rows, torch.arange(5), torch.tensor([[0.5], [2.0], [0.5], [-1.0], [0.1]])
    )
    assert pd.read_csv(tmp_path / "p.csv")["rank"].tolist() == [2, 1, 2, 4, 1]


def test_labels_the_wrong_way_round_are_told(kd, answers, caplog):
    """``labels: [relevant, irrelevant]``: a model that finds what does not answer, and a high score for it."""
    with caplog.at_level("WARNING"):
        kd("train", *SHORT, "task.answers.labels=[yes,no]", "trainer.max_epochs=-1", "trainer.max_steps=1")
    (told,) = [message for message in caplog.messages if "% of the candidates" in message]
    assert told.startswith("answers train: ")
    assert "'no': task.answers.labels names what is irrelevant first" in told


def test_questions_that_tell_nothing_are_told(kd, answers, caplog):
    """A score of 19 questions under the number of 20; or 100 for any model at all."""
    path = answers / "answers-dev.csv"
    told = ["q900,what is red,red cat,yes,901", "q900,what is red,red dog,yes,902", "q901,what is red,blue dog,no,903"]
    path.write_text("\n".join([path.read_text().strip(), *told, ""]))
    with caplog.at_level("WARNING"):
        folder = kd("train", *SHORT, "trainer.max_epochs=-1", "trainer.max_steps=1")
        count = len([message for message in caplog.messages if message.startswith("answers validation")])
        kd("evaluate", f"run={folder}")
    assert count == 2, "once in a run"
    assert "answers validation: of 22 questions 1 have no relevant candidate: no score counts them" in caplog.messages
    assert (
        "answers validation: of 22 questions 1 have relevant candidates alone: any order of them is right"
        in caplog.messages
    )
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line.replace("q", f"q{i}", 1) for i, line in enumerate(lines[1:])), ""]))
    wrong = r"answers: .* questions of validation \(column .* as in QNLI since its second version; use kind: class"
    with pytest.raises(UserError, match=wrong):
        kd("train", *SHORT)
    kinds = ["task.answers.kind=classification", "task.answers.metrics=[map,accuracy]"]
    with pytest.raises(UserError, match=r"nothing to rank, as in QNLI since .*; take map and mrr out of its metrics"):
        kd("train", *SHORT, *kinds)


def test_two_processes_have_a_fit_of_their_own(kd, answers):
    """Whole questions are shared out: one process and two read other batches, and are two fits."""
    folder = kd("train", *SHORT, "trainer.max_epochs=-1", "trainer.max_steps=1")
    cfg: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    addresses = set()
    for processes in (1, 1, 2):
        fit = Fit("train", cfg, Shared.of(cfg), {})
        fit.__dict__["idle_trainer"] = SimpleNamespace(world_size=processes)
        addresses.add(fit.identity)
    assert len(addresses) == 2
    assert read_json(folder / "fit.json")["identity"] in addresses


def test_what_is_wrong_with_questions_is_told_once(kd, answers, caplog):
    """The same line for each of five fits."""
    with caplog.at_level("WARNING"):
        kd("distill", *SHORT, "batching.batch_size=4", "teacher.batching.batch_size=4", "teacher.trainer.max_epochs=1")
    assert len([message for message in caplog.messages if "more candidates" in message]) == 1
