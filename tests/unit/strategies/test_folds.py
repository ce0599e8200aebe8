"""Folds of strategies: parts of a cohort, made anywhere and sent as files, come to the bits of a flat round."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from cohorts import COMPOSED, STEPPING, STRATEGY_NAMES, section_of, weights

from fedpkg.cli.main import fedpkg
from fedpkg.errors import AggregationError, ConfigError, NotSaid
from fedpkg.formats.partial_file import read_partial, write_partial
from fedpkg.strategies.base import Client, Reply, Request, State, StepContext, take_step
from fedpkg.strategies.folds import Fold, Folded, fold_of, folded
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.strategies.registry import STRATEGIES, folds_in_a_tree, make_strategy
from fedpkg.types import Sampling, Scheme
from fedpkg.weights.fold import Partial
from fedpkg.weights.weights import Weights

MODEL = weights(0)
SIZE = 600
# What a run.yaml says → whether it folds. Besides all strategies by name.
COMPOSITIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "fedprox with krum": ({"name": "fedprox", "aggregator": "krum"}, False),
    "fedprox with a uniform mean, then Adam": (
        {"name": "fedprox", "aggregator": "uniform_mean", "server_optimiser": "adam"},
        True,
    ),
    "deltas, quantised by the server": (
        {"name": "fedavg", "reply": "delta", "server_transforms": [{"name": "quantise", "bits": 8}]},
        True,
    ),
    "fednova whose clients' deltas are quantised": (
        {"name": "fednova", "steps_key": "calls", "transforms": ["quantise"]},
        True,
    ),
    "fedexp after a transform": ({"name": "fedexp", "transforms": ["bfloat16"]}, True),
    "median, then Yogi": ({"aggregator": "median", "server_optimiser": "yogi"}, False),
    "bucketing": ({"aggregator": {"name": "bucketing", "inner": "krum"}}, False),
}
SECTIONS = {name: section_of(name) for name in [*STRATEGY_NAMES, *STEPPING, *COMPOSED]} | {
    name: section for name, (section, _) in COMPOSITIONS.items()
}
FOLDING = [name for name, section in SECTIONS.items() if fold_of(make_strategy(section)) is not None]


def kind_of(name: str) -> object:
    """What decides on a strategy's fold: the same for all pipelines of one aggregator and one way of arriving."""
    made = make_strategy(SECTIONS[name])
    return (made.aggregator, made.reply, made.server_transforms) if isinstance(made, Pipeline) else name


FOLDS = list({str(kind_of(name)): name for name in FOLDING}.values())
SUMS = {
    "fedavg",
    "uniform_mean",
    "fednova",
    "qfedavg",
    "fedadam",
    "pipeline",
    "fedprox",
    "fedper",
    "scaffold",
    "fedexp",
}


def asked(section: dict[str, Any]) -> tuple[Callable[[int], Fold[Any]], Request]:
    """A strategy's fold from a position on, in its second round, and its request."""
    strategy = make_strategy(section)
    state = {**strategy.init(MODEL), "model": weights(77)}
    state |= {name: weights(78) for name in ("iterate",) if name in state}
    if not hasattr(strategy, "step"):
        state, (request,) = strategy.ask(state, np.random.default_rng(1))
    else:
        clients = tuple(Client(f"client-{k}") for k in range(SIZE))
        ctx = StepContext(2, np.random.default_rng(1), clients, lambda: (), Sampling(Scheme.DATA_FREE))
        step = take_step(strategy, state, ctx)
        request = next(step)  # type: ignore[assignment]
        step.close()
    fold = fold_of(strategy)
    assert fold is not None
    return lambda start: fold(state, start), request


def reply_to(request: Request, position: int) -> Reply:
    update = weights(1000 + position)
    alone = update.filter(frozenset(update.parameters).__contains__)
    whole = alone if request.reply == "gradient" else update
    sets = {name: alone if like is None else update for name, like in request.sets.items()} or {"": whole}
    said = {} if position % 11 == 5 else {"calls": 1 + position % 3}
    return Reply(request.request_id, position, f"client-{position}", sets, 3.0 + position * 37 % 501, said)


def bits(found: Any) -> Any:
    """What a fold comes to, so that it can be compared."""
    if isinstance(found, Weights):
        return [(name, tensor.dtype, tensor.flatten().tolist()) for name, tensor in found.items()]
    if isinstance(found, Folded):
        return [(name, bits(each)) for name, each in found.sets.items()], found.count, found.numbers
    return [bits(each) for each in found] if isinstance(found, tuple) else found


def parts(make: Callable[[int], Fold[Any]], replies: Sequence[Reply], cuts: Sequence[int]) -> list[Partial]:
    found: list[Partial] = []
    for start, stop in itertools.pairwise([0, *cuts, SIZE]):
        fold = make(start)
        for reply in replies:
            if start <= reply.position < stop:
                fold.add(reply)
        found += fold.partials(stop)
    return found


