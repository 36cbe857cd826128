"""Scores of files as a teacher's logits: read strictly, joined by id, of one scale with a classifier's."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from kd_lightning.data.reading.formats import read_header
from kd_lightning.data.reading.reader import check_columns
from kd_lightning.data.rows import cache_rows
from kd_lightning.data.soft_targets.scores_file import SMALLEST, read_scores
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

FACTS = {"name": "x", "texts": ("text",), "id": "key"}
TWO = Task(kind="classification", labels=("no", "yes"), metrics=("accuracy",), **FACTS)
THREE = Task(kind="classification", labels=("a", "b", "c"), metrics=("accuracy",), **FACTS)
SCORED = Task(kind="regression", score_range=(0, 5), metrics=("pearson",), **FACTS)
RANKED = Task(kind="ranking", labels=("no", "yes"), group="q", metrics=("map",), **FACTS)
KEYS = ["r7", "12", "r1"]


@pytest.fixture
def rows(tmp_path):
    """Three rows, whose ids are words and a number."""

    def read(task=TWO, keys=KEYS):
        columns = {"text": ["a"] * len(keys), "key": keys, "q": ["one"] * len(keys)}
        return cache_rows(
            tmp_path / f"rows-{task.kind}-{len(keys)}",
            lambda: [check_columns(columns, task, labelled=False, source="x")],
            "x",
        )

    return read


@pytest.fixture
def file(tmp_path):
    """Write lines into a file."""

    def write(*lines, name="scores.csv"):
        path = tmp_path / name
        path.write_text("\n".join([*lines, ""]))
        return path

    return write


def ids_of(rows, keys):
    """Return the example ids of some keys."""
    (batch,) = rows.batches()
    return [batch["example_id"][batch["row_id"].to_pylist().index(key)].as_py() for key in keys]


def test_probabilities_come_back(rows, file):
    """Of another row, of another class, or on another scale than a classifier's logits have."""
    own = rows(THREE)
    path = file("p_c,key,p_a,p_b", "0.2,r1,0.5,0.3", "0.1,r7,0.1,0.8", "0.0,12,1.0,0", "0.9,r9,0.1,0.0")
    ids, logits = read_scores(path, THREE, own)
    assert ids.tolist() == sorted(ids_of(own, KEYS))
    by_id = dict(zip(ids.tolist(), logits, strict=True))
    expected = {"r1": [0.5, 0.3, 0.2], "r7": [0.1, 0.8, 0.1], "12": [1.0, 0.0, 0.0]}
    for key, example_id in zip(KEYS, ids_of(own, KEYS), strict=True):
        found = by_id[example_id]
        torch.testing.assert_close(found.softmax(-1), torch.tensor(expected[key]), atol=3 * SMALLEST, rtol=0)
        assert abs(float(found.sum())) < 1e-5
    assert logits.dtype == torch.float32


def test_one_score_is_the_probability_of_the_second_of_two(rows, file):
    """The first class, or a logit where a probability is given."""
    own = rows()
    one = read_scores(file("id,score", "r1,0.9", "r7,0.25", "12,1"), TWO, own)[1]
    both = read_scores(file("key,p_no,p_yes", "r1,0.1,0.9", "r7,0.75,0.25", "12,0,1"), TWO, own)[1]
    torch.testing.assert_close(one, both)
    torch.testing.assert_close(one.softmax(-1)[:, 1].sort().values, torch.tensor([0.25, 0.9, 1.0]), atol=1e-5, rtol=0)


def test_scores_have_the_range_of_the_task(rows, file):
    """Of regression [0, 5] as heads predict it; of candidates as they are."""
    found = read_scores(file("key,prediction", "r1,5", "r7,0", "12,2"), SCORED, rows(SCORED))[1]
    assert sorted(found.flatten().tolist()) == pytest.approx([0.0, 0.4, 1.0])
    found = read_scores(file("key,score", "r1,-7", "r7,0", "12,20"), RANKED, rows(RANKED))[1]
    assert sorted(found.flatten().tolist()) == [-7, 0, 20]
    assert found.shape == (3, 1)


def test_files_of_every_kind(rows, tmp_path, file):
    """A table of a laptop, lines of an API, parquet with whole numbers for ids."""
    task = Task(kind="classification", labels=("no", "yes"), metrics=("accuracy",), name="x", texts=("text",))
    columns = {"text": ["a"] * 3}
    own = cache_rows(tmp_path / "n", lambda: [check_columns(columns, task, labelled=False, source="x")], "x")
    table = pa.table({"id": [2, 0, 1], "score": pa.array([0.2, 0.4, 0.6], pa.float32())})
    pa.parquet.write_table(table, tmp_path / "s.parquet")
    lines = [json.dumps({"id": i, "score": score}) for i, score in ((2, 0.2), (0, 0.4), (1, 0.6))]
    paths = [tmp_path / "s.parquet", file(*lines, name="s.jsonl")]
    paths += [file("id\tscore", "2\t0.2", "0\t0.4", "1\t0.6", name="s.tsv")]
    for path in paths:
        assert sorted(read_header(path)) == ["id", "score"]
        ids, logits = read_scores(path, task, own)
        assert ids.tolist() == [0, 1, 2]
        np.testing.assert_allclose(logits.softmax(-1)[:, 1], [0.4, 0.6, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    ("task", "lines", "said"),
    [
        (TWO, ["key,score", "r1,0.9", "r7,0.2"], r"1 of 3 rows of x have no score there, first that of the id 12: "),
        (
            TWO,
            ["key,score", "r1,1", "r7,1", "12,1", "r1,0"],
            r"line 5, column 'key': found the id 'r1' of line 2 again",
        ),
        (
            TWO,
            ["key,score", "r1,0.9", "r7,1.2", "12,1"],
            r"line 3, column 'score': found '1.2', expected a probability",
        ),
        (TWO, ["key,score", "r1,", "r7,1", "12,1"], r"line 2, column 'score': found '', expected a probability from 0"),
        (TWO, ["key,score", "r1,high", "r7,1", "12,1"], r"line 2, column 'score': found 'high', expected a probabil"),
        (TWO, ["key,score", ",0.9", "r7,1", "12,1"], r"line 2, column 'key': found '', expected the id of a row"),
        (TWO, ["name,score", "r1,0.9"], r"found the columns 'name', 'score', expected 'id' among them"),
        (TWO, ["key,p_no", "r1,0.9"], r"found the columns 'key', 'p_no', expected 'p_yes' among them; rename"),
        (TWO, ["key,p_no,p_yes", "r1,0.9,0.3"], r"line 2, column 'p_no': found probabilities that sum to 1.2, expect"),
        (THREE, ["key,score", "r1,0.9"], r"found the columns 'key', 'score', expected 'p_a' among them"),
        (SCORED, ["key,score", "r1,5.5", "r7,1", "12,1"], r"found '5.5', expected a score from 0 to 5"),
        (RANKED, ["key,score", "r1,inf", "r7,1", "12,1"], r"found 'inf', expected a finite number"),
    ],
)
def test_what_is_no_score_is_told(rows, file, task, lines, said):
    """A row that learns from nothing, from another's score, or from a probability of 1.2."""
    with pytest.raises(UserError, match=said):
        read_scores(file(*lines), task, rows(task))


def test_a_file_that_is_not_there_is_told(rows, tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        read_scores(tmp_path / "none.csv", TWO, rows())
