"""Toy tasks that ship with the package: remarks about films, written by a seeded grammar.

A remark praises or blames one aspect of a film, strongly, weakly or by a negation; a connective says which of the two
remarks of a review is its verdict. In a review, words alone do not tell: "the plot was not dull but the music was never
good" has another verdict than "the music was never good but the plot was not dull". In a remark, no single word does: a
negation turns it.

* ``toy_sentiment``: is the verdict of the review good?
* ``toy_comparison``: which of two remarks praises while the other blames, or neither?
* ``toy_preference``: by how much does the first of two remarks praise more, from 0 to 5?
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from kd_lightning.errors import UserError

PRAISE = [
    "good",
    "great",
    "lovely",
    "superb",
    "clever",
    "charming",
    "moving",
    "bright",
    "fresh",
    "funny",
    "rich",
    "warm",
]
BLAME = ["bad", "awful", "boring", "dull", "silly", "clumsy", "weak", "bland", "stale", "grim", "poor"]
ASPECTS = ["plot", "music", "cast", "ending", "script", "acting", "dialogue", "pacing"]
STRONG = ["very", "truly", "really"]
WEAK = ["quite", "rather", "fairly"]
NEGATIONS = ["not", "never", "hardly"]
FRAMES = (
    "although {aside} {verdict}",
    "{verdict} although {aside}",
    "{aside} but {verdict}",
    "{aside} yet {verdict}",
    "{verdict} though {aside}",
)

NEGATED = 0.35
"""Share of remarks with a negation."""

SIZES: Mapping[str, int] = MappingProxyType({"train": 200, "validation": 1000, "unlabelled": 4000})
"""Rows of each split; the splits share no text."""


class Row(NamedTuple):
    """One example: its texts and its label (a class index or a score)."""

    texts: tuple[str, ...]
    label: float


def remark(draw: random.Random, good: bool, aspect: str) -> tuple[str, int]:
    """Return a remark that praises or blames the aspect, and its points: 2 or 1, negative for blame."""
    negated, strong = draw.random() < NEGATED, draw.random() < 0.5
    adverb = draw.choice(NEGATIONS if negated else STRONG if strong else WEAK)
    points = 2 if strong and not negated else 1
    return f"the {aspect} was {adverb} {draw.choice(PRAISE if good ^ negated else BLAME)}", points if good else -points


def sentiment(draw: random.Random) -> Row:
    """Return a review and whether its verdict is good: 0 negative, 1 positive."""
    good, aside = draw.random() < 0.5, draw.random() < 0.5
    first, second = draw.sample(ASPECTS, 2)
    texts = {"verdict": remark(draw, good, first)[0], "aside": remark(draw, aside, second)[0]}
    return Row((draw.choice(FRAMES).format(**texts),), float(good))


def comparison(draw: random.Random) -> Row:
    """Return two remarks and which praises while the other blames: 0 the first, 1 neither, 2 the second."""
    label, good = draw.randrange(3), draw.random() < 0.5
    kinds = ((True, False), (good, good), (False, True))[label]
    first, second = (remark(draw, kind, draw.choice(ASPECTS))[0] for kind in kinds)
    return Row((first, second), float(label))


def preference(draw: random.Random) -> Row:
    """Return two remarks and how much more the first praises: their points' difference, mapped to 0 to 5."""
    (first, points), (second, others) = (remark(draw, draw.random() < 0.5, draw.choice(ASPECTS)) for _ in range(2))
    return Row((first, second), 2.5 + 0.625 * (points - others))


WRITERS: Mapping[str, Callable[[random.Random], Row]] = MappingProxyType(
    {"toy_sentiment": sentiment, "toy_comparison": comparison, "toy_preference": preference}
)
TASKS = tuple(WRITERS)


def columns(task: str, split: str, *, seed: int = 0, sizes: Mapping[str, int] = SIZES) -> dict[str, list[Any]]:
    """Return the rows of one split as columns.

    Args:
        task: One of ``TASKS``.
        split: One of the names in ``sizes``.
        seed: Seed of the grammar; the same seed gives the same rows on every machine.
        sizes: Rows of each split.

    Returns:
        ``idx``; ``sentence``, or ``sentence1`` and ``sentence2``; and ``label`` except in ``unlabelled``.

    Raises:
        UserError: If there is no such task or split.
    """
    if task not in WRITERS:
        raise UserError(f"task {task} is not embedded, expected one of {', '.join(TASKS)}")
    if split not in sizes:
        raise UserError(f"task {task} has no split {split}, expected one of {', '.join(sizes)}")
    draw, rows = random.Random(1_000 * seed + TASKS.index(task)), dict[tuple[str, ...], float]()
    while len(rows) < sum(sizes.values()):
        texts, label = WRITERS[task](draw)
        rows.setdefault(texts, label)
    names = list(sizes)
    start = sum(sizes[name] for name in names[: names.index(split)])
    chosen = list(rows.items())[start : start + sizes[split]]
    texts_only = [texts for texts, _ in chosen]
    found: dict[str, list[Any]] = {"idx": list(range(len(chosen)))}
    keys = ("sentence",) if len(texts_only[0]) == 1 else ("sentence1", "sentence2")
    found |= {key: [texts[i] for texts in texts_only] for i, key in enumerate(keys)}
    if split != "unlabelled":
        score = task == "toy_preference"
        found["label"] = [label if score else int(label) for _, label in chosen]
    return found
