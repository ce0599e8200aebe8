"""DP-FedAvg: how far one client reaches, what the noise is, and what the account says; by formulas and statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import weights

from fedpkg.errors import AggregationError, ConfigError
from fedpkg.strategies.accounting import Spent, epsilon
from fedpkg.strategies.base import Client, Reply, Request, State, StepContext, StepResult
from fedpkg.strategies.methods.dp_fedavg import DpFedAvg
from fedpkg.strategies.registry import make_strategy
from fedpkg.types import Sampling, Scheme
from fedpkg.weights.weights import Weights


@dataclasses.dataclass
class Answers:
    """The replies of those who answered, of so many asked."""

    replies: Iterator[Reply]
    asked: tuple[str, ...]
    missing: tuple[str, ...] = ()
    request_id: str = "1"

    def __iter__(self) -> Iterator[Reply]:
        return self.replies

    def __next__(self) -> Reply:
        return next(self.replies)


def result_of(
    strategy: DpFedAvg,
    state: State,
    updates: Iterable[Weights],
    *,
    asked: int | None = None,
    round_number: int = 1,
    sampling: Sampling | None = None,
    clients: int | None = None,
    said: Any = None,
) -> tuple[StepResult, Request]:
    """One round with these updates; all clients are asked, if nothing else is said."""
    updates = list(updates)
    asked = asked or len(updates)
    names = tuple(f"client-{number}" for number in range(asked))
    everyone = tuple(Client(f"client-{number}") for number in range(clients or asked))
    rng = np.random.default_rng([7, round_number])
    sampling = sampling or Sampling(Scheme.WITHOUT_REPLACEMENT, asked / len(everyone))
    ctx = StepContext(round_number, rng, everyone, lambda: names, sampling)
    taken = strategy.step(state, ctx)
    request = next(taken)
    assert isinstance(request, Request)
    replies = (
        Reply("1", number, names[number], {"": update}, 10.0 + number, {} if said is None else said(number))
        for number, update in enumerate(updates)
    )
    with pytest.raises(StopIteration) as stop:
        taken.send(Answers(replies, names))
    return stop.value.value, request


def step(*args: Any, **options: Any) -> tuple[State, Request]:
    """The state after that round."""
    result, request = result_of(*args, **options)
    return result.state, request


def vector(*values: float) -> Weights:
    return Weights({"w": torch.tensor(values)})


# ---- the mean, and how far one client reaches


def test_without_noise_it_is_the_mean_of_clipped_updates() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=1.0)
    state, _ = step(strategy, strategy.init(vector(1.0, 1.0)), [vector(4.0, 5.0), vector(1.0, 1.5), vector(1.0, 1.0)])
    expected = torch.tensor([1.0, 1.0]) + (torch.tensor([0.6, 0.8]) + torch.tensor([0.0, 0.5])) / 3
    torch.testing.assert_close(state["model"]["w"], expected)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e30])
def test_one_client_more_reaches_no_further_than_the_bound(size: float) -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=0.3)
    start, others = weights(0), [weights(seed) for seed in range(1, 5)]
    far = {
        name: torch.full_like(start[name], min(size, torch.finfo(start[name].dtype).max)) for name in start.parameters
    }
    single = Weights({**start, **far}, buffers=start.buffers)
    without, _ = step(strategy, strategy.init(start), others, asked=5)
    with_it, _ = step(strategy, strategy.init(start), [*others, single], asked=5)
    names = [name for name in start.parameters if start[name].dtype not in (torch.float16, torch.bfloat16)]
    apart = [(with_it["model"][name] - without["model"][name]).abs().double() for name in names]
    moved = math.sqrt(sum(float(one.square().sum()) for one in apart))
    assert moved <= 0.3 / 5 * (1 + 1e-4)


def test_clients_that_fail_do_not_make_the_others_reach_further() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=10.0)
    state, _ = step(strategy, strategy.init(vector(0.0)), [vector(4.0)], asked=4)
    assert float(state["model"]["w"]) == 1.0


def test_all_clients_count_alike_and_buffers_stay() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=1e6)
    start, updates = weights(0), [weights(1), weights(2)]
    state, _ = step(strategy, strategy.init(start), updates)
    torch.testing.assert_close(state["model"]["fc.weight"], (updates[0]["fc.weight"] + updates[1]["fc.weight"]) / 2)
    for name in start.buffers:
        assert torch.equal(state["model"][name], start[name])


def tied(first: float, second: float, *, frozen: float = 1.0) -> Weights:
    """A model with two tied tensors, two that are only of one value, and one that is not trained."""
    copies = {"head": torch.tensor([first, 2.0]), "embedding": torch.tensor([second, 2.0])}
    return Weights({**copies, "a": torch.ones(3) * first, "b": torch.ones(3) * first, "frozen": torch.ones(2) * frozen})


def test_tied_tensors_get_the_same_noise_and_frozen_ones_are_told(caplog: pytest.LogCaptureFixture) -> None:
    strategy = DpFedAvg(noise_multiplier=0.5)
    state, _ = step(strategy, strategy.init(tied(0.0, 0.0)), [tied(0.1, 0.1), tied(0.2, 0.2)])
    model = state["model"]
    assert torch.equal(model["head"], model["embedding"]) and not torch.equal(model["head"], torch.tensor([0.15, 2.0]))
    assert not torch.equal(model["a"], model["b"])
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "head = embedding" in told and 'buffers: ["frozen"]' in told


def test_copies_that_clients_train_apart_get_noise_of_their_own_from_then_on() -> None:
    strategy = DpFedAvg(noise_multiplier=0.5)
    state = strategy.init(tied(0.0, 0.0))
    for updates in ([tied(0.1, 0.1), tied(0.2, 0.3)], [tied(0.1, 0.1)]):
        state, _ = step(strategy, state, updates)
        assert not torch.equal(state["model"]["head"] - updates[0]["head"], state["model"]["embedding"])
        assert state["tied"] == []


def test_updates_that_change_nothing_change_nothing() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, target_quantile=0.5)
    start = weights(0)
    state, _ = step(strategy, strategy.init(start), [start, start])
    assert state["model"].equal(start)


def test_update_that_is_not_finite_never_becomes_a_model() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0)
    with pytest.raises(AggregationError):
        step(strategy, strategy.init(vector(0.0)), [vector(math.nan), vector(1.0)])


# ---- noise


@pytest.mark.parametrize(("cohort_size", "std"), [(None, 2.0 * 0.5 / 4), (1000.0, 2.0 * 0.5 / 1000)])
def test_noise_in_the_mean_is_that_of_its_cohort(cohort_size: float | None, std: float) -> None:
    strategy = DpFedAvg(noise_multiplier=2.0, clip_norm=0.5, noise_cohort_size=cohort_size, population=100_000)
    start = Weights({"w": torch.zeros(40_000), "double": torch.zeros(5, dtype=torch.float64), "steps": torch.tensor(3)})
    state, _ = step(strategy, strategy.init(start), [start] * 4)
    noise = state["model"]["w"].double() / std
    assert abs(float(noise.mean())) < 4 / 200
    assert float(noise.std()) == pytest.approx(1.0, abs=4 / math.sqrt(80_000))
    shares = [float((noise.abs() < times).double().mean()) for times in (1, 2, 3)]
    assert shares == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.01)
    assert bool((state["model"]["double"] != 0).all())


def test_noise_is_new_each_round_and_the_same_when_a_round_is_repeated() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0)
    state = strategy.init(vector(0.0, 0.0))
    first, again = (step(strategy, state, [vector(0.0, 0.0)])[0]["model"] for _ in range(2))
    second = step(strategy, state, [vector(0.0, 0.0)], round_number=2)[0]["model"]
    assert first.equal(again) and not first.equal(second)


def test_secret_noise_is_not_of_the_seed_but_of_the_state() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0, secret_noise=True)
    states = [strategy.init(vector(0.0, 0.0)) for _ in range(2)]
    one, again, other = (step(strategy, state, [vector(0.0, 0.0)])[0] for state in (states[0], states[0], states[1]))
    assert one["model"].equal(again["model"]) and not one["model"].equal(other["model"])
    assert one["secret"] == states[0]["secret"]


def test_nobody_answers_and_there_is_still_noise() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0)
    state, _ = step(strategy, strategy.init(vector(0.0)), [], asked=3)
    assert float(state["model"]["w"]) != 0


# ---- clipping that follows the clients


def test_bound_goes_to_the_quantile_of_the_lengths() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=0.1, target_quantile=0.7, clip_learning_rate=0.1)
    start = vector(0.0)
    state, lengths = strategy.init(start), np.linspace(1, 10, 40)
    for _ in range(200):
        found, _ = result_of(strategy, {**state, "model": start}, [vector(float(length)) for length in lengths])
        state = found.state
    assert state["clip_norm"] == pytest.approx(float(np.quantile(lengths, 0.7)), rel=0.1)
    assert found.metrics == {"clip_norm": state["clip_norm"]}


def test_bound_moves_by_the_paper_s_step() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=1.0, target_quantile=0.5, clip_learning_rate=0.2)
    updates = [vector(0.1), vector(0.2), vector(0.3), vector(5.0)]
    state, _ = step(strategy, strategy.init(vector(0.0)), updates)
    assert state["clip_norm"] == pytest.approx(math.exp(-0.2 * (0.75 - 0.5)))


def test_counts_and_updates_share_what_the_multiplier_allows() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0, clip_norm=1.0, target_quantile=0.5, count_std=2.0)
    share = (1.0 - (2 * 2.0) ** -2) ** -0.5
    start = Weights({"w": torch.zeros(40_000)})
    state, _ = step(strategy, strategy.init(start), [start] * 5)
    assert float(state["model"]["w"].double().std()) == pytest.approx(share / 5, rel=0.02)
    with pytest.raises(ConfigError, match="the counts alone spend more"):
        dataclasses.replace(strategy, count_std=0.4).check(Sampling(Scheme.DATA_FREE), 5)
    dataclasses.replace(strategy, count_std=None).check(Sampling(Scheme.DATA_FREE), 5)  # small cohorts, too


def test_clients_clip_and_tell_and_the_server_clips_again() -> None:
    strategy = DpFedAvg(noise_multiplier=0.0, clip_norm=1.0, at="client", target_quantile=0.5)
    state, request = step(
        strategy, strategy.init(vector(0.0)), [vector(1.0), vector(50.0)], said=lambda number: {"clipped": 1 - number}
    )
    assert request.transforms is not None
    assert [type(one).__name__ for one in request.transforms.steps] == ["Delta", "Clip"]
    assert float(state["model"]["w"]) == pytest.approx(1.0)
    assert state["clip_norm"] == pytest.approx(1.0)  # half of them say that they were shorter


# ---- the account


def gaussian_epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Of the Gaussian mechanism alone, exactly: its rounds together are one with less noise (Balle, Wang 2018)."""
    sensitivity = math.sqrt(rounds) / noise_multiplier

    def delta_of(value: float) -> float:
        a, b = sensitivity / 2, value / sensitivity
        cdf = [0.5 * math.erfc(-x / math.sqrt(2)) for x in (a - b, -a - b)]
        return cdf[0] - math.exp(value) * cdf[1]

    low, high = 0.0, 200.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("noise_multiplier", "rounds"), [(1.0, 1), (5.0, 10), (10.0, 100)])
