"""Annealing: gold labels take over from the teacher once, in order, and never more than wholly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from kd_lightning.annealing import Constant, Cosine, Linear

GROWING = [pytest.param(Linear(), id="linear"), pytest.param(Cosine(), id="cosine")]
ALL = [*GROWING, pytest.param(Constant(0.3), id="constant")]


@pytest.mark.parametrize("schedule", GROWING)
def test_from_teacher_to_gold(schedule):
    """A reversed schedule unlearns the gold labels at the end, and still trains without a word."""
    values = [schedule(progress) for progress in np.linspace(0, 1, 101)]
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0)
    assert all(later > earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("progress", [-0.5, 0.0, 0.5, 1.0, 1.2, 6.0])
def test_never_outside_the_unit_interval(schedule, progress):
    """Progress counted in one epoch's steps exceeds 1 later, and the teacher's weight becomes negative."""
    assert 0.0 <= schedule(progress) <= 1.0
    assert schedule(progress) == schedule(min(1.0, max(0.0, progress)))


@pytest.mark.parametrize("schedule", GROWING)
def test_halves_mirror_each_other(schedule):
    """A lopsided schedule gives the teacher another share of the run than the paper's half."""
    for progress in (0.0, 0.1, 0.25, 0.5):
        assert schedule(progress) + schedule(1 - progress) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        pytest.param(Linear(), 0.25, 0.25, id="linear"),
        pytest.param(Cosine(), 0.25, (1 - math.sqrt(0.5)) / 2, id="cosine"),
        pytest.param(Constant(0.0), 0.9, 0.0, id="teacher alone"),
        pytest.param(Constant(0.5), 0.9, 0.5, id="average"),
        pytest.param(Constant(1.0), 0.1, 1.0, id="gold alone"),
    ],
)
def test_values(schedule, progress, expected):
    """The numbers of BAM's section 3 and its ablations."""
    assert schedule(progress) == pytest.approx(expected)


@pytest.mark.parametrize("gold_weight", [-0.1, 1.1, math.nan, math.inf])
def test_constant_refuses(gold_weight):
    """A weight of 10 for 0.1 gives the teacher the weight -9."""
    with pytest.raises(ValueError, match=r"gold_weight is .*, expected a number in \[0, 1\]"):
        Constant(gold_weight)
