"""Sources: the rows that a task names, with their labels wherever these are needed, or one line that says why not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest

from kd_lightning.data import Corpus, Embedded, Files, ParquetFolder
from kd_lightning.data import corpus as corpus_module
from kd_lightning.data import rows as rows_module
from kd_lightning.data import sources as sources_module
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task


def make_task(**fields: Any) -> Task:
    """Return a task of one text and two classes."""
    fields = {"name": "toy", "kind": "classification", "texts": ["text"], "metrics": ["accuracy"]} | fields
    return Task(**{"labels": ["no", "yes"], **fields})


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Return a corpus of own files alone."""
    return Corpus(Files(), tmp_path / "cache")


@pytest.fixture
def own(tmp_path):
    """Return a function: split -> content of its csv file; the task that names these files."""

    def own(**contents: str) -> Task:
        files = {split: tmp_path / f"{split}.csv" for split in contents}
        for split, content in contents.items():
            files[split].write_text(content)
        return make_task(files={split: str(path) for split, path in files.items()}, evaluation=["test"])

    return own


def labels(rows: Any) -> list[float]:
    """Return the labels of all rows."""
    return [label for batch in rows.batches() for label in batch.column("label").to_pylist()]


def refusal(*args: Any, **kwargs: Any) -> str:
    """Return the one line with which a call is refused."""
    call, *others = args
    with pytest.raises(UserError) as caught:
        call(*others, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Labels


def test_a_labelled_test_split_keeps_its_labels(corpus, own):
    """Labels thrown away by the name of the split: every row is scored against class 0."""
    task = own(test="text,label\na,yes\nb,no\nc,yes\n")
    assert labels(corpus.require(task, "test", labelled=True)) == [1, 0, 1]
    assert labels(corpus.rows(task, "test", labelled=True)) == [1, 0, 1]


def test_hidden_labels_cannot_be_evaluated(corpus, own):
    """GLUE hides test labels behind -1, which is no class."""
    task = own(test="text,label\na,-1\n")
    message = refusal(corpus.require, task, "test", labelled=True)
    assert "test.csv, line 2, column 'label': found the unknown label '-1', expected one of 'no', 'yes'" in message


@pytest.mark.parametrize("split", ["validation", "train", "test"])
def test_prediction_needs_no_label_column(corpus, own, split):
    """Rows to predict have no label yet, whatever their split is called."""
    task = own(**{split: "text\na\nb\n"})
    assert all(map(math.isnan, labels(corpus.require(task, split, labelled=False))))


@pytest.mark.parametrize(("split", "labelled"), [("train", True), ("validation", True), ("dev", True), ("test", False)])
def test_splits_are_labelled_unless_their_name_says_otherwise(corpus, own, split, labelled):
    """A training file without labels must fail, and GLUE's hidden ones must not."""
    task = own(**{split: "text,label\na,yes\n"})
    assert labels(corpus.require(task, split)) == pytest.approx([1.0 if labelled else math.nan], nan_ok=True)
    bare = own(**{split: "text\na\n"})
    if labelled:
        assert "expected 'label' among them" in refusal(corpus.require, bare, split)
    else:
        assert corpus.require(bare, split).count == 1


def test_rows_with_and_without_labels_are_two(corpus, own):
    """The rows that were cached to predict serve the evaluation: all labels NaN."""
    task = own(test="text,label\na,yes\n")
    bare, full = (corpus.require(task, "test", labelled=labelled) for labelled in (False, True))
    assert bare.folder != full.folder
    assert bare.fingerprint != full.fingerprint
    assert corpus.require(task, "test") == bare


def test_another_format_another_folder(corpus, own, monkeypatch):
    """A release that reads otherwise must not serve what the last one read."""
    task = own(test="text,label\na,yes\n")
    old = corpus.require(task, "test")
    monkeypatch.setattr(corpus_module, "FORMAT", rows_module.FORMAT + 1)
    assert corpus.require(task, "test").folder != old.folder


# Files


def test_absent_splits(corpus, own):
    """None for a split that may be absent, one line for one that may not."""
    task = own(train="text,label\na,yes\n")
    assert corpus.rows(task, "unlabelled") is None
    message = refusal(corpus.require, task, "validation")
    assert message == ("task toy has no validation split: expected it at `files: {validation: PATH}` in the task")


def test_a_file_that_is_named_must_be_there(corpus, own, tmp_path):
    """A typo in a path is no split that happens to be absent."""
    task = own(unlabelled="text\na\n")
    (tmp_path / "unlabelled.csv").rename(tmp_path / "unlabeled.csv")
    assert "found no such file" in refusal(corpus.rows, task, "unlabelled")


def test_a_folder_in_the_place_of_a_file(corpus, tmp_path):
    """An unpacked archive, a mount: an OSError with forty lines of our own."""
    (tmp_path / "train.csv").mkdir()
    task = make_task(files={"train": str(tmp_path / "train.csv")})
    message = refusal(corpus.require, task, "train")
    assert message == f"{tmp_path / 'train.csv'}: Is a directory, expected a file that can be read"
    (tmp_path / "glue" / "toy" / "train.parquet").mkdir(parents=True)
    glue = Corpus(ParquetFolder(str(tmp_path / "glue")), tmp_path / "cache")
    assert "train.parquet: Is a directory, expected a file" in refusal(glue.require, make_task(), "train")


def test_a_file_that_may_not_be_read(corpus, own, monkeypatch):
    """A colleague's file without the right to read it (the test may run as root, so the refusal is played)."""

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    task = own(train="text,label\na,yes\n")
    monkeypatch.setattr(sources_module, "file_hash", refuse)
    assert "train.csv: Permission denied, expected a file that can be read" in refusal(corpus.require, task, "train")


# The Hub

PAIRS = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [0, 2], "idx": [0, 1]}
MNLI = {
    "name": "mnli",
    "texts": ["premise", "hypothesis"],
    "labels": ["entailment", "neutral", "contradiction"],
    "evaluation": ["validation_matched", "validation_mismatched"],
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a corpus of the Hub, played by a function, and the list of the calls to it."""
    calls = []

    def load_dataset(repo: str, name: str) -> dict[str, datasets.Dataset]:
        calls.append((repo, name))
        splits = ["train", *MNLI["evaluation"], "test_matched", "test_mismatched"]
        return {split: datasets.Dataset.from_dict(PAIRS) for split in splits}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return Corpus(ParquetFolder(None, download=str(tmp_path / "hub")), tmp_path / "cache"), calls


def test_the_hub_is_asked_once(hub):
    """MNLI's five splits by their own names; a second question is a second download."""
    corpus, calls = hub
    task = make_task(**MNLI)
    for split in ("train", *task.evaluation):
        assert labels(corpus.require(task, split)) == [0, 2]
    assert corpus.rows(task, "validation") is None
    assert "mnli/validation.parquet" in refusal(corpus.require, task, "validation")
    assert calls == [("nyu-mll/glue", "mnli")]


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ConnectionError()], ids=["lines", "empty"])
def test_without_a_network_one_line_says_what_to_do(hub, monkeypatch, error, tmp_path):
    """Machines of clusters have no network: a stack of retries hides the two ways out."""

    def fail(*_: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    message = refusal(hub[0].require, make_task(**MNLI), "train")
    reason = "no route" if str(error) else "ConnectionError"
    assert f"the Hub dataset nyu-mll/glue, mnli, cannot be fetched (ConnectionError: {reason}): without" in message
    assert "give data.root=FOLDER with TASK/SPLIT.parquet, or data=embedded" in message
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.suffix == ".parquet"]