def test_account_of_everybody_in_every_round(noise_multiplier: float, rounds: int) -> None:
    exact = gaussian_epsilon(noise_multiplier, rounds, 1e-5)
    spent = [Spent("other", 1.0, noise_multiplier, rounds)]
    assert epsilon(spent, 1e-5, population=10, accountant="pld") == pytest.approx(exact, rel=0.01)
    assert exact <= epsilon(spent, 1e-5, population=10) <= 1.15 * exact


def test_account_of_drawn_cohorts() -> None:
    """The textbook example: 1 % of the clients, each by its own coin, noise 1, a thousand rounds."""
    spent = [Spent("poisson", 0.01, 1.0, 1000)]
    rdp, pld = (epsilon(spent, 1e-5, population=10_000, accountant=name) for name in ("rdp", "pld"))  # type: ignore[arg-type]
    assert rdp == pytest.approx(2.10, abs=0.01) and pld == pytest.approx(1.83, abs=0.01)
    fixed = epsilon([Spent("without_replacement", 0.01, 1.0, 1000)], 1e-5, population=10_000)
    everyone = epsilon([Spent("other", 0.01, 1.0, 1000)], 1e-5, population=10_000)
    assert rdp < fixed < everyone


def test_account_of_a_federation_grows_and_is_shown() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0)
    state: State = strategy.init(vector(0.0))
    found = []
    for number in range(1, 4):
        sampling = Sampling(Scheme.POISSON, 0.1)
        result, _ = result_of(strategy, state, [vector(0.0)], clients=10, round_number=number, sampling=sampling)
        state = result.state
        found.append(result.metrics["epsilon"])
    assert state["spent"] == [["poisson", 0.1, 1.0, 3]]
    expected = [epsilon([Spent("poisson", 0.1, 1.0, rounds)], 1e-5, population=10) for rounds in (1, 2, 3)]
    assert found == expected and expected == sorted(expected)


