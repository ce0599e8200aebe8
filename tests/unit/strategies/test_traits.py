"""What strategies and aggregators say of themselves, and what holds for those that say nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fedpkg.errors import ConfigError
from fedpkg.strategies import Traits, make_strategy
from fedpkg.strategies.master import with_master
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.strategies.traits import traits_of
from fedpkg.types import Sampling

TOP_K = {"name": "top_k", "share": 0.1}


class Plain:
    """A strategy, or an aggregator, that says nothing of itself."""


def a(**said: Any) -> Any:
    return type("Own", (), said)()


def test_one_that_says_nothing_has_the_default_traits() -> None:
    assert traits_of(Plain()) == Traits()
    assert traits_of(Pipeline(Plain())) == Traits()
    assert traits_of(a(traits=Traits(needs=2), entry_points=())) == Traits(needs=2), "other attributes are its own"


def test_trait_outside_of_the_traits_is_refused_rather_than_passed_over() -> None:
    with pytest.raises(ConfigError, match="Own: fedpkg does not read the attribute 'groups'") as caught:
        traits_of(a(groups=("server",), takes_empty_rounds=True))
    assert "traits = Traits(groups=…, takes_empty_rounds=…)" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="'only_averages'; it is one of the traits"):
        traits_of(Pipeline(a(only_averages=True)))


def test_traits_that_are_something_else_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'traits' is a dict, not a fedpkg\.strategies\.Traits"):
        traits_of(a(traits={"needs": 2}))


def test_composition_has_the_traits_of_its_parts() -> None:
    krum: Any = {"name": "krum", "attackers": 2}
    assert traits_of(make_strategy(krum)) == Traits(needs=7, treatment="aggregate")
    assert traits_of(make_strategy({"name": "fedavg"})) == Traits(treatment="mean", only_averages=True)
    stepping = make_strategy({"aggregator": "median", "server_optimiser": "adam", "transforms": [TOP_K]})
    found = traits_of(stepping)
    assert dataclasses.replace(found, server_optimiser=None) == Traits(treatment="step", changes_numbers=True)
    assert traits_of(make_strategy({"name": "fedavg", "reply": "delta"})) == Traits(treatment="mean", reply="delta")
    said = traits_of(make_strategy({"name": "fedprox"}))
    assert (said.clients_read, said.client_lines) == (("proximal_mu",), ("fedprox", "proximal_term"))
    assert not traits_of(make_strategy({"name": "fedavg", "transforms": ["zstd"]})).changes_numbers, "packing is exact"


@pytest.mark.parametrize(
    "section", [{"name": "fltrust"}, {"name": "fedbuff"}, {"name": "ifca"}], ids=lambda s: s["name"]
)
def test_strategy_around_a_strategy_has_its_traits(section: Any) -> None:
    method = traits_of(make_strategy(section))
    assert traits_of(with_master(make_strategy(section))) == method
    travelling = make_strategy({**section, "transforms": ["zstd"]})
    assert type(travelling).__name__ == "Travelling" and traits_of(travelling) == method
    travelling.check(Sampling(), 3)
    assert traits_of(make_strategy({**section, "transforms": [TOP_K]})) == dataclasses.replace(
        method, changes_numbers=True
    )


def test_clients_of_groups_that_are_asked_apart_are_not_sampled() -> None:
    groups = {"server": ["a", "x"], "f": ["b"]}
    assert Traits(apart=("server",)).sampled(["a", "b", "c"], groups) == ["b", "c"]
    assert Traits(groups=("f",)).sampled(["a", "b"], groups) == ["a", "b"]
