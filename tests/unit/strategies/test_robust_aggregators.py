"""Robust aggregators against brute force in float64, and what holds of all of them."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from cohorts import close, flat, replies, section_of, stacked, stepped, told, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.strategies.aggregators.bulyan import Bulyan
from fedpkg.strategies.aggregators.centered_clipping import CenteredClipping
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.aggregators.trimmed_mean import TrimmedMean
from fedpkg.strategies.registry import STRATEGIES, make_strategy
from fedpkg.strategies.updates.distances import squared_distances, squared_distances_by_pair
from fedpkg.strategies.updates.held import Updates
from fedpkg.strategies.updates.order import in_order
from fedpkg.weights.weights import Weights

MODEL = weights(1000)
ROBUST = [
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
    "rfa",
    "centered_clipping",
    "norm_bounding",
    "bucketing",
]


def cohort(count: int, *, seed: int = 0) -> list[Weights]:
    return [weights(seed * 1000 + number) for number in range(count)]


# ---- brute force: all in float64, on whole vectors, as the papers' equations say


def krum_order(vectors: Tensor, attackers: int) -> list[int]:
    count = len(vectors)
    scores = []
    for i in range(count):
        distances = sorted(float((vectors[i] - vectors[j]).square().sum()) for j in range(count) if j != i)
        scores.append((sum(distances[: max(count - attackers - 2, 1)]), sum(distances)))
    return sorted(range(count), key=lambda k: (*scores[k], k))


def bulyan(vectors: Tensor, attackers: int) -> Tensor:
    left, chosen = list(range(len(vectors))), []
    for _ in range(len(vectors) - 2 * attackers):
        chosen.append(left.pop(krum_order(vectors[left], attackers)[0]))
    picked = vectors[chosen]
    median = picked.quantile(0.5, dim=0)
    nearest = (picked - median).abs().sort(dim=0, stable=True).indices[: len(chosen) - 2 * attackers]
    return picked.gather(0, nearest).mean(dim=0)


def geometric_median(vectors: Tensor) -> Tensor:
    point = vectors.quantile(0.5, dim=0)
    for _ in range(2000):
        inverse = 1 / (vectors - point).norm(dim=1).clamp(min=1e-6)
        point = (inverse[:, None] * vectors).sum(dim=0) / inverse.sum()
    return point


def clipped(vectors: Tensor, centre: Tensor, bound: float | None) -> Tensor:
    steps = vectors - centre
    norms = steps.norm(dim=1)
    radius = norms.sort().values[(len(norms) - 1) // 2] if bound is None else bound
    return centre + (steps * (radius / norms).clamp(max=1)[:, None]).mean(dim=0)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 20, 64, 65, 70])
def test_median_is_that_of_each_coordinate(count: int) -> None:
    updates = cohort(count)
    close(told({"name": "median"}, MODEL, updates), stacked(updates).quantile(0.5, dim=0))


@pytest.mark.parametrize(
    ("count", "beta", "trimmed"), [(5, 0.2, 1), (9, 0.2, 1), (100, 0.29, 29), (3, 0.4, 1), (4, 0, 0), (7, 3 / 7, 3)]
)
def test_trimmed_mean_leaves_out_both_ends(count: int, beta: float, trimmed: int) -> None:
    updates = cohort(count)
    assert TrimmedMean(beta).stands(count) == trimmed
    kept = stacked(updates).sort(dim=0).values[trimmed : count - trimmed]
    close(told({"name": "trimmed_mean", "beta": beta}, MODEL, updates), kept.mean(dim=0))


def test_trimmed_mean_of_a_share_that_a_program_computed_stands_as_many_attackers() -> None:
    for count in range(1, 200):
        for attackers in range((count + 1) // 2):
            assert TrimmedMean(attackers / count).stands(count) == attackers


def test_trimmed_mean_is_told_its_attackers_as_others_are() -> None:
    updates = cohort(7)
    by_count = told({"name": "trimmed_mean", "attackers": 2}, MODEL, updates)
    assert by_count.equal(told({"name": "trimmed_mean", "beta": 2 / 7}, MODEL, updates))
    assert TrimmedMean(attackers=2).needs == 5 and TrimmedMean().needs == 1
    with pytest.raises(AggregationError, match="TrimmedMean needs 5 updates, there are 4"):
        told({"name": "fedtrimmedavg", "attackers": 2}, MODEL, updates[:4])


@pytest.mark.parametrize(("count", "attackers"), [(5, 1), (7, 2), (9, 0), (20, 5)])
def test_krum_takes_the_update_nearest_to_its_neighbours(count: int, attackers: int) -> None:
    updates = cohort(count, seed=count)
    best = krum_order(stacked(updates), attackers)[0]
    made = told({"name": "krum", "attackers": attackers}, MODEL, updates)
    assert all(torch.equal(made[name], updates[best][name]) for name in made.parameters)


@pytest.mark.parametrize(("select", "expected"), [(None, 6), (3, 3), (1, 1)])
def test_multi_krum_is_the_mean_of_the_best(select: int | None, expected: int) -> None:
    updates = cohort(10)
    best = krum_order(stacked(updates), 2)[:expected]
    made = told({"name": "multi_krum", "attackers": 2, "select": select}, MODEL, updates)
    close(made, stacked(updates)[best].mean(dim=0))


@pytest.mark.parametrize(("count", "attackers"), [(7, 1), (8, 1), (11, 2), (12, 2), (3, 0)])
def test_bulyan_is_the_mean_around_the_median_of_what_krum_selects(count: int, attackers: int) -> None:
    updates = cohort(count, seed=count)
    close(told({"name": "bulyan", "attackers": attackers}, MODEL, updates), bulyan(stacked(updates), attackers))


@pytest.mark.parametrize("count", [1, 3, 8, 21])
def test_geometric_median_has_the_least_sum_of_distances(count: int) -> None:
    updates = cohort(count)
    made = told({"name": "rfa", "steps": 500}, MODEL, updates)
    close(made, geometric_median(stacked(updates)), tolerance=1e-4)


@pytest.mark.parametrize("bound", [None, 0.5, 1e6])
def test_norm_bounding_clips_steps_from_the_global_model(bound: float | None) -> None:
    updates = cohort(9)
    made = told({"name": "norm_bounding", "max_norm": bound}, MODEL, updates)
    close(made, clipped(stacked(updates), flat(MODEL), bound))


@pytest.mark.parametrize("name", ["norm_bounding", "centered_clipping"])
def test_bounds_are_not_rounded_to_float32(name: str) -> None:
    model = Weights({"w": torch.zeros(2, dtype=torch.float64)})
    made = told({"name": name, "max_norm": 0.7}, model, [Weights({"w": torch.tensor([3.0, 4.0]).double()})])
    assert float(made["w"].norm()) == pytest.approx(0.7, rel=1e-14)


def test_centred_clipping_clips_around_the_last_step() -> None:
    first, second = cohort(9), cohort(9, seed=1)
    aggregator = CenteredClipping(max_norm=2.0, iterations=2)
    rng = torch.Generator()
    one, memory = aggregator.aggregate_next(replies(first), MODEL, {}, rng)  # type: ignore[arg-type]
    expected = clipped(stacked(first), clipped(stacked(first), flat(MODEL), 2.0), 2.0)
    close(one, expected)
    two, _ = aggregator.aggregate_next(replies(second), one, memory, rng)  # type: ignore[arg-type]
    start = flat(one) + (expected - flat(MODEL))
    close(two, clipped(stacked(second), clipped(stacked(second), start, 2.0), 2.0), tolerance=1e-5)


def test_fltrust_weighs_by_the_cosine_with_the_trusted_step() -> None:
    updates = cohort(6)
    made = told(section_of("fltrust of a client"), MODEL, updates)
    steps = stacked(updates) - flat(MODEL)
    norms = steps.norm(dim=1)
    trust = (steps[1:] @ steps[0] / (norms[1:] * norms[0])).clamp(min=0)
    expected = flat(MODEL) + ((trust * norms[0] / norms[1:])[:, None] * steps[1:]).sum(dim=0) / trust.sum()
    close(made, expected)
    assert torch.equal(made["bn.running_var"], updates[0]["bn.running_var"])


def test_fltrust_by_the_server_is_that_by_a_client_and_leaves_sampled_ones_alone() -> None:
    """The server is the first client; each of the others counts as when the first is trusted by name."""
    updates = cohort(6)
    strategy = make_strategy({"name": "fltrust"})
    state = stepped(strategy, strategy.init(MODEL), updates)
    assert state["model"].equal(told(section_of("fltrust of a client"), MODEL, updates))
    moved = make_strategy({"name": "fltrust", "server_optimiser": {"name": "sgd", "learning_rate": 0.5, "momentum": 0}})
    half = stepped(moved, moved.init(MODEL), updates)["model"]
    close(half, (flat(MODEL) + flat(state["model"])) / 2, tolerance=1e-3)


def test_fltrust_without_its_trusted_client_is_an_error() -> None:
    with pytest.raises(AggregationError, match="the trusted client 'client-9' did not answer"):
        told({"aggregator": {"name": "fltrust", "trusted": "client-9"}}, MODEL, cohort(3))


def test_bucketing_aggregates_means_of_drawn_buckets() -> None:
    import numpy as np

    updates = cohort(7)
    made = told({"name": "bucketing", "inner": "median", "size": 3}, MODEL, updates)
    draw = int(np.random.default_rng(0).integers(1 << 62))
    drawn = np.random.default_rng(draw).permutation(7).tolist()
    vectors = stacked(updates)
    means = torch.stack([vectors[drawn[at : at + 3]].mean(dim=0) for at in (0, 3, 6)])
    close(made, means.quantile(0.5, dim=0))


def test_bucketing_gives_means_to_what_takes_groups_itself() -> None:
    """Bulyan selects among the means; not among the first updates, whose places these have."""
    import numpy as np

    updates = [weights(k, scale=1.0 if k < 7 else 30.0) for k in range(14)]
    made = told({"name": "bucketing", "inner": {"name": "bulyan", "attackers": 1}}, MODEL, updates)
    drawn = np.random.default_rng(int(np.random.default_rng(0).integers(1 << 62))).permutation(14).tolist()
    vectors = stacked(updates)
    means = torch.stack([vectors[drawn[at : at + 2]].mean(dim=0) for at in range(0, 14, 2)])
    close(made, bulyan(means, 1))


# ---- what holds of all


@pytest.mark.parametrize("name", ROBUST)
def test_one_client_is_returned_as_it_is(name: str) -> None:
    update = weights(3)
    section = {"name": name}
    spec = STRATEGIES.find("strategy", name, None, ())  # type: ignore[arg-type]
    if "attackers" in spec.parameters:
        with pytest.raises(AggregationError, match=r"needs \d updates, there are 1"):
            told({**section, "attackers": 1}, MODEL, [update])
        return
    assert told(section, MODEL, [update]).equal(update)


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan", "rfa", "norm_bounding"])
def test_order_of_the_clients_does_not_matter(name: str) -> None:
    updates = cohort(9)
    made = told({"name": name}, MODEL, updates)
    shuffled = random.Random(0).sample(updates, len(updates))
    again = told({"name": name}, MODEL, shuffled)
    if name in ("fedmedian", "fedtrimmedavg", "krum"):
        assert made.equal(again), "to the bit"
    close(again, flat(made), tolerance=1e-6)
    for buffer in made.buffers:
        assert torch.equal(made[buffer], again[buffer])


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("size", [1e3, 1e18])
def test_an_attacker_moves_the_model_no_further_than_honest_clients_do(name: str, size: float) -> None:
    """One attacker of nine, first in the cohort, sends noise of any size (half precision aside) and false buffers."""
    honest = [Weights({"w": tensor["fc.weight"], "v": tensor["bn.running_var"]}, buffers=["v"]) for tensor in cohort(8)]
    model = Weights({"w": MODEL["fc.weight"], "v": MODEL["bn.running_var"]}, buffers=["v"])
    attack = Weights({"w": weights(99, scale=size)["fc.weight"], "v": torch.full((6,), -size)}, buffers=["v"])
    section = {"name": name} if name != "bucketing" else {"name": name, "inner": "median"}
    made = told(section, model, [attack, *honest], examples=[1e9, *[1.0] * 8])
    reach = max(float((update["w"] - model["w"]).norm()) for update in honest)
    assert float((made["w"] - model["w"]).norm()) <= 1.5 * reach
    low = torch.stack([update["v"] for update in honest]).amin(dim=0)
    assert torch.all(made["v"] >= low), "no negative variance"


@pytest.mark.parametrize("name", ROBUST)
def test_number_of_threads_does_not_change_a_bit(name: str) -> None:
    updates = [Weights({"w": torch.randn(50_000, generator=torch.Generator().manual_seed(n))}) for n in range(9)]
    model = Weights({"w": torch.zeros(50_000)})
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(told({"name": name}, model, updates))
    finally:
        torch.set_num_threads(before)
    assert made[0].equal(made[1]) and made[0].equal(made[2])


def test_integers_are_what_some_client_sent_and_not_who_says_it_has_most() -> None:
    updates = cohort(5)
    made = told({"name": "median"}, MODEL, updates, examples=[1e9, 1, 1, 1, 1])
    assert made["bn.num_batches_tracked"] == 2
    assert made["mask"].tolist() == [True, True]  # three of five


@pytest.mark.parametrize(
    ("name", "parameters", "least"), [("krum", {"attackers": 2}, 7), ("bulyan", {"attackers": 1}, 7)]
)
def test_too_few_updates_are_an_error(name: str, parameters: dict[str, int], least: int) -> None:
    told({"name": name, **parameters}, MODEL, cohort(least))
    with pytest.raises(AggregationError, match=f"needs {least} updates, there are {least - 1}") as caught:
        told({"name": name, **parameters}, MODEL, cohort(least - 1))
    assert "round.required" in (caught.value.hint or "")


def test_bucketing_needs_enough_updates_for_what_is_inside() -> None:
    made = STRATEGIES.find("aggregator", "bucketing", None, ()).make(inner=Bulyan(attackers=1), size=2)  # type: ignore[arg-type]
    assert isinstance(made, RobustAggregator)
    assert (made.needs, made.stands(13), made.stands(12)) == (13, 1, 0)


# ---- distances and order statistics


def held(updates: list[Weights], model: Weights) -> Updates:
    return Updates(replies(updates), model)


def test_distances_do_not_cancel() -> None:
    """A million weights of scale 10 that differ by 1e-4: |a|^2 + |b|^2 - 2 <a, b> in float32 gives noise."""
    generator = torch.Generator().manual_seed(0)
    base = 10 * torch.randn(200_000, generator=generator)
    updates = [Weights({"w": base + 1e-4 * torch.randn(200_000, generator=generator)}) for _ in range(4)]
    for model in (torch.zeros_like(base), base):
        found = squared_distances(held(updates, Weights({"w": model})))
        for i, j in itertools.combinations(range(4), 2):
            true = (updates[i]["w"].double() - updates[j]["w"].double()).square().sum()
            assert found[i, j] == found[j, i] and abs(found[i, j] - true) < 1e-9 * true
        assert not found.diagonal().any()


def test_distances_are_the_same_both_ways() -> None:
    """Or rounding would say which of two that are nearest to each other Krum takes, and not its rule."""
    rng = torch.Generator().manual_seed(0)
    for size in range(2, 40):
        updates = [Weights({"w": torch.randn(size, generator=rng, dtype=torch.float64)}) for _ in range(7)]
        found = squared_distances(held(updates, Weights({"w": torch.randn(size, generator=rng, dtype=torch.float64)})))
        assert torch.equal(found, found.T)


@pytest.mark.parametrize(("count", "size"), [(5, 5000), (131, 300)])
def test_distances_are_those_of_pairs_with_the_same_bits_for_any_number_of_threads(count: int, size: int) -> None:
    """Also of updates that are equal, and of groups that are close at one scale within another."""
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(size, generator=rng, dtype=torch.float64)
    near = [base + 10.0 ** (-2 * (k % 4)) * torch.randn(size, generator=rng, dtype=torch.float64) for k in range(count)]
    near[2] = near[count - 1] = near[1].clone()
    given = held([Weights({"w": one}) for one in near], Weights({"w": torch.zeros(size, dtype=torch.float64)}))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(squared_distances(given))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[0].T) and not found[0].diagonal().any()
    assert found[0][1, 2] == found[0][1, count - 1] == 0
    torch.testing.assert_close(found[0], squared_distances_by_pair(given), rtol=1e-10, atol=0)


def test_updates_that_are_apart_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And close ones once more."""
    times = []
    original = Updates.pieces

    def pieces(self: Updates, *args: Any, **options: Any) -> Any:
        times.append(1)
        return original(self, *args, **options)

    monkeypatch.setattr(Updates, "pieces", pieces)
    rng = torch.Generator().manual_seed(0)
    apart = [torch.randn(50, generator=rng, dtype=torch.float64) for _ in range(6)]
    close = [*apart, apart[0] + 1e-6]
    for updates, expected in ((apart, 1), (close, 2)):
        times.clear()
        squared_distances(held([Weights({"w": one}) for one in updates], Weights({"w": torch.zeros(50).double()})))
        assert len(times) == expected


def test_a_huge_update_does_not_blur_the_distances_of_others() -> None:
    updates = [weights(n) for n in range(4)]
    updates[0] = Weights({**updates[0], "fc.weight": torch.full((3, 37), 3e38)}, buffers=updates[0].buffers)
    found = squared_distances(held(updates, MODEL))
    vectors = stacked(updates)
    for i, j in itertools.combinations(range(4), 2):
        assert found[i, j] == pytest.approx(float((vectors[i] - vectors[j]).square().sum()), rel=1e-9)


@settings(max_examples=60)
@given(st.integers(1, 70), st.data())
def test_rows_in_order_are_those_of_a_sort(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(first + 1, count))
    rows = torch.randint(-5, 5, (count, 40), generator=torch.Generator().manual_seed(count)).float()
    expected = rows.sort(dim=0).values[first:end]
    assert torch.equal(torch.stack(list(in_order(rows, first, end))), expected)
