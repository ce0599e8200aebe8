"""Axes of a sweep: what a command line spans, without making more of it than is run."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence

import pytest

from fedpkg.compute_package.arguments import in_hydra
from fedpkg.errors import ConfigError
from fedpkg.experiments.axes import Axis, Interval, as_overrides, check_number, count_points, points, split_overrides
from fedpkg.experiments.overrides import parse
from fedpkg.stores.base import SweepKind
from fedpkg.types import Json


def values(
    words: Sequence[str], kind: SweepKind = "grid", number: int | None = None, seed: int = 0
) -> list[list[object]]:
    _, dimensions = split_overrides(words)
    found = points(dimensions, kind, number=number, seed=seed)
    return [list(point.values()) for point in found]


def test_words_with_one_value_are_left_as_they_are() -> None:
    fixed, dimensions = split_overrides(["rounds=3", "strategy={name: krum, attackers: 1}", "a.b=[1, 2]", "seed=1,2"])
    assert fixed == ["rounds=3", "strategy={name: krum, attackers: 1}", "a.b=[1, 2]"]
    assert [one.key for one in dimensions] == ["seed"]


def test_last_axis_of_a_grid_changes_fastest() -> None:
    assert values(["seed=range(2)", "lr=0.1,null,'a,b'"]) == [
        [0, 0.1], [0, None], [0, "a,b"], [1, 0.1], [1, None], [1, "a,b"],
    ]  # fmt: skip


def test_sections_are_values_too() -> None:
    (one,) = split_overrides(["strategy={name: fedavg},{name: krum, attackers: 1}"])[1]
    assert isinstance(one, Axis)
    assert one.choices == [{"name": "fedavg"}, {"name": "krum", "attackers": 1}]


AS_THEY_ARE: list[Json] = [
    *("a\\b", "ends \\", "two\nlines", "it's", 'say "x"', "\\'", "a, b", " a ", "", "true", "1e3", "null", "ü{}"),
    *("choice(1)", "${seed}", "it's \\${x}", None, 0.1, [[1, 2], ["x,y", []]], {"a b": None, "c:d": {"e": [1.5]}}),
]


@pytest.mark.parametrize("is_hydra", [False, True], ids=["run.yaml", "experiment"])
def test_values_are_read_as_they_were_written(is_hydra: bool) -> None:
    (one,) = split_overrides(["key=" + ",".join(in_hydra(value, interpolates=True) for value in AS_THEY_ARE)])[1]
    assert isinstance(one, Axis) and one.choices == AS_THEY_ARE
    for value in AS_THEY_ARE:
        (override,) = as_overrides({"key": value}, is_hydra=is_hydra)
        assert (parse([override])[0].value() if is_hydra else json.loads(override[len("key=") :])) == value


def test_zip_takes_the_values_side_by_side() -> None:
    assert values(["seed=1,2", "lr=0.1,0.2"], "zip") == [[1, 0.1], [2, 0.2]]
    with pytest.raises(ConfigError, match="seed: 3, lr: 2"):
        count_points(split_overrides(["seed=1,2,3", "lr=0.1,0.2"])[1], "zip", None)


def test_ranges_count_in_decimal_and_backwards() -> None:
    assert values(["lr=range(0.1,0.4,0.1)"]) == [[0.1], [0.2], [0.3]]
    assert values(["n=range(5,0,-2)"]) == [[5], [3], [1]]


def test_random_points_are_different_and_those_of_their_seed() -> None:
    words = ["a=range(10)", "b=x,y"]
    drawn = values(words, "random", 15, seed=3)
    assert drawn == values(words, "random", 15, seed=3) != values(words, "random", 15, seed=4)
    assert len({tuple(point) for point in drawn}) == 15
    assert sorted(values(words, "random", 100)) == sorted(values(words)), "at most all of them"


def test_random_points_of_an_interval_lie_in_it() -> None:
    (one,) = split_overrides(["lr=tag(log,interval(0.001,1.0))"])[1]
    assert one == Interval("lr", 0.001, 1.0, log=True)
    drawn = [float(str(point[0])) for point in values(["lr=tag(log,interval(0.001,1.0))"], "random", 200)]
    assert all(0.001 <= value <= 1 for value in drawn)
    assert -1.8 < sum(map(math.log10, drawn)) / 200 < -1.2, "uniform in the logarithm: the mean of 10^[-3, 0] is -1.5"
    whole = [point[0] for point in values(["n=int(interval(1,3))"], "random", 50)]
    assert set(whole) == {1, 2, 3}


def test_grid_of_an_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lr' has an interval of values"):
        count_points(split_overrides(["lr=interval(0.1,1)"])[1], "grid", None)


@pytest.mark.parametrize("words", [["seed=range(1000000)"], ["a=range(1000)", "b=range(1000)"]])
def test_sweep_of_a_million_points_is_counted_and_not_made(words: list[str]) -> None:
    began = time.process_time()
    _, dimensions = split_overrides(words)
    number = count_points(dimensions, "grid", None)
    with pytest.raises(ConfigError, match="1,000,000 points, and at most 1,000 are allowed") as caught:
        check_number(number, 1000)
    assert "--max-points 1000000" in str(caught.value)
    assert list(itertools.islice(points(dimensions, "random", number=2), 3))
    assert time.process_time() - began < 1, "nothing of that size is made"


@pytest.mark.parametrize(
    "word, message",
    [
        ("seed=range(3,1)", "has no value"),
        ("seed=range(1,3,0)", "step of a range cannot be 0"),
        ("lr=interval(1,0.1)", "interval of 'lr' is empty"),
        ("lr=tag(log,interval(0,1))", "not above 0"),
        ("method=glob(*)", "has no value"),
        ("lr=0.1,,0.2", "cannot be parsed"),
    ],
)
def test_axis_without_values_is_an_error(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_overrides([word])


def test_key_with_two_lists_of_values_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'seed' has two lists"):
        split_overrides(["seed=1,2", "seed=3,4"])
