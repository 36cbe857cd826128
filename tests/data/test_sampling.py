"""Task samplers: each law against NumPy, and BAM's own numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from kd_lightning.data.sampling import annealed, probabilities, proportional, size_power, sqrt, temperature, uniform

SIZES = np.array([2490.0, 8551.0, 67349.0, 392702.0])

# BAM's own sizes (MRPC and STS doubled, QNLI v1) and its probabilities with exponent 0.75.
BAM = {
    "cola": (8551, 0.0203),
    "mnli": (392702, 0.3581),
    "mrpc": (7336, 0.0181),
    "qnli": (108436, 0.1364),
    "qqp": (363869, 0.3382),
    "sst": (67349, 0.0954),
    "sts": (11498, 0.0253),
    "rte": (2490, 0.0080),
}
SAMPLERS = [
    pytest.param(proportional, lambda n: n, id="proportional"),
    pytest.param(uniform, lambda n: np.ones(4), id="uniform"),
    pytest.param(size_power, lambda n: n**0.75, id="size_power"),
    pytest.param(partial(size_power, exponent=0.3), lambda n: n**0.3, id="size_power 0.3"),
    pytest.param(sqrt, lambda n: n**0.5, id="sqrt"),
    pytest.param(annealed, lambda n: n ** (1 - 0.8 * 0.25), id="annealed"),
    pytest.param(partial(annealed, decay=0.4), lambda n: n ** (1 - 0.4 * 0.25), id="annealed 0.4"),
    pytest.param(temperature, lambda n: n ** (1 / 2), id="temperature"),
    pytest.param(partial(temperature, temperature=5.0, cap=3e4), lambda n: np.minimum(n, 3e4) ** 0.2, id="capped"),
]


@pytest.mark.parametrize(("sampler", "formula"), SAMPLERS)
def test_against_numpy(sampler, formula):
    """An exponent turned over (4/3 for 3/4): the largest task drowns the others, the opposite of the aim."""
    np.testing.assert_allclose(sampler(SIZES, 0.25), formula(SIZES))
    assert probabilities(sampler, dict(zip("abcd", SIZES, strict=True)), 0.25).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("sampler", "_"), SAMPLERS)
def test_order_of_tasks_means_nothing(sampler, _):
    """A sampler that sorts gives each task another's probability."""
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(sampler(SIZES[order], 0.5), sampler(SIZES, 0.5)[order])


@pytest.mark.parametrize(("sampler", "_"), SAMPLERS)
def test_between_uniform_and_proportional(sampler, _):
    """Larger tasks more often, but never more than their share; and sizes are not changed in place."""
    sizes = SIZES.copy()
    p = sampler(sizes, 0.7) / sampler(sizes, 0.7).sum()
    assert (np.diff(p) >= -1e-12).all()
    assert (np.diff(p / SIZES) <= 1e-15).all()
    np.testing.assert_array_equal(sizes, SIZES)


def test_bams_probabilities():
    """The sampling of the paper, which an ablation values at 0.4 points."""
    found = probabilities(size_power, {name: size for name, (size, _) in BAM.items()}, 0.3)
    np.testing.assert_allclose(found, [p for _, p in BAM.values()], atol=5e-5)


@pytest.mark.parametrize(
    ("progress", "exponent"), [pytest.param(0.0, 1.0, id="start: proportional"), pytest.param(1.0, 0.2, id="end")]
)
def test_pals_ends(progress, exponent):
    """PALs annealed towards uniform, not away from it."""
    np.testing.assert_allclose(annealed(SIZES, progress), SIZES**exponent)


def test_annealed_is_the_only_one_that_changes():
    """A sampler that forgets, or invents, progress."""
    for parameter in SAMPLERS:
        sampler = parameter.values[0]
        moves = not np.allclose(sampler(SIZES, 0.0), sampler(SIZES, 1.0))
        assert moves == ("annealed" in parameter.id), parameter.id


def test_cap():
    """Without the cap the one huge task takes all; a cap below all sizes is uniform."""
    assert len(np.unique(temperature(SIZES, cap=1000.0))) == 1
    np.testing.assert_array_equal(temperature(SIZES, cap=1e9), temperature(SIZES))
    np.testing.assert_array_equal(temperature(SIZES, temperature=1.0), proportional(SIZES))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        pytest.param(partial(temperature, temperature=0.0), "temperature is 0.0, expected 1 .* or more", id="cold"),
        pytest.param(partial(temperature, temperature=0.5), "temperature is 0.5, expected 1 .* or more", id="inverse"),
        pytest.param(partial(temperature, temperature=np.nan), "temperature is nan, expected 1", id="no temperature"),
        pytest.param(partial(temperature, cap=0.0), "cap is 0.0, expected a number above 0, or null", id="cap"),
        pytest.param(partial(annealed, decay=2.0), "decay is 2.0, expected a number from 0 .* to 1", id="turned over"),
        pytest.param(partial(annealed, decay=-0.1), "decay is -0.1, expected a number from 0", id="away from uniform"),
        pytest.param(partial(size_power, exponent=1.5), "exponent is 1.5, expected a number from 0", id="drowning"),
        pytest.param(partial(size_power, exponent=-0.75), "exponent is -0.75, expected a number from 0", id="sign"),
    ],
)
def test_laws_that_turn_over_are_refused(sampler, message):
    """A decay of 2 ends with the smallest task drawn most; it trains, and nobody notices."""
    with pytest.raises(ValueError, match=message):
        sampler(SIZES, 0.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_unusable_weights_are_refused(weight):
    """A task of weight 0 is trained on nothing and reported as if it had been."""
    with pytest.raises(ValueError, match=r"task weights must be positive and finite, got .*'b'"):
        probabilities(lambda sizes, progress: np.array([1.0, weight]), {"a": 1, "b": 2}, 0.0)
