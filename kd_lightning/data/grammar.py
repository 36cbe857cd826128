"""Toy tasks that ship with the package: film reviews written by a seeded grammar.

A review has two clauses about two aspects of a film; each praises or blames, with or without a negation, and a
connective says which of the two is the verdict. Words alone do not tell: "the plot was not dull but the music was never
good" has another verdict than "the music was never good but the plot was not dull".

* ``toy_sentiment``: is the verdict of the review good?
* ``toy_comparison``: which of two reviews has the better verdict, or neither?
* ``toy_preference``: by how much does the first review like its film better, from 0 to 5?
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
DEGREES = ["very", "quite", "truly", "really", "rather"]
NEGATIONS = ["not", "never", "hardly"]
BELIEFS = ("we felt that", "they said that", "i think that")
DOUBTS = ("nobody felt that", "nobody said that", "i doubt that")
FRAMES = (
    "although {aside} {verdict}",
    "{verdict} although {aside}",
    "{aside} but {verdict}",
    "{aside} yet {verdict}",
    "{verdict} though {aside}",
)

NEGATED = 0.25
"""Share of clauses with a negation."""
REPORTED = 0.15
"""Share of clauses that somebody believes or doubts, in ``toy_sentiment``."""
AGREEING = 0.4
"""Share of reviews whose two clauses judge alike."""

SIZES: Mapping[str, int] = MappingProxyType({"train": 1000, "validation": 1000, "unlabelled": 12000})
"""Rows of each split; the splits share no text."""


class Row(NamedTuple):
    """One example: its texts and its label (a class index or a score)."""

    texts: tuple[str, ...]
    label: float


def clause(draw: random.Random, good: bool, aspect: str, hearsay: float) -> str:
    """Return a clause that judges the aspect well or badly, perhaps by a negation or a doubt."""
    negated, reported = draw.random() < NEGATED, draw.random() < hearsay
    doubted = reported and draw.random() < 0.5
    word = draw.choice(PRAISE if good ^ negated ^ doubted else BLAME)
    text = f"the {aspect} was {draw.choice(NEGATIONS if negated else DEGREES)} {word}"
    return f"{draw.choice(DOUBTS if doubted else BELIEFS)} {text}" if reported else text


def review(draw: random.Random, verdict: bool, aside: bool, hearsay: float = 0.0) -> str:
    """Return a review with this verdict and this aside."""
    first, second = draw.sample(ASPECTS, 2)
    frame = draw.choice(FRAMES)
    return frame.format(verdict=clause(draw, verdict, first, hearsay), aside=clause(draw, aside, second, hearsay))


def judged(draw: random.Random, verdict: bool, hearsay: float = 0.0) -> str:
    """Return a review with this verdict, its aside drawn."""
    return review(draw, verdict, verdict if draw.random() < AGREEING else not verdict, hearsay)


def sentiment(draw: random.Random) -> Row:
    """Return a review and whether its verdict is good: 0 negative, 1 positive."""
    good = draw.random() < 0.5
    return Row((judged(draw, good, REPORTED),), float(good))


def comparison(draw: random.Random) -> Row:
    """Return two reviews and which has the better verdict: 0 the first, 1 neither, 2 the second."""
    label, good = draw.randrange(3), draw.random() < 0.5
    first, second = ((True, False), (good, good), (False, True))[label]
    return Row((judged(draw, first), judged(draw, second)), float(label))


def preference(draw: random.Random) -> Row:
    """Return two reviews and how much better the first likes its film: verdicts count 1.5 points, asides 1."""
    verdict, aside, other_verdict, other_aside = (draw.random() < 0.5 for _ in range(4))
    score = 2.5 + 1.5 * (verdict - other_verdict) + 1.0 * (aside - other_aside)
    return Row((review(draw, verdict, aside), review(draw, other_verdict, other_aside)), score)


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
