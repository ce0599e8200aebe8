"""What other frameworks get wrong in their arithmetic, each case for every strategy that goes by a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import COMPOSED, STEPPING, STRATEGY_NAMES, replies, section_of, state_after, stepped, told, weights

from fedpkg.errors import AggregationError, FedpkgError
from fedpkg.replies.numbers import value_limits
from fedpkg.strategies.base import Client, StepContext
from fedpkg.strategies.registry import STRATEGIES, make_strategy
from fedpkg.types import Use
from fedpkg.weights.weights import Weights

MODEL = weights(500)
COUNT = 8
every = pytest.mark.parametrize("name", [*STRATEGY_NAMES, *COMPOSED])
every_step = pytest.mark.parametrize("name", STEPPING)
is_aggregator = {word for spec in STRATEGIES.specs("aggregator") for word in (spec.name, *spec.aliases)}


def cohort() -> list[Weights]:
    return [weights(number) for number in range(COUNT)]


def changed(update: Weights, name: str, tensor: torch.Tensor) -> Weights:
    return Weights({**update, name: tensor}, buffers=update.buffers)


@every
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["fc.weight", "bn.running_var"])
@pytest.mark.parametrize("who", [0, COUNT - 1])
def test_no_model_is_made_that_is_not_finite(name: str, value: float, where: str, who: int) -> None:
    """Such replies are refused before; if one came through, it must not become the model."""
    updates = cohort()
    bad = updates[who][where].clone()
    bad.view(-1)[0] = value
    updates[who] = changed(updates[who], where, bad)
    try:
        made = told(section_of(name), MODEL, updates)
    except AggregationError:
        return
    assert made.first_non_finite() is None


BAD: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "a shape that broadcasts": (lambda w: changed(w, "fc.weight", torch.ones(1, 37)), r"shape \(1, 37\)"),
    "a number for a vector": (lambda w: changed(w, "half", torch.ones(1).half()), r"shape \(1,\)"),
    "another dtype": (lambda w: changed(w, "bn.num_batches_tracked", torch.tensor(1.5)), "dtype float32"),
    "a missing tensor": (lambda w: Weights({n: t for n, t in w.items() if n != "scale"}), "missing tensor 'scale'"),
    "an extra tensor": (lambda w: Weights({**w, "evil": torch.ones(1)}), "extra tensor 'evil'"),
}


@every
@pytest.mark.parametrize("case", BAD)
def test_refused_update_leaves_nothing_behind(name: str, case: str) -> None:
    """It says what is wrong; the state is as it was; what is told then is as if nothing had been."""
    make, words = BAD[case]
    strategy = make_strategy(section_of(name))
    state = state_after(section_of(name), MODEL, [cohort()])
    state, _ = strategy.ask(state, np.random.default_rng(1))
    before = copied(state)
    updates = cohort()
    with pytest.raises(AggregationError, match=words):
        strategy.tell(state, replies([*updates[:5], make(updates[5]), *updates[6:]]))
    assert same(state, before)
    assert same(strategy.tell(state, replies(updates)), strategy.tell(before, replies(updates)))


def copied(value: Any) -> Any:
    if isinstance(value, Weights):
        return value.clone()
    if isinstance(value, list):
        return [copied(part) for part in value]
    return {key: copied(part) for key, part in value.items()} if isinstance(value, dict) else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Weights):
        return one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@every
def test_telling_twice_gives_the_same_bits_and_changes_no_update(name: str) -> None:
    updates, before = cohort(), cohort()
    one, other = (told(section_of(name), MODEL, updates) for _ in range(2))
    assert one.equal(other)
    assert all(update.equal(was) for update, was in zip(updates, before, strict=True))
    assert MODEL.equal(weights(500))


@every
def test_integers_and_flags_stay_what_they_are(name: str) -> None:
    updates = cohort()
    made = told(section_of(name), MODEL, updates)
    assert {n: (t.dtype, t.shape) for n, t in made.items()} == {n: (t.dtype, t.shape) for n, t in MODEL.items()}
    assert list(made) == list(MODEL) and made.buffers == MODEL.buffers
    assert int(made["bn.num_batches_tracked"]) in range(COUNT), "one that a client sent"
    assert torch.all(made["bn.running_var"] > 0)


@every
def test_clients_that_change_nothing_change_nothing(name: str) -> None:
    """Clipping divides by a norm, some optimisers by a moment: all of them 0 here."""
    section = section_of(name) | ({"weight_decay": 0.0} if name == "fedadamw" else {})
    # A mean of equals may differ in a last bit, and optimisers that divide by the moment make whole steps of that.
    count = COUNT if name in is_aggregator or name in COMPOSED else 1
    made = told(section, MODEL, [MODEL.clone() for _ in range(count)])
    assert made.first_non_finite() is None
    for tensor in MODEL.parameters:
        torch.testing.assert_close(made[tensor], MODEL[tensor], rtol=1e-6, atol=0)


@every
def test_some_clients_that_change_nothing_do_no_harm(name: str) -> None:
    made = told(section_of(name), MODEL, [MODEL.clone(), *cohort()[:4], *(MODEL.clone() for _ in range(3))])
    assert made.first_non_finite() is None


@every
def test_halves_do_not_overflow_by_their_weights(name: str) -> None:
    model = Weights({"w": torch.full((9,), 1000.0).half()})
    updates = [Weights({"w": torch.full((9,), 2000.0).half()}) for _ in range(COUNT)]
    made = told(section_of(name), model, updates, examples=[60_000.0] * COUNT, metadata=[{"calls": 2}] * COUNT)
    assert made["w"].dtype == torch.float16
    assert torch.all((made["w"] >= 1000 - 10) & (made["w"] <= 2000))


@every
def test_updates_that_hardly_differ_are_told_apart(name: str) -> None:
    """Weights of scale 10 that differ by 1e-4: distances as |x|^2 + |y|^2 - 2 x·y in float32 are noise."""
    generator = torch.Generator().manual_seed(3)
    base = 10 * torch.randn(5000, generator=generator)
    updates = [Weights({"w": base + 1e-4 * torch.randn(5000, generator=generator)}) for _ in range(COUNT)]
    far = Weights({"w": base + 1e-3 * torch.randn(5000, generator=generator)})
    updates[3] = far
    made = told(section_of(name), Weights({"w": base}), updates)
    reach = (made["w"] - base).abs().max()
    if name in is_aggregator:
        assert reach <= (far["w"] - base).abs().max()
    if name in ("krum", "multikrum", "bulyan", "fedmedian", "rfa", "fedtrimmedavg"):
        assert float((made["w"] - base).norm()) < 0.5 * float((far["w"] - base).norm()), "without the far one"


@every
def test_no_updates_are_an_error(name: str) -> None:
    with pytest.raises(AggregationError):
        told(section_of(name), MODEL, [])


def largest_taken(dtype: torch.dtype, use: Use, examples: float, *, is_parameter: bool) -> float:
    """What a client's number may be at most, by the door (`fedpkg.replies.numbers`) and its dtype."""
    of_terms, alone = value_limits(dtype, use, is_parameter=is_parameter)
    return min(of_terms / examples, alone, torch.finfo(dtype).max)


