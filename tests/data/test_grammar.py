"""The embedded tasks: the same everywhere, balanced, and beyond a bag of words."""

import numpy as np
import pytest

from kd_lightning.data import grammar
from kd_lightning.errors import UserError

FIRST = ("the dialogue was never clever although the plot was very stale", 0)
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


def test_the_first_row_is_what_it_was():
    """A change of the grammar changes every number measured on it; it must not happen unseen."""
    first = grammar.columns("toy_sentiment", "train", sizes=SMALL)
    assert (first["sentence"][0], first["label"][0]) == FIRST


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


def test_swapping_the_clauses_turns_the_verdict():
    """The same bag of words has both labels."""
    columns = grammar.columns("toy_sentiment", "train", sizes={"train": 20_000})
    labels = {}
    for text, label in zip(columns["sentence"], columns["label"], strict=True):
        labels.setdefault(" ".join(sorted(text.split())), set()).add(label)
    assert {0, 1} in labels.values()


@pytest.mark.parametrize(
    ("task", "bound"),
    [
        pytest.param("toy_sentiment", 0.62, id="sentiment, accuracy (0.573)"),
        pytest.param("toy_comparison", 0.50, id="comparison, accuracy (0.450)"),
        pytest.param("toy_preference", 0.50, id="preference, Pearson (0.422)"),
    ],
)
def test_a_bag_of_words_fails(task, bound):
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
