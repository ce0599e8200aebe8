"""How many are asked, of whom, and in which order: what holds for every sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from candidates import SECTIONS, candidates, names, places, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.errors import ConfigError
from fedpkg.samplers import Scheme, make_sampler
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.cohort import CohortSampler
from fedpkg.samplers.held_out import held_out_clients
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.samplers.size import Size


@pytest.mark.parametrize(
    ("count", "section", "target", "asked"),
    [
        (10, {}, 10, 10),
        (10, {"fraction_train": 0.25}, 3, 3),  # 2.5 is rounded up
        (50, {"fraction_train": 0.29}, 15, 15),  # 14.5, which binary makes a little less
        (10, {"fraction_train": 0.01}, 1, 1),
        (10, {"fraction_train": 0.1, "min_clients": 4}, 4, 4),
        (100, {"fraction_train": 0.1, "over_selection": 0.1}, 10, 11),  # 10 * 1.1, which binary makes a little more
        (100, {"fraction_train": 0.1, "over_selection": 0.01}, 10, 11),
        (10, {"fraction_train": 0.8, "over_selection": 0.5}, 8, 10),
        (10, {"over_selection": 3}, 10, 10),
        (1, {"fraction_train": 0.5}, 1, 1),
        (10, {"count": 4, "over_selection": 0.5}, 4, 6),
        (10, {"count": 10}, 10, 10),
        (10, {"count": 2, "min_clients": 3}, 3, 3),
    ],
)
def test_how_many_are_wanted_and_asked(count: int, section: dict[str, object], target: int, asked: int) -> None:
    found = sample(section, candidates(count))
    assert (found.target, len(found.clients)) == (target, asked)
    assert make_sampler(section).target(names(count), {}) == target


@pytest.mark.parametrize("name", SECTIONS)
@settings(max_examples=25)
@given(count=st.integers(1, 30), data=st.data())
def test_a_sample_is_an_ordered_subset_of_those_there_without_repeats(
    name: str, count: int, data: st.DataObject
) -> None:
    section: dict[str, object] = {"name": name, **SECTIONS[name], "fraction_train": data.draw(st.floats(0.001, 1.0))}
    if name != "poisson":
        section |= {"min_clients": data.draw(st.integers(1, count)), "over_selection": data.draw(st.floats(0, 5))}
    number = st.one_of(st.none(), st.floats(0, 1e308))
    of = candidates(
        count,
        examples=data.draw(st.lists(number, min_size=count, max_size=count)),
        asked=data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        losses=[1.0, *data.draw(st.lists(number, min_size=count - 1, max_size=count - 1))],
    )
    there = data.draw(st.one_of(st.none(), st.lists(st.integers(0, count - 1), unique=True).map(sorted)))
    seed = data.draw(st.integers(0, 2**32))
    found = sample(section, of, seed, there=there)
    chosen = places(found, of)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(range(count) if there is None else there)
    assert found.target <= len(chosen)
    if name != "poisson":
        whole = make_sampler(section).size
        left = count if there is None else len(there)
        assert len(chosen) == min(left, whole.asked(whole.target(count)))
        assert found.target == min(left, whole.target(count))
    assert found == sample(section, of, seed, there=there), "the same draws, the same cohort"


def test_every_registered_sampler_is_tested_here() -> None:
    assert [spec.name for spec in SAMPLERS.specs("sampler") if spec.source == "fedpkg"] == list(SECTIONS)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "poisson"])
def test_asking_all_leaves_the_random_stream_alone(name: str) -> None:
    rng = np.random.default_rng(5)
    before = rng.bit_generator.state
    assert make_sampler({"name": name}).sample(candidates(3), rng).clients == names(3)
    assert rng.bit_generator.state == before


def test_groups_have_numbers_of_their_own() -> None:
    groups = {"slow": names(10)[:4], "fast": names(10)[3:]}
    of = candidates(10, groups=groups)
    section = {"groups": {"slow": 3, "fast": 0.5}}
    sampler = make_sampler(section)
    assert sampler.target(names(10), groups) == 3 + 4  # half of 7, rounded up
    for seed in range(20):
        found = sample(section, of, seed)
        chosen = places(found, of)
        assert chosen == sorted(set(chosen)) and found.target == 7
        assert len(chosen) == 3 + 4
    assert places(sample({"groups": {"slow": 1}}, of), of)[0] < 4
    assert len(sample({"name": "poisson", "groups": {"slow": 1.0}}, of).clients) == 4
    with pytest.raises(ConfigError, match=r"there is no group 'slwo'; did you mean 'slow'\?"):
        make_sampler({"groups": {"slwo": 1}}).target(names(10), groups)
    with pytest.raises(ConfigError, match=r"sampler.groups.slow is 5, but there are 4 clients of them to train"):
        make_sampler({"groups": {"slow": 5}}).target(names(10), groups)


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_clients_are_an_error_with_a_hint(count: int) -> None:
    with pytest.raises(ConfigError, match=f"min_clients is 5, but there are {count} clients") as caught:
        make_sampler({"min_clients": 5}).target(names(count), {})
    assert caught.value.hint == ("set it to at most 4" if count else "add clients")
    with pytest.raises(ConfigError, match=f"but there are {count} clients to train"):
        make_sampler({"count": 5}).target(names(count), {})


class Wrong:
    def __init__(self, *chosen: Any) -> None:
        self.chosen = chosen

    def choose(self, *_: object) -> Any:
        return self.chosen if self.chosen != (None,) else None


@pytest.mark.parametrize("chosen", [(), (0,), (0, 1, 2), (0, 0), (0, 9), (-1, 0)])
def test_sampler_that_chooses_what_is_not_there_is_an_error(chosen: tuple[int, ...]) -> None:
    size = make_sampler({"count": 2}).size
    with pytest.raises(ConfigError, match="sampler Wrong: it must choose 2 different ones of 5 candidates"):
        CohortSampler(Wrong(*chosen), size).sample(candidates(5), np.random.default_rng(0))


@pytest.mark.parametrize("chosen", [("client-0", "client-1"), (0.5, 1.5), (None,)])
def test_sampler_that_chooses_no_places_is_an_error(chosen: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=r"sampler Wrong: it chose .*, not indices of candidates"):
        CohortSampler(Wrong(*chosen), make_sampler({"count": 2}).size).sample(candidates(5), np.random.default_rng(0))


def test_held_out_are_so_many_a_share_or_those_that_are_named() -> None:
    def held_out(which: int | float | list[str], seed: int = 0) -> list[str]:
        return sorted(held_out_clients(which, names(10), np.random.default_rng(seed)))

    assert len(held_out(3)) == 3 and held_out(3) == held_out(3) != held_out(3, seed=1)
    assert len(held_out(0.25)) == 3 and len(held_out(0.01)) == 1
    assert held_out(["Ort [89]", "Ort 1"]) == ["Ort 1", "Ort 8", "Ort 9"]
    with pytest.raises(ConfigError, match=r"sampler.held_out: no client matches 'Ost 1'; did you mean 'Ort"):
        held_out(["Ost 1"])
    for all_of_them in (10, 11, ["*"]):
        with pytest.raises(ConfigError, match="all 10 clients are held out"):
            held_out(all_of_them)  # type: ignore[arg-type]


def test_choosing_a_hundred_of_ten_thousand_clients_is_quick() -> None:
    """Not by the clock: what no sampler asks for is not looked up."""
    of = candidates(10_000)
    assert len(sample({"count": 100}, of).clients) == 100
    assert "history" not in of.__dict__ and "seconds" not in of.__dict__


def test_what_promises_of_privacy_rest_on_is_said() -> None:
    groups = {"a": names(10)[:4]}

    def sampling(**section: object) -> tuple[str, float]:
        found = make_sampler(section).sampling(names(10), groups)  # type: ignore[arg-type]
        return found.scheme.value, found.rate

    assert sampling(name="poisson", fraction_train=0.125) == ("poisson", 0.125), "and not rounded to a number"
    assert sampling(name="poisson", count=3, availability={"rate": 0.5}, dropout=0.5) == ("poisson", 0.3)
    assert sampling(count=3, dropout=0.5) == ("without_replacement", 0.3)
    assert sampling() == ("without_replacement", 1.0)
    assert sampling(count=3, over_selection=0.5) == ("data_free", 0.3), "who is quick is no chance"
    assert sampling(count=3, availability={"rate": 0.5}) == ("data_free", 0.3)
    assert sampling(name="round_robin", count=3) == ("data_free", 0.3)
    assert sampling(name="weighted", count=3) == ("other", 0.3)
    assert sampling(groups={"a": 2}) == ("data_free", 0.2)
    assert sampling(name="poisson", groups={"a": 0.5}) == ("data_free", 0.2)


class Own:
    """The first ones."""

    def choose(self, candidates: Candidates, number: int, rng: object) -> list[int]:
        return list(range(number))


class OwnOfAnySize:
    """All of them."""

    def draw(self, candidates: Candidates, share: float, rng: object) -> list[int]:
        return list(range(len(candidates)))


def scheme_of_own(own: type, size: Size, **said: object) -> tuple[Scheme, float]:
    sampler = type(own.__name__, (own,), said)()
    found = CohortSampler(sampler, size).sampling(names(10), {})
    return found.scheme, found.rate


def test_sampler_of_ones_own_says_how_it_draws() -> None:
    few = Size(count=3)
    assert scheme_of_own(Own, few, scheme=Scheme.WITHOUT_REPLACEMENT) == (Scheme.WITHOUT_REPLACEMENT, 0.3)
    assert scheme_of_own(Own, few, scheme=Scheme.DATA_FREE) == (Scheme.DATA_FREE, 0.3)
    assert scheme_of_own(OwnOfAnySize, few, scheme=Scheme.POISSON) == (Scheme.POISSON, 0.3)
    assert scheme_of_own(Own, few) == (Scheme.OTHER, 0.3)
    assert scheme_of_own(OwnOfAnySize, few) == (Scheme.OTHER, 1.0)
    assert scheme_of_own(Own, Size(fraction=1.0)) == (Scheme.DATA_FREE, 1.0), "it has nothing to choose"


@pytest.mark.parametrize(
    ("own", "scheme", "has"),
    [
        (Own, Scheme.POISSON, "with 'choose' cannot have the scheme <Scheme.POISSON"),
        (OwnOfAnySize, Scheme.WITHOUT_REPLACEMENT, "with 'draw' cannot have the scheme <Scheme.WITHOUT"),
        (OwnOfAnySize, Scheme.DATA_FREE, "with 'draw' cannot have the scheme <Scheme.DATA_FREE"),
        (Own, 0.1, "with 'choose' cannot have the scheme 0.1"),
    ],
)
def test_scheme_that_a_sampler_cannot_have_is_refused(own: type, scheme: object, has: str) -> None:
    with pytest.raises(ConfigError, match=has) as caught:
        scheme_of_own(own, Size(count=3), scheme=scheme)
    assert "scheme = Scheme." in (caught.value.hint or "")