def as_large_as_the_door_lets_in(update: Weights, use: Use, examples: float, seed: int) -> Weights:
    """The update of one client, all of whose numbers are so large, some of them negative."""
    signs = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in update.items():
        if tensor.is_floating_point() or tensor.is_complex():
            bound = largest_taken(tensor.dtype, use, examples, is_parameter=name not in update.buffers) * (1 - 2**-6)
            turned = torch.randint(0, 2, tensor.shape, generator=signs) * 2 - 1
            made[name] = (turned.double() * bound).to(tensor.dtype)
            assert float(made[name].abs().max() if tensor.numel() else 0) <= bound / (1 - 2**-6)
    return Weights({**update, **made}, buffers=update.buffers)


@every
def test_largest_numbers_that_are_let_in_make_no_model_infinite(name: str) -> None:
    strategy: Any = make_strategy(section_of(name))
    _, (request,) = strategy.ask(strategy.init(MODEL), np.random.default_rng(0))
    for who in (0, COUNT - 1)["trusted" in str(section_of(name)) :]:  # whom a run trusts is none of its clients
        rounds = [
            [
                as_large_as_the_door_lets_in(w, request.use, 20.0, seed) if k == who else w
                for k, w in enumerate(cohort())
            ]
            for seed in range(4)
        ]
        assert state_after(section_of(name), MODEL, rounds)["model"].first_non_finite() is None
    alone = [[as_large_as_the_door_lets_in(weights(0), request.use, 20.0, seed)] * COUNT for seed in range(4)]
    assert state_after(section_of(name), MODEL, alone)["model"].first_non_finite() is None


# ---- methods whose step asks for more than to train


def steps_taken(section: dict[str, Any], model: Weights, updates: list[Weights], rounds: int = 2) -> Any:
    strategy: Any = make_strategy(section)
    state = strategy.init(model)
    for number in range(1, rounds + 1):
        state = stepped(strategy, state, updates, number)
    return state


