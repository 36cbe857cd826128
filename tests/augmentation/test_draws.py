"""Random numbers by what they are for: equal for equal keys, uniform and independent for others."""

import numpy as np
import pytest

from kd_lightning.augmentation.draws import Distinct, combined, mixed, uniform


def test_the_mixer_is_splitmix64():
    """The first output of the published generator from seed 0, and no two inputs alike."""
    assert mixed(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF
    assert len(np.unique(mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000


def test_draws_depend_on_their_keys_alone():
    """Neither on the order in which they are asked for nor on what else is asked for."""
    whole = uniform(3, np.arange(50), 7)
    one_by_one = [uniform(3, i, 7)[0] for i in reversed(range(50))]
    assert whole.tolist() == one_by_one[::-1]
    assert uniform(np.arange(4), -5).shape == (4,)


@pytest.mark.parametrize(
    "keys",
    [(1, np.arange(200_000)), (np.arange(200_000), 1), (1, 2**62 + np.arange(200_000), 3), (1, -np.arange(200_000))],
)
def test_draws_are_uniform(keys):
    """Mean, spread, correlation of neighbours, and each tenth as often."""
    drawn = uniform(*keys)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 1 / 2) < 0.003
    assert abs(drawn.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01
    assert np.abs(np.bincount((10 * drawn).astype(int)) / 20_000 - 1).max() < 0.03


def test_other_keys_are_independent():
    """Seed 1 of row 2 is not seed 2 of row 1, and neighbouring seeds share nothing."""
    first, second = uniform(1, np.arange(100_000)), uniform(2, np.arange(100_000))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert combined(1, 2) != combined(2, 1)
    assert combined(1) != combined(1, 0)


def test_distinct_is_what_a_set_remembers():
    """The first of equal ones, within a batch and over batches."""
    generator, distinct, seen = np.random.default_rng(0), Distinct(), set()
    for _ in range(20):
        rows = generator.integers(0, 300, 50).astype(np.uint64)
        expected = []
        for row in rows.tolist():
            expected.append(row not in seen)
            seen.add(row)
        assert distinct.first_met(rows).tolist() == expected
    assert distinct.first_met(np.empty(0, np.uint64)).tolist() == []
