"""Draws: made from the bits of a generator alone, and distributed as they should be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedpkg.partitions.draws import Draws, exp, log


def draws(seed: int = 0) -> Draws:
    return Draws(np.random.default_rng(seed))


def chi_square(times: npt.NDArray[Any], expected: float) -> float:
    """Its mean is the number of degrees of freedom f, its standard deviation sqrt(2 f)."""
    return float(((times - expected) ** 2 / expected).sum())


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The scaled Kolmogorov-Smirnov distance of two samples: of pairs of equal laws, one in 1000 is above 1.95."""
    both = np.sort(np.concatenate([one, other]))
    ranks = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (one, other)]
    return float(np.abs(ranks[0] - ranks[1]).max() * math.sqrt(len(one) * len(other) / len(both)))


@pytest.mark.parametrize("alpha", [[0.1] * 4, [1.0] * 10, [30.0] * 3, [0.2, 1.0, 5.0]], ids=str)
def test_the_shares_of_a_dirichlet_draw_are_distributed_as_numpys(alpha: list[float]) -> None:
    own = draws(1).dirichlet(np.tile(alpha, (20_000, 1)))
    numpys = np.random.default_rng(2).dirichlet(alpha, 20_000)
    assert max(distance(own[:, k], numpys[:, k]) for k in range(len(alpha))) < 2.2
    assert distance(own.max(axis=1), numpys.max(axis=1)) < 2.2
    assert distance(own[:, 0], np.random.default_rng(2).dirichlet(np.array(alpha) * 1.3, 20_000)[:, 0]) > 2.2


def test_logarithm_and_exponential_agree_with_libm() -> None:
    numbers = np.concatenate([2.0 ** np.linspace(-1060, 1020, 999), np.linspace(0.5, 2, 999), [2.0**-54, 1 - 2.0**-53]])
    assert np.allclose(log(numbers), [math.log(number) for number in numbers], rtol=4e-16, atol=1e-16)
    powers = np.linspace(-700, 700, 1999)
    assert np.allclose(exp(powers), [math.exp(power) for power in powers], rtol=1e-15, atol=0)
    assert exp(-1e9) == 0 and exp(0) == 1 and log(1.0) == 0


def test_a_permutation_is_one_and_every_place_is_as_likely() -> None:
    drawn = draws()
    seen = np.zeros((6, 6))
    for _ in range(3000):
        order = drawn.permutation(6)
        assert sorted(order) == list(range(6))
        seen[np.arange(6), order] += 1
    assert np.abs(seen - 500).max() < 5 * math.sqrt(500 * 5 / 6)
    assert draws().permutation(0).tolist() == [] and draws().permutation(1).tolist() == [0]


def test_numbers_below_a_bound_are_equally_likely() -> None:
    drawn = draws()
    times = np.bincount([drawn.below(7) for _ in range(7000)], minlength=7)
    assert len(times) == 7 and chi_square(times, 1000) < 6 + 4 * math.sqrt(2 * 6)
    assert drawn.below(1) == 0


def test_shuffled_codes_are_the_same_codes_and_every_place_is_as_likely() -> None:
    drawn, codes = draws(), np.repeat(np.arange(5), [3, 0, 1, 4, 2])
    times = np.zeros((10, 5))
    for _ in range(2000):
        found = drawn.shuffled(codes, 5)
        assert np.array_equal(np.sort(found), codes)
        times[np.arange(10), found] += 1
    assert np.abs(times / 2000 - np.bincount(codes) / 10).max() < 5 * math.sqrt(0.25 / 2000)
    assert draws().shuffled(np.zeros(3, int), 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("num_codes", [3, 1 << 30])  # with many codes the words have no room for random bits
def test_order_within_codes_is_by_code_and_random_within(num_codes: int) -> None:
    codes = np.arange(3000) % 3
    order = draws().order_within(codes, 3000, num_codes)
    assert np.array_equal(np.sort(order), np.arange(3000)) and np.all(np.diff(codes[order]) >= 0)
    assert abs(np.corrcoef(order[:1000], np.arange(1000))[0, 1]) < 0.15


def test_normal_numbers_have_the_moments_and_quantiles_of_a_normal_distribution() -> None:
    drawn = draws().normal(200_000)
    assert abs(drawn.mean()) < 0.01 and abs(drawn.var() - 1) < 0.015
    assert np.allclose(np.quantile(drawn, [0.025, 0.1587, 0.8413, 0.975]), [-1.96, -1, 1, 1.96], atol=0.02)


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 30.0])
def test_gamma_draws_have_mean_and_variance_equal_to_their_shape(shape: float) -> None:
    drawn = np.exp(draws().log_gamma(np.full(100_000, shape)))
    assert abs(drawn.mean() - shape) < 6 * math.sqrt(shape / 100_000)
    assert np.isclose(drawn.var(), shape, rtol=0.12)


def test_dirichlet_shares_have_the_variance_of_the_distribution_also_with_a_tiny_alpha() -> None:
    """A share of Dir_K(alpha) has mean 1/K and variance (K - 1) / (K^2 (K alpha + 1))."""
    for alpha in (1e-4, 0.3, 100.0):
        shares = draws().dirichlet(np.full((20_000, 4), alpha))
        assert np.isfinite(shares).all() and np.allclose(shares.sum(axis=1), 1)
        assert np.allclose(shares.mean(axis=0), 0.25, atol=0.02)
        assert np.isclose(shares.var(), 3 / (16 * (4 * alpha + 1)), rtol=0.05)