@pytest.mark.parametrize("name", FOLDS)
def test_any_parts_of_a_cohort_in_any_order_have_the_bits_of_a_flat_round(name: str, tmp_path: Path) -> None:
    make, request = asked(SECTIONS[name])
    rng = random.Random(name)
    for trial, aligned in enumerate([16, 256, 1]):
        positions = sorted(rng.sample(range(SIZE), 45))
        replies = [reply_to(request, position) for position in positions]
        cuts = sorted({rng.randrange(1, SIZE // aligned + 1) * aligned for _ in range(6)} - {SIZE})
        found = parts(make, replies, [cut for cut in cuts if cut < SIZE])
        rng.shuffle(found)
        root = make(0)
        for number, partial in enumerate(found):
            if trial != 1:
                write_partial(tmp_path / f"{trial}-{number}", partial)
                partial = read_partial(tmp_path / f"{trial}-{number}")
            root.merge(partial)
        assert bits(root.result()) == bits(folded(make(0), replies))


def test_single_contributor_is_returned_as_it_is_through_parts_too() -> None:
    for name in ("fedavg", "uniform_mean", "fedprox"):
        make, request = asked(SECTIONS[name])
        reply = reply_to(request, 37)
        root = make(0)
        for partial in parts(make, [reply], [16, 32, 48, 256]):
            root.merge(partial)
        assert root.result().equal(reply.weights)


def test_sums_fold_and_what_needs_all_updates_does_not() -> None:
    assert set(FOLDING) >= SUMS
    assert not {"krum", "fedmedian", "bulyan", "rfa", "bucketing", "fltrust", "fedamp", "fedbuff", "svrp"} & set(
        FOLDING
    )


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_whether_a_composition_folds_is_asked_of_what_it_is_made_of(name: str) -> None:
    section, folds = COMPOSITIONS[name]
    assert (fold_of(make_strategy(section)) is not None) == folds


def test_list_tells_of_each_strategy_whether_it_folds() -> None:
    listed = json.loads(CliRunner().invoke(fedpkg, ["strategy", "list", "--json"]).stdout)
    told = {row["name"]: row["folds_in_a_tree"] for row in listed if row["kind"] == "strategy"}
    for spec in STRATEGIES.specs("strategy"):
        if spec.name in SECTIONS:
            assert told[spec.name] == (spec.name in FOLDING), spec.name
    folding = [row["name"] for row in listed if row["kind"] == "aggregator" and row["folds_in_a_tree"]]
    assert folding[:4] == ["weighted_mean", "uniform_mean", "fednova", "qfedavg"]
    assert not {"median", "krum", "bucketing", "fltrust"} & set(folding)


def test_show_tells_whether_a_composition_folds() -> None:
    def told(*words: str) -> str:
        return CliRunner().invoke(fedpkg, ["strategy", "show", *words]).output

    assert "folds in a tree      yes; it depends on the aggregator" in told("fedprox")
    assert "folds in a tree      no: it needs all updates in one place" in told("fedprox", "aggregator=krum")
    assert "folds in a tree      yes\n" in told("fedper", "local=[head.*]", "aggregator.name=uniform_mean")
    assert "folds in a tree      yes\n" in told("scaffold")
    spec = next(spec for spec in STRATEGIES.specs("strategy") if spec.name == "fedprox")
    with pytest.raises(ConfigError, match="unknown key 'agregator'"):
        folds_in_a_tree(spec, {"agregator": "krum"})


def test_clients_that_do_not_say_their_number_are_left_out_in_parts_as_in_a_flat_round() -> None:
    make, request = asked(SECTIONS["fednova"])
    replies = [reply_to(request, position) for position in (5, 16, 17, 27)]  # 5, 16 and 27 say nothing
    root = make(0)
    for partial in parts(make, replies, [16, 32]):
        root.merge(partial)
    assert bits(root.result()) == bits(folded(make(0), [replies[2]]))
    with pytest.raises(NotSaid, match="client-5"):
        folded(make(0), [replies[0], replies[1]])
    with pytest.raises(AggregationError, match="no updates to average"):
        make(0).result()


def test_tell_folds_as_the_fold_does() -> None:
    strategy = make_strategy({"name": "fedprox", "reply": "delta"})
    state, (request,) = strategy.ask(strategy.init(MODEL), np.random.default_rng(1))
    replies = [reply_to(request, position) for position in range(40)]
    fold = fold_of(strategy)
    assert fold is not None
    kept: State = strategy.tell(state, iter(replies))  # type: ignore[assignment]
    assert kept["model"].equal(folded(fold(state), replies))
