"""Every scheme: each index once (or dropped and counted), no empty client, the same split for the same seed."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.data.partitioners import make_partitioner
from fedpkg.data.partitioners.registry import PARTITIONERS
from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices
from fedpkg.partitions.splitting import Split, needs_of, split_examples, within_client

GOLDEN = Path(__file__).with_name("splits.json")
COUNT = 5
# A section for every scheme, for 5 clients and 4 classes.
SECTIONS: Mapping[str, dict[str, Any]] = {
    "iid": {},
    "dirichlet": {"alpha": 2.0},
    "dirichlet, balanced": {"alpha": 0.5, "self_balancing": True},
    "dirichlet, one alpha each": {"alpha": [1, 2, 3, 4, 5]},
    "inner_dirichlet": {"alpha": 0.3},
    "inner_dirichlet, given sizes": {"alpha": 0.1, "sizes": [0.4, 0.3, 0.1, 0.1, 0.1]},
    "pathological": {"classes_per_client": 2},
    "pathological, deterministic": {"classes_per_client": 2, "assignment": "deterministic"},
    "pathological, first": {"classes_per_client": 2, "assignment": "first-deterministic"},
    "shards": {},
    "shards, of a size": {"shard_size": 7, "keep_incomplete": False},
    "distribution": {"matrix": [[1, 0, 0, 1], [2, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0.5, 0, 0, 3]]},
    "distribution, counts": {
        "matrix": [[3, 0, 0, 1], [2, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 3]],
        "unit": "count",
    },
    "continuous": {"by": "age", "strictness": 0.5},
    "sizes": {"sizes": [20, 4, 4, 3, 1]},
    "linear": {},
    "square": {},
    "exponential": {},
    "power_law": {},
    "log_normal": {},
    "dirichlet_sizes": {},
    "natural_id": {"by": "user"},
    "grouped_ids": {"by": "user"},
    "grouped_ids, bigger": {"by": "user", "group_size": 2, "mode": "allow_bigger", "order": "sorted"},
    "grouped_ids, dropped": {"by": "user", "group_size": 2, "mode": "drop_remainder"},
    "feature_noise": {"inner": {"name": "dirichlet", "alpha": 2.0}},
    "rotation": {"inner": "shards"},
}


# Those that may leave examples out: test examples of unknown ids, classes that no client has, what is not asked for.
DROPPING = {name for name in SECTIONS if re.match(r"sizes|path|natural|grouped|shards, of|distribution, c", name)}
UNSKEWED = {"sizes", "distribution, counts", "natural_id", "grouped_ids", "grouped_ids, dropped", "continuous"}


def made(name: str) -> Any:
    return make_partitioner({"name": name.partition(",")[0], **SECTIONS[name]})


def values_of(partitioner: Any, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The numbers as what the scheme needs: 4 classes, 11 users, or ages."""
    needs = needs_of(partitioner)
    return numbers % 11 if needs == "ids" else numbers * 1.5 if needs == "values" else numbers % 4


def split_of(name: str, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64] | None, seed: int) -> Split:
    partitioner = made(name)
    count = None if "group_size" in SECTIONS[name] else COUNT
    tests = None if test is None else values_of(partitioner, test)
    return split_examples(partitioner, values_of(partitioner, train), tests, count, seed)


def test_there_is_a_section_for_every_scheme() -> None:
    assert {name.partition(",")[0] for name in SECTIONS} | {"vertical"} == {
        spec.name for spec in PARTITIONERS.specs("partitioner") if spec.source == "fedpkg"
    }


@pytest.mark.parametrize("name", SECTIONS)
@settings(max_examples=15)
@given(
    train=st.lists(st.integers(0, 200), min_size=5, max_size=120),
    test=st.lists(st.integers(0, 200), max_size=40),
    seed=st.integers(0, 2**32),
)
def test_every_index_goes_to_one_client_or_is_counted_as_dropped(
    name: str, train: list[int], test: list[int], seed: int
) -> None:
    try:
        split = split_of(name, np.array(train), np.array(test, np.int64), seed)
    except DataError as error:
        assert error.hint
        return
    check_cover(split.train, len(train) - split.dropped_train)
    check_cover(split.test, len(test) - split.dropped_test)
    assert len(split.train) == len(split.test) and min(map(len, split.train)) >= 1
    if name not in DROPPING:
        assert split.dropped_train == split.dropped_test == 0


def check_cover(parts: list[Indices], kept: int) -> None:
    everything = np.concatenate(parts)
    assert all(np.all(np.diff(part) > 0) and part.dtype == np.int64 for part in parts)
    assert len(np.unique(everything)) == len(everything) == kept


def digest(split: Split) -> str:
    found = hashlib.sha256()
    for part in (*split.train, *split.test):
        found.update(len(part).to_bytes(4, "little") + part.astype("<i8").tobytes())
    return found.hexdigest()[:16]


def numbers(count: int) -> npt.NDArray[np.int64]:
    return (np.arange(count, dtype=np.int64) * 7919 + 13) % 1009