def test_a_task_of_the_package_is_not_looked_for_on_the_hub(hub):
    """Half a minute of retries, before it is said where the task is."""
    message = refusal(hub[0].require, make_task(name="toy_sentiment"), "train")
    assert message == "task toy_sentiment is not in nyu-mll/glue, but ships with the package: data=embedded"
    assert hub[1] == []


def test_a_root_that_is_no_folder(tmp_path):
    """A typo in data.root that is taken for an empty data set."""
    message = refusal(ParquetFolder, str(tmp_path / "gleu"))
    assert message.startswith(f"data.root is '{tmp_path / 'gleu'}', expected a folder with TASK/SPLIT.parquet")


# The grammar


def test_embedded_tasks(tmp_path):
    """The toy tasks need no file and no network."""
    task = make_task(name="toy_sentiment", texts=["sentence"], labels=["negative", "positive"])
    corpus = Corpus(Embedded(), tmp_path)
    rows = corpus.require(task, "validation")
    assert (rows.count, set(labels(rows))) == (1000, {0.0, 1.0})
    assert corpus.rows(task, "test") is None
    assert Corpus(Embedded(seed=1), tmp_path).require(task, "validation").fingerprint != rows.fingerprint
    assert "expected it at embedded toy_sentiment test" in refusal(corpus.require, task, "test")


def test_the_first_rows_alone(tmp_path):
    """A trial of all stages on a table of millions; what is wrong in a row that is left out is found all the same."""
    task = make_task(name="toy_sentiment", texts=["sentence"], labels=["negative", "positive"])
    whole = Corpus(Embedded(), tmp_path).require(task, "validation")
    for limit in (1, 192, 999, 1000, 5000):
        some = Corpus(Embedded(), tmp_path, limit=limit).require(task, "validation")
        assert list(some.texts()) == list(whole.texts())[:limit]
        assert (some.fingerprint == whole.fingerprint) is (limit >= 1000)


def test_a_task_that_is_not_embedded(tmp_path):
    """data=embedded with a task of another source."""
    message = refusal(Corpus(Embedded(), tmp_path).rows, make_task(name="rte"), "train")
    assert message.startswith("task rte is not embedded: expected one of toy_sentiment, toy_comparison, toy_pref")
    assert message.endswith("or another data=")
