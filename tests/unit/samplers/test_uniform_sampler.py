"""How many are asked, who, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpkg.config import SamplerConfig
from fedpkg.errors import ConfigError
from fedpkg.samplers import UniformSampler, make_sampler


def names(count: int) -> list[str]:
    return [f"Ort {k}" for k in range(count)]


@pytest.mark.parametrize(
    ("count", "fraction", "min_clients", "over_selection", "target", "asked"),
    [
        (10, 1.0, 1, 0.0, 10, 10),
        (10, 0.25, 1, 0.0, 3, 3),  # 2.5 is rounded up
        (50, 0.29, 1, 0.0, 15, 15),  # 14.5, which binary makes a little less
        (10, 0.01, 1, 0.0, 1, 1),
        (10, 0.1, 4, 0.0, 4, 4),
        (100, 0.1, 1, 0.1, 10, 11),  # 10 * 1.1, which binary makes a little more than 11
        (100, 0.1, 1, 0.01, 10, 11),
        (10, 0.8, 1, 0.5, 8, 10),
        (10, 1.0, 1, 3.0, 10, 10),
        (1, 0.5, 1, 0.0, 1, 1),
    ],
)
def test_how_many_are_wanted_and_asked(
    count: int, fraction: float, min_clients: int, over_selection: float, target: int, asked: int
) -> None:
    sampler = UniformSampler(fraction, min_clients=min_clients, over_selection=over_selection)
    sample = sampler.sample(names(count), np.random.default_rng(0))
    assert (sample.target, len(sample.clients)) == (target, asked)


@given(
    count=st.integers(1, 40),
    fraction=st.floats(0.001, 1.0),
    over_selection=st.floats(0, 5),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_sample_is_an_ordered_subset_without_repeats(
    count: int, fraction: float, over_selection: float, seed: int, data: st.DataObject
) -> None:
    min_clients = data.draw(st.integers(1, count))
    sampler = UniformSampler(fraction, min_clients=min_clients, over_selection=over_selection)
    clients = names(count)
    sample = sampler.sample(clients, np.random.default_rng(seed))
    positions = [clients.index(client) for client in sample.clients]
    assert positions == sorted(set(positions))
    assert min_clients <= sample.target <= len(sample.clients) <= count
    assert sample == sampler.sample(clients, np.random.default_rng(seed))


def test_rounds_differ_and_every_client_has_the_same_chance() -> None:
    sampler = UniformSampler(0.2)
    rng = np.random.default_rng(3)
    samples = [sampler.sample(names(10), rng).clients for _round in range(2000)]
    times = [sum(name in sample for sample in samples) for name in names(10)]
    assert all(330 < count < 470 for count in times)  # 400 expected, standard deviation 18


def test_asking_all_leaves_the_random_stream_alone() -> None:
    rng = np.random.default_rng(5)
    before = rng.bit_generator.state
    assert UniformSampler(1.0).sample(names(3), rng).clients == tuple(names(3))
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_clients_are_an_error_with_a_hint(count: int) -> None:
    with pytest.raises(ConfigError, match=f"min_clients is 5, but there are {count} clients") as caught:
        UniformSampler(min_clients=5).sample(names(count), np.random.default_rng(0))
    assert caught.value.hint == ("set sampler.min_clients to at most 4" if count else "add clients")


def test_the_configuration_makes_the_sampler() -> None:
    sampler = make_sampler(SamplerConfig(fraction_train=0.5, min_clients=2, over_selection=1.0))
    sample = sampler.sample(names(8), np.random.default_rng(0))
    assert (sample.target, len(sample.clients)) == (4, 8)
