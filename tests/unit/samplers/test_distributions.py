"""What is drawn has the chances that it should: tests of fit, with fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from candidates import candidates, places, sample

from fedpkg.samplers import make_sampler
from fedpkg.samplers.availability import Availability
from fedpkg.samplers.base import Candidates


def times(section: dict[str, Any], of: Candidates, draws: int = 2000) -> np.ndarray[Any, Any]:
    """How often each was asked."""
    sampler, rng, counts = make_sampler(section), np.random.default_rng(7), np.zeros(len(of))
    for _ in range(draws):
        counts[places(sampler.sample(of, rng), of)] += 1
    return counts


def fits(counts: Sequence[float] | np.ndarray[Any, Any], chances: Sequence[float] | np.ndarray[Any, Any]) -> bool:
    """Chi-square of one draw at a time, at the 0.1 % level, of up to 8 classes; chance of nothing: never."""
    observed, expected = np.asarray(counts), np.asarray(chances) / np.sum(chances) * np.sum(counts)
    assert not observed[expected == 0].any()
    observed, expected = observed[expected > 0], expected[expected > 0]
    limit = {0: 1e-9, 1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}[len(expected) - 1]
    return bool(((observed - expected) ** 2 / expected).sum() < limit)


def asked_when_drawn_successively(weights: Sequence[float], number: int) -> np.ndarray[Any, Any]:
    """P(k is asked) where one after the other is drawn by weight, by counting all orders."""
    chances = np.zeros(len(weights))
    for order in permutations(range(len(weights)), number):
        p, left = 1.0, sum(weights)
        for k in order:
            p, left = p * weights[k] / left, left - weights[k]
        chances[list(order)] += p
    return chances


def near(counts: np.ndarray[Any, Any], chances: np.ndarray[Any, Any], draws: int = 2000) -> bool:
    """Each count within 4 standard deviations of the binomial; for cohorts, whose members are not independent."""
    return bool((np.abs(counts - draws * chances) <= 4 * np.sqrt(draws * chances * (1 - chances)) + 1e-9).all())


def test_uniform_gives_every_client_the_same_chance() -> None:
    assert fits(times({"count": 1}, candidates(8)), np.ones(8))
    assert near(times({"fraction_train": 0.25}, candidates(12)), np.full(12, 0.25))


def test_weighted_draws_by_examples_and_one_who_said_nothing_counts_as_the_average() -> None:
    of = candidates(5, examples=[1, 2, 0, 5, None])
    assert fits(times({"name": "weighted", "count": 1}, of), [1, 2, 0, 5, 2])
    chances = asked_when_drawn_successively([1, 2, 0, 5, 2], 2)
    assert near(times({"name": "weighted", "count": 2}, of), chances)
    assert fits(times({"name": "weighted", "count": 1}, candidates(3)), np.ones(3)), "nobody said anything"


def test_weighted_cohorts_make_the_plain_mean_that_of_all_examples() -> None:
    """With equal weights: one draw at a time is unbiased."""
    examples, values = np.array([1.0, 2, 3, 10]), np.array([4.0, -1, 0, 2])
    counts = times({"name": "weighted", "count": 1}, candidates(4, examples=examples.tolist()), 6000)
    assert counts @ values / counts.sum() == pytest.approx(examples @ values / examples.sum(), abs=0.05)


def test_least_reused_draws_among_equals_and_asks_all_before_one_twice() -> None:
    of = candidates(6, asked=[3, 1, 1, 2, 1, 1])
    assert fits(times({"name": "least_reused", "count": 1}, of), [0, 1, 1, 0, 1, 1])
    counts, asked = np.zeros(10, int), []
    for round_number in range(10):
        of = candidates(10, asked=counts.tolist())
        chosen = places(sample({"name": "least_reused", "count": 3}, of, round_number), of)
        counts[chosen] += 1
        asked.append(tuple(chosen))
        assert counts.max() - counts.min() <= 1
    assert len(set(asked)) > 5, "not in the same order again and again"


def test_round_robin_takes_turns_and_makes_up_for_turns_that_were_missed() -> None:
    counts, cohorts = np.zeros(5, int), []
    for round_number in range(7):
        of = candidates(5, asked=counts.tolist())
        there = [0, 1, 3, 4] if round_number == 1 else None  # client 2 is away when its turn comes
        chosen = places(sample({"name": "round_robin", "count": 2}, of, round_number, there=there), of)
        counts[chosen] += 1
        cohorts.append(chosen)
    assert cohorts == [[0, 1], [3, 4], [0, 2], [1, 2], [3, 4], [0, 1], [2, 3]]


def test_importance_draws_by_what_was_reported_and_forgets_nobody() -> None:
    losses = [1.0, 3.0, None, -2.0, 0.0]
    of = candidates(5, losses=losses)
    scores = np.array([1, 3, 3, 0, 0])  # who said nothing counts as the highest
    assert fits(times({"name": "importance", "count": 1, "explore": 0.0}, of), scores)
    assert fits(times({"name": "importance", "count": 1, "explore": 0.0, "exponent": 2}, of), scores**2)
    explored = 0.7 * scores / scores.sum() + 0.3 / 5
    assert fits(times({"name": "importance", "count": 1, "explore": 0.3}, of), explored)
    pairs = asked_when_drawn_successively(explored.tolist(), 2)
    assert near(times({"name": "importance", "count": 2, "explore": 0.3}, of), pairs)
    assert fits(times({"name": "importance", "count": 1}, candidates(4, losses=[0.0] * 4)), np.ones(4))
    assert fits(times({"name": "importance", "count": 1}, candidates(4)), np.ones(4)), "before anybody was asked"
    huge = candidates(3, losses=[1e308, 1e300, 1e-300])
    assert fits(times({"name": "importance", "count": 1, "exponent": 9, "explore": 0.0}, huge), [1, 0, 0])


def test_power_of_choice_takes_the_highest_losses_of_candidates_drawn_by_examples() -> None:
    of = candidates(5, examples=[1, 1, 2, 4, 2], losses=[5.0, 4.0, 3.0, 2.0, 1.0])
    pairs = np.zeros(5)
    for first, second in permutations(range(5), 2):  # of two candidates, the first in the list has the higher loss
        n = [1, 1, 2, 4, 2]
        pairs[min(first, second)] += n[first] / 10 * n[second] / (10 - n[first])
    assert fits(times({"name": "power_of_choice", "count": 1, "candidates": 2}, of), pairs)
    assert fits(times({"name": "power_of_choice", "count": 1}, of), pairs), "twice as many as are asked"
    everybody = {"name": "power_of_choice", "count": 2, "candidates": 9}
    assert places(sample(everybody, of), of) == [0, 1]
    unknown = candidates(5, losses=[5.0, None, 3.0, 2.0, None])
    assert places(sample(everybody, unknown), unknown) == [1, 4], "whose loss is unknown comes first"
    assert fits(times({**everybody, "count": 1}, unknown), [0, 1, 0, 0, 1])
    assert fits(times({**everybody, "count": 1}, candidates(4)), np.ones(4)), "before anybody was asked"


@pytest.mark.parametrize("section", [{"fraction_train": 0.3}, {"count": 3}])
def test_poisson_asks_each_client_for_itself(section: dict[str, Any]) -> None:
    sampler, of, rng = make_sampler({"name": "poisson", **section}), candidates(10), np.random.default_rng(3)
    cohorts = np.zeros((2000, 10))
    for number in range(2000):
        found = sampler.sample(of, rng)
        assert found.target == len(found.clients)
        cohorts[number, places(found, of)] = 1
    assert near(cohorts.sum(axis=0), np.full(10, 0.3))
    sizes = np.bincount(cohorts.sum(axis=1).astype(int), minlength=11)
    binomial = [1.0]
    for _ in range(10):
        binomial = [0.7 * a + 0.3 * b for a, b in zip([*binomial, 0], [0, *binomial], strict=True)]
    grouped = [sizes[0], *sizes[1:7], sizes[7:].sum()]
    assert sizes[0] > 0 and fits(grouped, [*binomial[:7], sum(binomial[7:])]), "cohorts may be empty"
    together = (cohorts[:, 0] * cohorts[:, 1]).sum()
    assert near(np.array([together]), np.array([0.09])), "two clients have nothing to do with each other"


def test_poisson_keeps_its_chance_when_some_are_away() -> None:
    """`count` is of all who may train, or who is away would change the chance of the others."""
    sampler, of, rng = make_sampler({"name": "poisson", "count": 3}), candidates(10), np.random.default_rng(3)
    counts = np.zeros(10)
    for _ in range(2000):
        counts[places(sampler.sample(of, rng, there=[0, 1, 2]), of)] += 1
    assert near(counts, np.array([0.3] * 3 + [0.0] * 7))


def test_availability_by_chance() -> None:
    ids, rng, counts = candidates(10).client_ids, np.random.default_rng(3), np.zeros(10)
    for _ in range(2000):
        counts[Availability(rate=0.8).places(ids, 1, rng)] += 1
    assert near(counts, np.full(10, 0.8))
    assert Availability(rate=1.0).places(ids, 1, rng) == list(range(10))