@pytest.mark.parametrize("name", SECTIONS)
def test_a_seed_gives_the_recorded_split(name: str) -> None:
    """The digests in splits.json are the same on every platform; after a wanted change: python splits.py."""
    assert digest(split_of(name, numbers(400), numbers(90), seed=3)) == json.loads(GOLDEN.read_text())[name]


def test_the_splits_are_the_same_without_the_processors_vector_instructions() -> None:
    """NumPy has other algorithms for sorting and elementary functions then, as on another processor."""
    place = "numpy._core" if hasattr(np, "_core") else "numpy.core"  # NumPy 2, and 1
    umath = importlib.import_module(f"{place}._multiarray_umath")
    features = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]
    program = "import json, splits; print(json.dumps(splits.found()))"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(features), "PYTHONPATH": str(GOLDEN.parents[3])}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=GOLDEN.parent, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", sorted(set(SECTIONS) - {"natural_id", "distribution, counts", "grouped_ids, bigger"}))
def test_another_seed_gives_another_split(name: str) -> None:
    assert digest(split_of(name, numbers(400), None, 1)) != digest(split_of(name, numbers(400), None, 2))


@pytest.mark.parametrize("name", sorted(set(SECTIONS) - UNSKEWED))
def test_test_examples_have_the_skew_of_the_training_examples(name: str) -> None:
    split = split_of(name, numbers(40_000), numbers(40_000), seed=5)
    classes = values_of(made(name), numbers(40_000))
    train, test = (
        np.stack([np.bincount(classes[part], minlength=11) for part in parts]) for parts in (split.train, split.test)
    )
    assert np.allclose(train / train.sum(), test / test.sum(), atol=0.01)


def test_parts_within_a_client_have_their_fractions_and_its_mixture_of_classes() -> None:
    labels = np.repeat(np.arange(10), 100)
    fractions = {"train": 0.7, "validate": 0.1, "test": 0.2}
    parts = within_client(np.arange(1000) * 3, labels, fractions, np.random.default_rng(0))
    assert {name: len(part) for name, part in parts.items()} == {"train": 700, "validate": 100, "test": 200}
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1000) * 3)
    for name, part in parts.items():
        assert np.abs(np.bincount(labels[part // 3], minlength=10) - 100 * fractions[name]).max() <= 1


@settings(max_examples=40)
@given(total=st.integers(0, 40), classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_part_within_a_client_gets_an_example_if_there_are_enough(total: int, classes: int, seed: int) -> None:
    indices = np.arange(total) + 5
    parts = within_client(indices, indices % classes, {"train": 0.9, "test": 0.1}, np.random.default_rng(seed))
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), indices)
    assert total < 2 or min(map(len, parts.values())) >= 1


@pytest.mark.parametrize("fractions", [{"train": 0.8}, {"train": 1.2, "test": -0.2}, {}])
def test_fractions_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError, match="must be above 0 and add up to 1"):
        within_client(np.arange(9), None, fractions, np.random.default_rng(0))


class Returning:
    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def split(self, values: Any, num_partitions: int | None, rng: np.random.Generator) -> Any:
        return self.parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1], [1, 2]], "gave example 1 to more than one client"),
        ([[0], [4]], "returned an index that none of the 4 examples has"),
        ([[0], [-1]], "returned an index that none"),
        ([[0]], "returned 1 parts for 2 clients"),
        ([[0.5], [1]], "did not return a list of arrays of indices"),
        (None, "did not return a list of arrays of indices"),
    ],
)
def test_a_wrong_split_of_ones_own_partitioner_is_refused(parts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_examples(Returning(parts), np.zeros(4, int), None, 2, 0)


def test_without_a_method_of_its_own_a_partitioner_divides_test_examples_as_training_examples() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    split = split_examples(Returning([[1, 0], [2, 3]]), labels, np.array([0, 1, 0, 1, 2, 3, 3]), 2, 0)
    assert [part.tolist() for part in split.train] == [[0, 1], [2, 3]] and split.dropped_train == 1
    assert split.dropped_test == 1  # class 2, as in training; class 3 was never seen, and is divided by size
    assert {*split.test[0].tolist()} >= {0, 2} and {*split.test[1].tolist()} >= {1, 3}


def test_schemes_that_change_features_do_so_by_client() -> None:
    assert not hasattr(made("iid"), "transform")
    pixels = np.arange(18, dtype=np.float32).reshape(2, 9)
    turned = made("rotation").transform(pixels, 1, 4, np.random.default_rng(0))
    assert np.array_equal(turned[0].reshape(3, 3), np.rot90(pixels[0].reshape(3, 3)))
    rng, flat = np.random.default_rng(0), np.zeros((2000, 20), np.float32)
    noise = [made("feature_noise").transform(flat, client, 4, rng) for client in range(4)]
    assert np.allclose([part.var() for part in noise], [0.025, 0.05, 0.075, 0.1], rtol=0.05)
    pixels_of_bytes = made("feature_noise").transform(flat.astype(np.uint8), 0, 4, rng)
    assert noise[0].dtype == pixels_of_bytes.dtype == np.float32