@every_step
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("who", [0, COUNT - 1])
def test_no_step_ends_at_a_model_that_is_not_finite(name: str, value: float, who: int) -> None:
    """Such replies are refused before they reach a strategy; and no round commits such a model, whoever made it."""
    updates = cohort()
    bad = updates[who]["fc.weight"].clone()
    bad[0, 0] = value
    updates[who] = changed(updates[who], "fc.weight", bad)
    try:
        made = steps_taken(section_of(name), MODEL, updates)["model"]
    except (AggregationError, AssertionError):
        return
    assert made.first_non_finite() is None or name in ("fedamp", "svrp"), "these take a client's model as it is"


@every_step
def test_largest_numbers_that_are_let_in_make_no_step_infinite(name: str) -> None:
    updates = cohort()
    for who in (0, COUNT - 1)[name == "fltrust" :]:  # the first is the server's own
        bad = [
            as_large_as_the_door_lets_in(w, "stepped", 60_000.0, who) if k == who else w for k, w in enumerate(updates)
        ]
        assert steps_taken(section_of(name), MODEL, bad, rounds=3)["model"].first_non_finite() is None


@every_step
@pytest.mark.parametrize("case", ["a shape that broadcasts", "a number for a vector"])
def test_a_step_is_not_taken_by_broadcasting(name: str, case: str) -> None:
    make, _ = BAD[case]
    strategy: Any = make_strategy(section_of(name))
    state = stepped(strategy, strategy.init(MODEL), cohort())
    before, updates = copied(state), cohort()
    with pytest.raises(FedpkgError, match="shape"):
        stepped(strategy, state, [make(update) for update in updates], 2)
    assert same(state, before)
    assert same(stepped(strategy, state, updates, 2), stepped(strategy, before, updates, 2)), "nothing is left behind"


@every_step
def test_a_step_leaves_updates_integers_and_dtypes_as_they_are(name: str) -> None:
    updates, before = cohort(), cohort()
    made = steps_taken(section_of(name), MODEL, updates)["model"]
    assert all(update.equal(was) for update, was in zip(updates, before, strict=True)) and MODEL.equal(weights(500))
    assert {n: (t.dtype, t.shape) for n, t in made.items()} == {n: (t.dtype, t.shape) for n, t in MODEL.items()}
    assert int(made["bn.num_batches_tracked"]) in (*range(COUNT), 500)
    assert torch.all(made["bn.running_var"] > 0)


@every_step
def test_halves_do_not_overflow_in_a_step(name: str) -> None:
    """Eight times 20,000 is more than float16 holds; sixty thousand examples times that, much more."""
    size = (
        20_000.0
        if name in ("fltrust", "scaffold", "feddyn", "fedexp", "ifca", "fedamp", "fedbuff", "fedasync")
        else 9e3
    )
    model = Weights({"w": torch.full((9,), size / 2).half()})
    updates = [Weights({"w": torch.full((9,), size).half()}) for _ in range(COUNT)]
    made = steps_taken(section_of(name), model, updates, rounds=1)["model"]
    assert made["w"].dtype == torch.float16 and made.first_non_finite() is None


@every_step
def test_a_step_with_clients_that_change_nothing_ends(name: str) -> None:
    """Their updates are the model, their gradients 0: some methods divide by the norm of what changed."""
    section = section_of(name) | ({"noise_multiplier": 0.0} if name == "dp_fedavg" else {})
    nothing = Weights({n: torch.zeros_like(t) for n, t in MODEL.items()}, buffers=MODEL.buffers)
    made = steps_taken(section, nothing, [nothing.clone() for _ in range(COUNT)])["model"]
    assert made.first_non_finite() is None and not any(made[n].count_nonzero() for n in made.parameters)


@pytest.mark.parametrize("name", ["accsvrs", "accvrcs"])
def test_running_statistics_of_accelerated_methods_are_those_that_clients_trained(name: str) -> None:
    updates, buffers = cohort(), ("bn.running_var", "bn.num_batches_tracked")
    state = steps_taken(section_of(name), MODEL, updates, rounds=1)
    clients = tuple(Client(f"client-{k}", ("server",) if k == 0 else ("f", "g")) for k in range(COUNT))
    strategy: Any = make_strategy(section_of(name))
    step = strategy.step(state, StepContext(2, np.random.default_rng(2), clients, lambda: ()))
    point = next(step)[0].payload
    for which in (state["model"], point):
        assert all(torch.equal(which[buffer], updates[0][buffer]) for buffer in buffers), "and not the seed's"
        assert which.buffers == MODEL.buffers
    assert not torch.equal(point["fc.weight"], updates[0]["fc.weight"]), "a combination of two points"
