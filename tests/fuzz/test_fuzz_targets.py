"""Damaged and forged files of every kind end in one of fedpkg's errors, soon, and in little memory."""

from __future__ import annotations

import random
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import TARGETS, mutated


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@pytest.mark.parametrize("examples", [50, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_raise_only_errors_of_fedpkg(name: str, examples: int) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds:
        target.run(seed)  # what is imported and cached at the first call is not the file's doing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    def check(seed: bytes, rng: random.Random) -> None:
        data = mutated(seed, rng)
        started = time.process_time()
        target.run(data)
        assert time.process_time() - started < 5

    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize("name", TARGETS)
def test_noise_raises_only_errors_of_fedpkg(name: str) -> None:
    @settings(max_examples=50, deadline=None, database=None)
    @given(st.binary(max_size=600))
    def check(data: bytes) -> None:
        TARGETS[name].run(data)

    check()
