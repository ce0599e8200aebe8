"""Every example goes to exactly one client, the same one each time; Dirichlet skews labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_draws import chi_square, distance

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices
from fedpkg.partitions.dirichlet import DirichletPartitioner
from fedpkg.partitions.iid import IidPartitioner

Known = IidPartitioner | DirichletPartitioner
Labels = npt.NDArray[np.int64]
PARTITIONERS = [IidPartitioner(), DirichletPartitioner(alpha=0.5), DirichletPartitioner(alpha=1e6)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def covers_once(parts: list[Indices], total: int) -> bool:
    assert all(np.all(np.diff(part) > 0) for part in parts)
    return np.array_equal(np.sort(np.concatenate(parts)), np.arange(total))


@pytest.mark.parametrize("partitioner", PARTITIONERS, ids=repr)
@settings(max_examples=40)
@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=80),
    test_labels=st.lists(st.integers(-1, 5), max_size=40),
    clients=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_each_index_goes_to_exactly_one_client(
    partitioner: Known,
    labels: list[int],
    test_labels: list[int],
    clients: int,
    seed: int,
) -> None:
    train, test = np.array(labels), np.array(test_labels, np.int64)
    try:
        parts = partitioner.split(train, clients, rng(seed))
    except DataError:
        assume(False)
    assert len(parts) == clients
    assert covers_once(parts, len(train))
    assert min(map(len, parts)) >= 1
    test_parts = partitioner.split_test(test, rng(seed), train_values=train, train=parts)
    assert len(test_parts) == clients
    assert covers_once(test_parts, len(test))


@pytest.mark.parametrize("partitioner", PARTITIONERS, ids=repr)
def test_the_same_seed_gives_the_same_partition(partitioner: Known) -> None:
    labels = rng().integers(0, 10, 500)
    first, again, other = (partitioner.split(labels, 7, rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def shares(labels: Labels, parts: list[Indices], classes: int) -> npt.NDArray[np.float64]:
    """How each class (row) is divided among the clients."""
    counts = np.stack([np.bincount(labels[part], minlength=classes) for part in parts], axis=1)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def test_skew_grows_as_alpha_falls() -> None:
    labels = np.repeat(np.arange(10), 600)
    skew = [
        np.mean(shares(labels, DirichletPartitioner(alpha).split(labels, 8, rng(4)), 10).max(axis=1))
        for alpha in (1000.0, 10.0, 1.0, 0.3, 0.1)
    ]
    assert skew == sorted(skew)
    assert skew[0] < 0.14 and skew[-1] > 0.6  # an even share is 1/8


def test_a_class_is_divided_as_a_dirichlet_draw_would() -> None:
    """Each share of Dir_K(alpha) has mean 1/K and variance (K - 1) / (K^2 (K alpha + 1))."""
    labels = np.repeat(np.arange(50), 1000)
    drawn = shares(labels, DirichletPartitioner(alpha=0.5).split(labels, 10, rng(6)), 50)
    assert np.isclose(drawn.mean(), 0.1)
    assert np.isclose(drawn.var(), 9 / (100 * 6), rtol=0.15)


def test_the_sizes_of_the_clients_are_distributed_as_with_numpys_draws() -> None:
    """Of each class, client 0 gets its share of a Dir_K(alpha) draw, rounded."""
    for alpha in (0.3, 2.0):
        labels = np.repeat(np.arange(2000), 200)
        own = shares(labels, DirichletPartitioner(alpha).split(labels, 5, rng(1)), 2000)[:, 0]
        numpys = np.rint(rng(2).dirichlet(np.full(5, alpha), 2000)[:, 0] * 200) / 200
        assert distance(own, numpys) < 1.95


@pytest.mark.parametrize("partitioner", [IidPartitioner(), DirichletPartitioner(alpha=1e9)], ids=repr)
def test_every_example_is_as_likely_to_go_to_each_client(partitioner: Known) -> None:
    """Chi-square of example x client, and of the clients of neighbours; f degrees of freedom: mean f, variance 2 f."""
    labels, seeds, clients = np.zeros(60, np.int64), 600, 6
    times, pairs = np.zeros((60, clients)), 0
    for seed in range(seeds):
        owner = np.empty(60, np.int64)
        for client, part in enumerate(partitioner.split(labels, clients, rng(seed))):
            owner[part] = client
        times[np.arange(60), owner] += 1
        pairs += int((owner[1:] == owner[:-1]).sum())
    freedom = 59 * (clients - 1)
    assert abs(chi_square(times, seeds / clients) * 59 / 60 - freedom) < 4 * np.sqrt(2 * freedom)
    expected = seeds * 59 * 9 / 59
    assert abs(pairs - expected) < 4 * np.sqrt(expected)


def test_iid_sizes_differ_by_at_most_one_and_classes_are_mixed() -> None:
    labels = np.repeat(np.arange(4), 1000)
    parts = IidPartitioner().split(labels, 7, rng())
    assert {len(part) for part in parts} == {571, 572}
    assert np.allclose(shares(labels, parts, 4), 1 / 7, atol=0.05)  # standard deviation 0.01


def test_the_test_split_has_the_proportions_of_the_training_split() -> None:
    labels, test_labels = np.repeat(np.arange(5), 2000), np.repeat(np.arange(5), 400)
    partitioner = DirichletPartitioner(alpha=0.3)
    train = partitioner.split(labels, 6, rng(2))
    test = partitioner.split_test(test_labels, rng(3), train_values=labels, train=train)
    assert np.allclose(shares(labels, train, 5), shares(test_labels, test, 5), atol=1 / 400)


def test_labels_may_be_words() -> None:
    labels = np.array(["Hund", "Katze", "猫"] * 20)
    assert covers_once(DirichletPartitioner(5.0).split(labels, 3, rng()), 60)


def test_min_examples_is_respected() -> None:
    labels = np.repeat(np.arange(10), 100)
    partitioner = DirichletPartitioner(alpha=0.3, min_examples=25)
    assert min(len(part) for part in partitioner.split(labels, 10, rng(8))) >= 25


def test_an_impossible_dirichlet_partition_says_what_to_change() -> None:
    with pytest.raises(DataError, match=r"no Dirichlet partition .* of 100 .* gave each of 50 clients at least 1"):
        DirichletPartitioner(alpha=0.01).split(np.repeat(np.arange(2), 50), 50, rng())


def test_too_few_examples_for_iid_say_what_to_change() -> None:
    with pytest.raises(
        DataError, match="9 training examples are too few to give each of 5 clients at least 2"
    ) as caught:
        IidPartitioner(min_examples=2).split(np.zeros(9), 5, rng())
    assert caught.value.hint == "lower clients.count (now 5) or partition.min_examples (now 2)"


@pytest.mark.parametrize("labels", [np.zeros((9, 2), np.int64), np.linspace(0, 1, 9)], ids=["one-hot", "fractions"])
def test_labels_that_are_no_classes_are_refused_by_dirichlet_only(labels: npt.NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="needs one class per example"):
        DirichletPartitioner().split(labels, 2, rng())
    assert covers_once(IidPartitioner().split(labels, 2, rng()), 9)
