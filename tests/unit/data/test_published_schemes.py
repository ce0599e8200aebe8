"""Schemes have the invariants of the published algorithms, also where other implementations of them fail."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.config_shape import Places
from fedpkg.data.partitioners import make_partitioner, resolve_partition
from fedpkg.errors import DataError, FedpkgError
from fedpkg.partitions.base import Indices
from fedpkg.partitions.continuous import order_by
from fedpkg.partitions.splitting import split_examples

TEN = np.repeat(np.arange(10), 600)


def split(values: npt.NDArray[Any], count: int | None, name: str, seed: int = 0, **parameters: Any) -> list[Indices]:
    by = {"by": "column"} if name in ("natural_id", "grouped_ids", "continuous") else {}
    return split_examples(make_partitioner({"name": name, **by, **parameters}), values, None, count, seed).train


def sizes(parts: list[Indices]) -> list[int]:
    return [len(part) for part in parts]


def counts(labels: npt.NDArray[Any], parts: list[Indices]) -> npt.NDArray[np.int64]:
    """Clients x classes."""
    return np.stack([np.bincount(labels[part], minlength=int(labels.max()) + 1) for part in parts])


@pytest.mark.parametrize("assignment", ["random", "deterministic", "first-deterministic"])
def test_each_client_has_exactly_k_classes_in_equal_shares(assignment: str) -> None:
    found = counts(TEN, split(TEN, 20, "pathological", classes_per_client=3, assignment=assignment))
    assert ((found > 0).sum(axis=1) == 3).all()
    for column in found.T:
        assert np.ptp(column[column > 0]) <= 1 and column.sum() in (0, 600)
    if assignment != "random":
        assert (found[np.arange(20), np.arange(20) % 10] > 0).all()
    if assignment == "deterministic":
        assert np.flatnonzero(found[9]).tolist() == [0, 1, 9]


def test_two_shards_of_100_clients_are_the_split_of_mcmahan() -> None:
    labels = np.repeat(np.arange(10), 6000)
    parts = split(labels, 100, "shards")
    assert set(sizes(parts)) == {600}
    num_classes = (counts(labels, parts) > 0).sum(axis=1)
    assert num_classes.max() == 2 and 5 <= (num_classes == 1).sum() <= 20  # 9 % of random pairs


def test_shards_that_do_not_fit_are_kept_dropped_or_spread() -> None:
    labels = np.sort(np.arange(103) % 4)
    assert sum(sizes(split(labels, 5, "shards"))) == 103
    kept = sorted(sizes(split(labels, 5, "shards", shard_size=10)))  # 11 shards, one of them of 3 examples
    assert sum(kept) == 103 and set(kept) <= {13, 20, 23, 30}
    assert sizes(split(labels, 5, "shards", shard_size=10, keep_incomplete=False)) == [20] * 5
    assert sizes(split(labels, 5, "shards", shard_size=10, shards_per_client=1)) == [10] * 5


def test_inner_dirichlet_keeps_the_sizes_and_draws_a_mixture_for_each_client() -> None:
    given = [1000, 500, 300, 100, 100]
    assert sizes(split(TEN, None, "inner_dirichlet", sizes=given)) == given
    labels = np.repeat(np.arange(10), 10_000)
    shares = counts(labels, split(labels, 500, "inner_dirichlet", alpha=5.0, sizes=[100] * 500)) / 100
    variance = 9 / (100 * 51)  # of a share of Dir_10(5); the draw of 100 labels adds p (1 - p) / 100
    assert np.isclose(shares.var(), variance + (0.09 - variance) / 100, rtol=0.1)


def test_inner_dirichlet_ends_when_all_of_a_mixture_is_on_classes_that_are_used_up() -> None:
    labels = np.array([0] * 3 + [1] * 997)
    parts = split(labels, 10, "inner_dirichlet", alpha=1e-4)
    assert sizes(parts) == [100] * 10 and counts(labels, parts)[:, 0].sum() == 3


def test_self_balancing_keeps_clients_near_the_average_also_with_a_tiny_alpha() -> None:
    for alpha in (1e-3, 0.3):
        plain, balanced = (
            split(TEN, 10, "dirichlet", alpha=alpha, min_examples=0, self_balancing=choice) for choice in (False, True)
        )
        assert max(sizes(balanced)) <= 600 + 600 and max(sizes(balanced)) <= max(sizes(plain))
        assert sum(sizes(balanced)) == len(TEN)


def test_a_larger_alpha_of_a_client_gives_it_more_of_every_class() -> None:
    parts = split(np.repeat(np.arange(50), 100), 3, "dirichlet", alpha=[1, 1, 8])
    assert np.allclose(np.array(sizes(parts)) / 5000, [0.1, 0.1, 0.8], atol=0.05)


@pytest.mark.parametrize(
    ("name", "weights"), [("linear", lambda k: k), ("square", lambda k: k**2), ("power_law", lambda k: k**-1.0)]
)
def test_sizes_follow_their_law(name: str, weights: Any) -> None:
    expected = weights(np.arange(1.0, 21))
    assert np.abs(sizes(split(np.zeros(100_000), 20, name)) - 100_000 * expected / expected.sum()).max() <= 1


@pytest.mark.parametrize("count", [10, 1500, 10_000])
def test_exponential_sizes_do_not_overflow(count: int) -> None:
    found = sizes(split(np.zeros(100_000), count, "exponential"))
    assert sum(found) == 100_000 and min(found) >= 1
    assert np.isclose(found[-1] / (100_000 - count), 1 - np.exp(-1), atol=0.01)
    assert np.all(np.diff(found) >= 0)


def test_drawn_sizes_have_the_spread_of_their_distribution() -> None:
    logs = np.log(sizes(split(np.zeros(1_000_000), 2000, "log_normal", sigma=0.7)))
    assert np.isclose(logs.std(), 0.7, rtol=0.06)
    shares = np.array(sizes(split(np.zeros(1_000_000), 1000, "dirichlet_sizes", alpha=2.0))) / 1e6
    assert np.isclose(shares.var(), 999 / (1000**2 * 2001), rtol=0.15)
    assert len(set(sizes(split(np.zeros(100), 7, "log_normal", sigma=0.0)))) == 2


def test_every_id_is_a_client_and_ids_may_be_words() -> None:
    ids = np.array(["Ute", "Bo", "猫", "Bo"])
    assert [part.tolist() for part in split(ids, None, "natural_id")] == [[1, 3], [0], [2]]
    assert [part.tolist() for part in split(ids, 2, "natural_id")] == [[1, 3], [0]]
    with pytest.raises(DataError, match="has 3 different ids, but"):
        split(ids, 4, "natural_id")
    assert sizes(split(np.array([-(2**63), 2**63 - 1, 5]), None, "natural_id")) == [1, 1, 1]
    assert sizes(split(np.array([-100, 100, 100], np.int8), None, "natural_id")) == [1, 2]


def test_test_examples_follow_their_id_and_unknown_ids_are_counted() -> None:
    partitioner = make_partitioner({"name": "natural_id", "by": "user"})
    found = split_examples(partitioner, np.array([7, 7, 3]), np.array([3, 9, 7, 3]), None, 0)
    assert [part.tolist() for part in found.test] == [[0, 3], [2]] and found.dropped_test == 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("allow_smaller", [4, 4, 3]), ("allow_bigger", [6, 5]), ("drop_remainder", [4, 4])],
)
def test_ids_that_do_not_fill_a_group_are_treated_as_the_mode_says(mode: str, expected: list[int]) -> None:
    ids = np.repeat(np.arange(11), 3)
    parts = split(ids, None, "grouped_ids", group_size=4, mode=mode)
    assert [len(np.unique(ids[part])) for part in parts] == expected
    assert sizes(parts) == [3 * number for number in expected]  # an id is never divided


def test_strictness_leads_from_a_random_split_to_separate_ranges() -> None:
    ages = np.random.default_rng(0).normal(40, 12, 5000)
    within = [
        np.mean([ages[part].var() for part in split(ages, 10, "continuous", strictness=strictness)]) / ages.var()
        for strictness in (0.0, 0.5, 0.8, 1.0)
    ]
    assert within == sorted(within, reverse=True) and within[0] > 0.97 and within[-1] < 0.1
    strict = split(ages, 10, "continuous")
    assert all(ages[a].max() <= ages[b].min() for a, b in itertools.pairwise(strict))
    assert sizes(split(np.full(10, 3.0), 5, "continuous", strictness=0.5)) == [2] * 5  # a deviation of 0


@settings(max_examples=60)
@given(
    base=st.sampled_from([0.0, 1.0, -1e300]),
    step=st.sampled_from([1.0, 2.0**-50, 5e-324]),
    numbers=st.lists(st.integers(-6, 6), min_size=6, max_size=300),
)
def test_numbers_that_differ_in_their_last_bits_are_cut_as_a_stable_sort_cuts_them(
    base: float, step: float, numbers: list[int]
) -> None:
    score = base + np.array(numbers) * step
    cuts = np.cumsum(np.random.default_rng(0).multinomial(len(score), np.ones(6) / 6))
    for found, expected in zip(
        np.split(order_by(score, cuts), cuts[:-1]),
        np.split(np.argsort(score, kind="stable"), cuts[:-1]),
        strict=True,
    ):
        assert np.array_equal(np.sort(found), np.sort(expected))


BAD: list[tuple[str, npt.NDArray[Any], int | None, Mapping[str, Any], str]] = [
    (
        "pathological",
        np.array([0, 1] * 5),
        5,
        {"classes_per_client": 3},
        "5 clients cannot have 3 classes each: the labels have only 2",
    ),
    ("pathological", np.array([0, 0, 0, 1]), 3, {"classes_per_client": 2}, "class 1 has 1 training examples, too few"),
    ("dirichlet", np.array([0.0, np.nan, 1.0]), 2, {}, "1 of 3 labels are NaN, the first that of example 1"),
    ("shards", np.array([1, "a", None], object), 2, {}, "needs one class per example, but labels have shape"),
    ("natural_id", np.array([1.0, np.nan]), None, {}, "1 of 2 are NaN, the first that of example 1"),
    ("continuous", np.array([1.0, np.inf, 2.0]), 2, {}, "1 of 3 values are NaN or infinite, the first that of example"),
    ("continuous", np.array(["a", "b"]), 2, {}, "needs one number per example"),
    ("shards", np.zeros(9, int), 5, {}, "9 training examples are too few for 10 shards"),
    ("shards", np.zeros(9, int), 5, {"shard_size": 3}, "9 training examples make 3 shards of 3, but 5 clients need 5"),
    ("sizes", np.zeros(9, int), 3, {"sizes": [5, 5]}, "sizes has 2 entries, but clients.count is 3"),
    ("sizes", np.zeros(9, int), None, {"sizes": [5, 5]}, "adds up to 10, but there are 9 training examples"),
    ("sizes", np.zeros(9, int), None, {"sizes": [0.9, 0.5]}, "fractions that add up to at most 1, but adds up to 1.4"),
    ("sizes", np.zeros(9, int), None, {"sizes": [0.99, 0.01]}, "client 1 would have no training example"),
    ("linear", np.zeros(9, int), 10, {}, "9 training examples are too few to give each of 10 clients at least 1"),
    ("inner_dirichlet", np.zeros(9, int), 10, {}, "9 training examples are too few for 10 clients"),
    ("inner_dirichlet", np.arange(9), 3, {"alpha": [1, 2]}, "alpha has 2 numbers, but there are 9 classes"),
    ("dirichlet", np.arange(9), 3, {"alpha": [1, 2]}, "alpha has 2 numbers for 3 clients"),
    ("dirichlet", np.arange(9), 3, {"min_examples": 4}, r"the best gave the smallest client [0-3]\)"),
    ("distribution", np.arange(3), None, {"matrix": [[1, 2]]}, "matrix has 2 columns, but there are 3 classes"),
    ("distribution", np.arange(2), None, {"matrix": [[1, 0]]}, "gives class 1 to no client"),
    ("distribution", np.arange(2), None, {"matrix": [[1], [1, 2]]}, "rows of partition.matrix have different lengths"),
    (
        "distribution",
        np.arange(2),
        None,
        {"matrix": [[2, 0]], "unit": "count"},
        "asks for 2 examples of class 0",
    ),
    ("distribution", np.arange(2), None, {"matrix": "none.csv"}, "none.csv cannot be read: No such file|none.csv not"),
    (
        "grouped_ids",
        np.arange(7),
        None,
        {"group_size": 3, "mode": "strict"},
        "7 ids cannot be divided into groups",
    ),
    ("grouped_ids", np.arange(2), None, {"group_size": 3, "mode": "allow_bigger"}, "2 different ids, too few for a"),
    ("grouped_ids", np.arange(2), None, {}, "neither the number of clients nor the size of a group is known"),
    ("iid", np.arange(2), None, {}, "the number of clients is not known"),
]


@pytest.mark.parametrize(("name", "values", "count", "parameters", "message"), BAD)
def test_a_split_that_cannot_be_made_is_refused_with_a_way_out(
    name: str, values: npt.NDArray[Any], count: int | None, parameters: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        split(values, count, name, **parameters)
    assert caught.value.hint or "different lengths" in message


def test_a_matrix_may_be_in_a_file(tmp_path: Path) -> None:
    matrix = np.array([[30, 10], [10, 30]])
    np.save(tmp_path / "m.npy", matrix)
    np.savetxt(tmp_path / "m.csv", matrix, delimiter=",")
    labels = np.arange(80) % 2
    for name in ("m.npy", "m.csv"):
        parts = split(labels, None, "distribution", matrix=str(tmp_path / name), unit="count")
        assert np.array_equal(counts(labels, parts), matrix)

    resolved = resolve_partition({"name": "distribution", "matrix": str(tmp_path / "m.npy")}, Places("run.yaml"))
    np.save(tmp_path / "m.npy", 2 * matrix)
    with pytest.raises(DataError, match="is not the matrix with which the session began"):
        make_partitioner(resolved)


COLUMNS = [f"c{number}" for number in range(10)]


def columns(count: int | None, **parameters: Any) -> list[list[str]]:
    made = make_partitioner({"name": "vertical", **parameters})
    found: list[list[str]] = made.split_columns(COLUMNS, count, np.random.default_rng(0))
    return found


def test_columns_are_divided_among_the_clients() -> None:
    parts = columns(3)
    assert sorted(map(len, parts)) == [3, 3, 4] and sorted(itertools.chain(*parts)) == COLUMNS
    assert columns(3) == parts and all(part == sorted(part) for part in parts)
    assert columns(2, shuffle=False) == [COLUMNS[:5], COLUMNS[5:]]
    assert [len(part) for part in columns(None, sizes=[0.5, 0.3])] == [5, 3]


@pytest.mark.parametrize(
    ("party", "has"),
    [
        ("first", [3, 2, 2]),
        ("last", [2, 2, 3]),
        ("all", [3, 3, 3]),
        ("first_alone", [1, 3, 3]),
        ("last_alone", [3, 3, 1]),
    ],
)
def test_the_active_party_has_its_columns_and_shared_ones_are_everywhere(party: str, has: list[int]) -> None:
    parts = columns(3, active=["c9"], active_party=party, shared=["c0"], drop=["c1", "c2"], shuffle=False)
    assert all("c0" in part and not {"c1", "c2"} & {*part} for part in parts)
    assert [len(part) - 1 for part in parts] == has
    parties = {"first": [0], "all": [0, 1, 2]}.get(party.removesuffix("_alone"), [2])
    assert [k for k, part in enumerate(parts) if "c9" in part] == parties


@pytest.mark.parametrize(
    ("count", "parameters", "message"),
    [
        (3, {"shared": ["d0"]}, "partition.shared: there is no column 'd0'"),
        (3, {"shared": ["c1"], "drop": ["c1"]}, "'c1' is named twice"),
        (11, {}, "10 columns cannot be divided among 11 clients"),
        (1, {"active": ["c1"], "active_party": "first_alone"}, "9 columns cannot be divided among 0 clients"),
    ],
)
def test_columns_that_cannot_be_divided_are_refused(count: int, parameters: Mapping[str, Any], message: str) -> None:
    with pytest.raises(FedpkgError, match=message):
        columns(count, **parameters)


def rotated(images: npt.NDArray[Any], angle: float, **parameters: Any) -> npt.NDArray[Any]:
    made = make_partitioner({"name": "rotation", "angles": [angle], **parameters})
    found: npt.NDArray[Any] = made.transform(images, 0, 1, np.random.default_rng(0))
    return found


def test_images_are_rotated_by_any_angle_in_every_layout() -> None:
    image = np.zeros((5, 5), np.float32)
    image[0, 2] = 1  # in the middle of the top row; counterclockwise by 90°: the middle of the left column
    for images in (image[None], image.reshape(1, 25), image[None, None], np.stack([image, image])[None]):
        turned = rotated(images, 90)
        assert turned.shape == images.shape and turned.dtype == np.float32
        assert np.flatnonzero(turned.reshape(-1, 5, 5)[0]).tolist() == [10]
    assert np.flatnonzero(rotated(image[None, :, :, None], 90, channels="last")).tolist() == [10]
    assert np.allclose(rotated(image[None], 89.9999)[0], np.rot90(image), atol=1e-5)
    half = rotated(rotated(image[None], 45), 45)[0]
    assert half.argmax() == 10 and 0 < half.sum() <= 1.0001
    assert np.array_equal(rotated(image.reshape(1, 25), 180, shape=[5, 5])[0], image[::-1, ::-1].ravel())


def test_images_that_cannot_be_rotated_are_refused() -> None:
    with pytest.raises(DataError, match="are no images that can be rotated"):
        rotated(np.zeros((2, 7)), 90)
    with pytest.raises(DataError, match="images of 2 x 3 pixels cannot be turned by 90°"):
        rotated(np.zeros((1, 2, 3)), 90)
