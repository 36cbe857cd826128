"""Tests over rows: rows that are alike are counted, others drawn, and both are the same test."""

import math
import tracemalloc

import numpy as np
import pytest

from kd_lightning.apps.reports import paired_rows
from kd_lightning.apps.reports.paired_rows import Metric, alike, over_rows, pearson, pearson_of_samples, sign_flips
from kd_lightning.apps.reports.statistics import holm


def students(rows, seeds=3, seed=0, rates=(0.8, 0.75)):
    """Return the values for rows of two students, 100 where they are right, ``[S, N]`` each."""
    rng = np.random.default_rng(seed)
    hard = rng.random(rows)
    return tuple(100.0 * (0.5 * hard + 0.5 * rng.random((seeds, rows)) < rate) for rate in rates)


def exact(differences):
    """Return the p of all signs, of differences that are whole numbers: the law of their sum, row by row."""
    ways = {0: 1.0}
    for size in np.abs(differences):
        found = {}
        for total, share in ways.items():
            for end in (total - size, total + size):
                found[end] = found.get(end, 0.0) + share / 2
        ways = found
    return sum(share for total, share in ways.items() if abs(total) >= abs(differences.sum()))


def plain(rows, draws=4000):
    """Return the p of signs that are drawn row by row."""
    signs = np.random.default_rng(7).choice([-1.0, 1.0], (draws, len(rows)))
    return np.mean(np.abs(signs @ rows) / len(rows) >= abs(rows.mean()) - 1e-9)


def error(p, draws):
    """Return how far a p of draws may be from its own by chance."""
    return 4.5 * math.sqrt(p * (1 - p) / draws) + 1 / draws


@pytest.mark.parametrize(
    ("rows", "seeds", "rates"), [(300, 1, (0.7, 0.68)), (400, 3, (0.7, 0.68)), (400, 3, (0.7, 0.7))]
)
def test_flips_of_rows_that_are_alike_are_flips_of_rows(rows, seeds, rates):
    one, other = students(rows, seeds, rates=rates)
    mean = (one - other).mean(0)
    assert alike(mean) is not None
    expected = exact(np.round((one - other).sum(0) / 100).astype(int))
    found = sign_flips(one, other, np.random.default_rng(1))
    assert 0.001 < expected < 1
    assert found == pytest.approx(expected, abs=error(expected, paired_rows.FLIPS))
    assert plain(mean) == pytest.approx(expected, abs=error(expected, 4000))


def test_rows_that_are_alike_have_the_mean_of_all():
    """Exactly: a third and two thirds are the same values, however they were computed."""
    one, other = students(5000)
    rows = (one - other).mean(0)
    values, counts = alike(rows)
    assert len(values) == 7
    assert counts.sum() == len(rows)
    assert values @ counts / len(rows) == pytest.approx(rows.mean(), abs=1e-10)
    for value, count in zip(values, counts, strict=True):
        assert np.isclose(rows, value).sum() == count
    assert alike(np.random.default_rng(0).normal(size=5000)) is None


def test_counted_and_drawn_rows_are_one_test():
    """Values that differ by nothing that counts, and are drawn one by one."""
    one, other = students(600, rates=(0.8, 0.79))
    apart = one + np.random.default_rng(3).normal(0, 1e-8, 600)
    assert alike((apart - other).mean(0)) is None
    metric = Metric("accuracy", np.ones(600), None)
    intervals = [over_rows(metric, each, other, np.random.default_rng(4)) for each in (one, apart)]
    half = (intervals[0][1] - intervals[0][0]) / 2
    assert intervals[0] == pytest.approx(intervals[1], abs=0.06 * half)
    counted, drawn = (sign_flips(each, other, np.random.default_rng(5)) for each in (one, apart))
    assert counted == pytest.approx(drawn, abs=2 * error(counted, paired_rows.FLIPS))
    assert 0.01 < counted < 0.6


def test_a_p_is_no_lower_than_its_draws_can_tell():
    """Zero, which no correction for many tests would raise."""
    one, other = students(2000, rates=(0.95, 0.5))
    found = sign_flips(one, other, np.random.default_rng(0))
    assert found == pytest.approx(1 / (1 + paired_rows.FLIPS))
    assert holm([found] * 28)[0] > 0.001


def test_a_correlation_of_a_sample_is_that_of_its_rows():
    rng = np.random.default_rng(0)
    labels = 3 + rng.normal(size=50)
    found = np.stack([1000 + labels + rng.normal(size=50), -labels + rng.normal(size=50)])
    counts = rng.multinomial(50, np.full(50, 1 / 50), 6)
    expected = [[pearson(np.repeat(one, times), np.repeat(labels, times)) for times in counts] for one in found]
    assert pearson_of_samples(found, labels, counts.astype(float)) == pytest.approx(np.array(expected), abs=1e-8)


@pytest.mark.parametrize("name", ["pearson", "mrr"])
def test_memory_does_not_grow_with_rows(monkeypatch, name):
    """Blocks of 500 draws were a gigabyte of 40,000 rows; and the size of a block changes no draw."""
    monkeypatch.setattr(paired_rows, "SAMPLES", 60)
    monkeypatch.setattr(paired_rows, "FLIPS", 60)
    rng = np.random.default_rng(0)
    labels = rng.normal(size=20_000)
    one, other = (labels + rng.normal(size=(2, 20_000)) for _ in range(2))
    metric, found = Metric(name, labels, None), []
    for cells in (20_000, 10**7):
        monkeypatch.setattr(paired_rows, "CELLS", cells)
        tracemalloc.start()
        results = [*over_rows(metric, one, other, np.random.default_rng(1))]
        results.append(sign_flips(one, other, np.random.default_rng(1)))
        found.append((results, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    assert found[0][0] == pytest.approx(found[1][0])
    assert found[0][1] < 15e6 < found[1][1]
