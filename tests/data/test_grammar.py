"""The embedded tasks: the same everywhere, balanced, labelled as their texts say, and beyond a linear bag of words."""

import hashlib
import json
import re

import numpy as np
import pytest

from kd_lightning.data import grammar
from kd_lightning.errors import UserError

CONTENT = {
    "toy_sentiment": "82632e8ca5a58d24",
    "toy_comparison": "76993a8c453199a2",
    "toy_preference": "95b37311f3c43861",
}
SMALL = {"train": 1500, "validation": 500, "unlabelled": 200}


def bags(columns, words):
    """Return counts of each word in each text, ``[rows, texts * words]``."""
    keys = [key for key in columns if key.startswith("sentence")]
    place = {word: i for i, word in enumerate(words)}
    counts = np.zeros((len(columns["label"]), len(keys), len(words)))
    for k, key in enumerate(keys):
        for row, text in enumerate(columns[key]):
            for word in text.split():
                counts[row, k, place[word]] += 1
    return counts.reshape(len(counts), -1)


def texts(task, split):
    """Return all rows' texts of a split."""
    columns = grammar.columns(task, split, sizes=SMALL)
    return list(zip(*(columns[key] for key in columns if key.startswith("sentence")), strict=True))


@pytest.mark.parametrize("task", grammar.TASKS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(task):
    assert grammar.columns(task, "train", sizes=SMALL) == grammar.columns(task, "train", sizes=SMALL)
    assert grammar.columns(task, "train", sizes=SMALL) != grammar.columns(task, "train", sizes=SMALL, seed=1)


@pytest.mark.parametrize(("task", "digest"), CONTENT.items())
def test_the_rows_are_what_they_were(task, digest):
    """A change of the grammar changes every number measured on it; it must not happen unseen."""
    rows = json.dumps([grammar.columns(task, split) for split in grammar.SIZES])
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("task", grammar.TASKS)
def test_splits_have_their_sizes_and_share_no_text(task):
    seen = [text for split in SMALL for text in texts(task, split)]
    assert [len(texts(task, split)) for split in SMALL] == list(SMALL.values())
    assert len(set(seen)) == len(seen)


def test_unlabelled_rows_have_no_label():
    assert "label" not in grammar.columns("toy_sentiment", "unlabelled", sizes=SMALL)


@pytest.mark.parametrize("task", ["toy_sentiment", "toy_comparison"])
def test_classes_are_balanced(task):
    _, counts = np.unique(grammar.columns(task, "train", sizes=SMALL)["label"], return_counts=True)
    assert counts.max() / counts.min() < 1.2


def points(remark):
    """Return what a remark says, read anew from its words: 2 or 1, negative for blame."""
    adverb, adjective = re.fullmatch(r"the \w+ was (\w+) (\w+)", remark).groups()
    good = adjective in grammar.PRAISE
    if adverb in ("not", "never", "hardly"):
        return -1 if good else 1
    return (2 if adverb in ("very", "truly", "really") else 1) * (1 if good else -1)


def verdict(review):
    """Return whether the verdict of a review is good: the remark that no ``although`` or ``though`` takes back."""
    whole = re.fullmatch(r"(although )?(the \w+ was \w+ \w+) ?(but|yet|though|although)? (the \w+ was \w+ \w+)", review)
    concessive, first, between, second = whole.groups()
    return points(first if between in ("though", "although") and not concessive else second) > 0


def label_of(task, texts):
    """Return the label that a task's texts must have."""
    if task == "toy_sentiment":
        return int(verdict(*texts))
    first, second = (points(text) for text in texts)
    if task == "toy_comparison":
        return 1 if (first > 0) == (second > 0) else 0 if first > 0 else 2
    return 2.5 + 0.625 * (first - second)


@pytest.mark.parametrize("task", grammar.TASKS)
def test_a_label_is_what_its_texts_say(task):
    """Read anew, row by row; swapped texts have the label mirrored."""
    labels = grammar.columns(task, "train", sizes=SMALL)["label"]
    rows = texts(task, "train")
    assert [label_of(task, row) for row in rows] == labels
    top = {"toy_sentiment": 1, "toy_comparison": 2, "toy_preference": 5}[task]
    assert (min(labels), max(labels)) == (0, top)
    if task != "toy_sentiment":
        assert [label_of(task, row[::-1]) for row in rows] == [top - label for label in labels]


@pytest.mark.parametrize("frame", grammar.FRAMES)
def test_swapping_the_remarks_of_a_review_turns_its_verdict(frame):
    """The same bag of words has both labels."""
    praise, blame = "the plot was not dull", "the music was never good"
    assert verdict(frame.format(verdict=praise, aside=blame))
    assert not verdict(frame.format(verdict=blame, aside=praise))


@pytest.mark.parametrize(
    ("task", "bound"),
    [
        pytest.param("toy_sentiment", 0.60, id="sentiment, accuracy (0.573)"),
        pytest.param("toy_comparison", 0.47, id="comparison, accuracy (0.450)"),
        pytest.param("toy_preference", 0.45, id="preference, Pearson (0.422)"),
    ],
)
def test_a_linear_bag_of_words_fails(task, bound):
    """Ridge regression of one-hot labels on each text's word counts, from many more labels than the quickstart has."""
    sizes = {"train": 4000, "validation": 1000}
    train, test = (grammar.columns(task, split, sizes=sizes) for split in sizes)
    keys = [key for key in train if key.startswith("sentence")]
    words = sorted({word for some in (train, test) for key in keys for text in some[key] for word in text.split()})
    x, z = bags(train, words), bags(test, words)
    y, wanted = np.array(train["label"]), np.array(test["label"])
    scores = task == "toy_preference"
    targets = y[:, None] if scores else np.eye(y.max() + 1)[y]
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (targets - targets.mean(0)))
    guess = z @ weights + targets.mean(0)
    found = np.corrcoef(guess[:, 0], wanted)[0, 1] if scores else (guess.argmax(1) == wanted).mean()
    chance = 0.0 if scores else 1 / targets.shape[1]
    assert 1.1 * chance < found < bound  # a classifier that learned nothing would prove nothing


@pytest.mark.parametrize(("task", "split"), [("toy_poetry", "train"), ("toy_sentiment", "test")])
def test_unknown_names_are_refused(task, split):
    with pytest.raises(UserError, match="expected one of"):
        grammar.columns(task, split)