def test_more_noise_or_fewer_clients_cost_less() -> None:
    costs = [epsilon([Spent("poisson", 0.1, noise, 10)], 1e-5, population=100) for noise in (0.5, 1.0, 2.0)]
    assert costs == sorted(costs, reverse=True)
    assert epsilon([Spent("poisson", 0.1, 0.0, 1)], 1e-5, population=100) == math.inf


def test_pld_cannot_account_for_cohorts_of_a_fixed_size() -> None:
    with pytest.raises(ConfigError, match="of a fixed size") as caught:
        epsilon([Spent("without_replacement", 0.1, 1.0, 1)], 1e-5, population=100, accountant="pld")
    assert "sampler.name=poisson" in (caught.value.hint or "")


def test_what_takes_another_s_place_costs_as_replacing_it() -> None:
    """Over-selection, round-robin and the like: whoever is left out lets another in."""
    other = epsilon([Spent("other", 0.5, 4.0, 3)], 1e-5, population=10)
    assert other == epsilon([Spent("everybody", 1.0, 2.0, 3)], 1e-5, population=10)
    assert other > epsilon([Spent("without_replacement", 0.5, 4.0, 3)], 1e-5, population=10)


@pytest.mark.parametrize(
    ("changes", "sampling", "words"),
    [
        (
            {"noise_cohort_size": 100.0},
            Sampling(Scheme.DATA_FREE),
            "a cohort of 100 cannot be drawn from a population of 4",
        ),
        ({}, Sampling(Scheme.OTHER, 0.5), "the choice of this sampler reveals what clients report"),
        (
            {"accountant": "pld"},
            Sampling(Scheme.WITHOUT_REPLACEMENT, 0.5),
            "'pld' cannot account for cohorts of a fixed",
        ),
        ({"budget": 0.1}, Sampling(Scheme.POISSON, 0.5), r"one round spends epsilon [\d.]+; the budget is 0.1"),
    ],
)
def test_what_cannot_be_promised_is_refused(changes: dict[str, Any], sampling: Sampling, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DpFedAvg(**{"noise_multiplier": 1.0, **changes}).check(sampling, 4)


def test_transforms_that_do_not_go_together_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="transforms: quantise, sign or bfloat16 cannot come after"):
        make_strategy({"name": "dp_fedavg", "noise_multiplier": 0.0, "transforms": ["quantise", "bfloat16"]})


def test_a_budget_needs_noise() -> None:
    with pytest.raises(ConfigError, match="a budget needs noise"):
        make_strategy({"name": "dp_fedavg", "noise_multiplier": 0.0, "budget": 1.0})


def test_session_that_goes_on_is_refused_where_the_choice_of_clients_is_not_known() -> None:
    strategy = DpFedAvg(noise_multiplier=1.0)
    with pytest.raises(ConfigError, match="the choice of this sampler") as caught:
        step(strategy, strategy.init(vector(0.0)), [vector(0.0)], sampling=Sampling(Scheme.OTHER))
    assert "scheme = Scheme.DATA_FREE" in (caught.value.hint or "")
