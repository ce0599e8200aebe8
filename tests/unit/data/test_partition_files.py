"""A dataset becomes a file per client: contents, reuse, damage, races, and what cannot be read."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedpkg.config import ClientsConfig, DataConfig
from fedpkg.data.base import ClientData
from fedpkg.data.clients import prepare_clients
from fedpkg.errors import DataError
from tests.unit.data.reading import read_dataset

Arrays = dict[str, npt.NDArray[np.generic]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Daten für λ"
    path.mkdir()
    return path


def make_arrays(train: int = 120, test: int = 40, classes: int = 4) -> Arrays:
    """Feature 0 numbers the examples, so that a test can see who got which."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in (("train", train), ("test", test)):
        arrays[f"x_{split}"] = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
        arrays[f"y_{split}"] = rng.integers(0, classes, count)
    return arrays


def write_npz(path: Path, arrays: Arrays) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def split(
    dataset: str, count: int, cache: Path, *, seed: int = 1, partition: dict[str, Any] | None = None
) -> list[ClientData]:
    data = DataConfig(dataset=dataset, partition=partition or {})
    return prepare_clients(ClientsConfig(count=count, data=data), cache=cache, seed=seed)


def contents(clients: list[ClientData]) -> list[bytes]:
    return [client.path.read_bytes() for client in clients if client.path]


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_the_files_together_are_the_dataset(folder: Path, name: str, suffix: str) -> None:
    arrays = make_arrays()
    dataset = folder / f"alle{suffix}"
    if suffix == ".npz":
        write_npz(dataset, arrays)
    else:
        torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, dataset)
    settings = {"name": name, **({"alpha": 2.0} if name == "dirichlet" else {})}
    clients = split(str(dataset), 5, folder / "cache", partition=settings)
    parts = [read_dataset(str(client.path)).arrays for client in clients]
    assert {client.path.suffix for client in clients if client.path} == {suffix}
    assert [client.num_examples for client in clients] == [len(part["y_train"]) for part in parts]
    for key, whole in arrays.items():
        together = np.concatenate([part[key] for part in parts])
        assert together.dtype == whole.dtype
        order = np.argsort(np.concatenate([part[f"x_{key[2:]}"] for part in parts])[:, 0])
        assert np.array_equal(together[order], whole)


def test_clients_are_numbered_and_their_files_read_only_and_uncompressed(folder: Path) -> None:
    clients = split(write_npz(folder / "d.npz", make_arrays()), 12, folder / "cache")
    assert [client.client_id for client in clients][:3] == ["client-00", "client-01", "client-02"]
    assert [client.partition_id for client in clients] == list(range(12))
    assert {client.num_partitions for client in clients} == {12}
    assert clients[3].path is not None
    assert clients[3].path.name == "03.npz"
    assert clients[3].path.stat().st_mode & 0o777 == 0o444
    assert clients[3].path.stat().st_size > make_arrays()["x_train"].nbytes // 12


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_the_bytes_are_the_same_in_another_cache(folder: Path, suffix: str) -> None:
    if suffix == ".npz":
        dataset = write_npz(folder / "d.npz", make_arrays())
    else:
        torch.save({key: torch.from_numpy(value) for key, value in make_arrays().items()}, folder / "d.pt")
        dataset = str(folder / "d.pt")
    assert contents(split(dataset, 3, folder / "a")) == contents(split(dataset, 3, folder / "b"))


def test_a_complete_folder_is_reused(folder: Path) -> None:
    dataset = write_npz(folder / "d.npz", make_arrays())
    first = split(dataset, 3, folder / "cache")
    times = [client.path.stat().st_mtime_ns for client in first if client.path]
    again = split(dataset, 3, folder / "cache")
    assert again == first
    assert [client.path.stat().st_mtime_ns for client in again if client.path] == times


def test_other_settings_or_other_bytes_make_other_files(folder: Path) -> None:
    dataset = write_npz(folder / "d.npz", make_arrays())
    cache = folder / "cache"
    seeded = {"seed": 1}
    skewed = {"name": "dirichlet", "alpha": 3.0}
    base = split(dataset, 3, cache, seed=1)
    assert split(dataset, 3, cache, seed=2, partition=seeded) == base
    others = [split(dataset, 4, cache), split(dataset, 3, cache, seed=2), split(dataset, 3, cache, partition=skewed)]
    arrays = make_arrays()
    arrays["x_train"][0, 0] = 99.0
    others.append(split(write_npz(folder / "d.npz", arrays), 3, cache))
    assert all(other[0].path != base[0].path for other in others)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest"])
def test_a_damaged_folder_is_made_again(folder: Path, damage: str) -> None:
    dataset = write_npz(folder / "d.npz", make_arrays())
    first = split(dataset, 3, folder / "cache")
    before = contents(first)
    victim = first[1].path
    assert victim is not None
    if damage == "no manifest":
        (victim.parent / "partition.json").unlink()
    else:
        victim.unlink()
        if damage == "truncated":
            victim.write_bytes(before[1][:100])
    assert contents(split(dataset, 3, folder / "cache")) == before
    assert {path.name for path in victim.parent.iterdir()} == {"0.npz", "1.npz", "2.npz", "partition.json"}


def test_what_a_killed_process_left_behind_is_cleared_away(folder: Path) -> None:
    dataset = write_npz(folder / "d.npz", make_arrays())
    clients = split(dataset, 3, folder / "cache")
    assert clients[0].path is not None
    home = clients[0].path.parent
    home.rename(home.with_name(f".{home.name}.tmp"))  # as if killed just before the rename
    assert split(dataset, 3, folder / "cache") == clients
    assert {path.name for path in (folder / "cache").iterdir()} == {home.name, ".lock"}


@pytest.mark.soak
def test_processes_may_make_the_same_files_at_once(folder: Path) -> None:
    dataset = write_npz(folder / "d.npz", make_arrays())
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(split, [(dataset, 20, folder / "cache")] * 2, chunksize=1)
    assert first == second
    assert contents(first) == contents(split(dataset, 20, folder / "other"))


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_a_client_without_test_examples_borrows_one_of_its_main_class(folder: Path, name: str) -> None:
    arrays = make_arrays(train=400, test=6)
    arrays["y_test"][:4] = [0, 1, 2, 3]
    settings = {"name": name, **({"alpha": 5.0} if name == "dirichlet" else {})}
    clients = split(write_npz(folder / "d.npz", arrays), 20, folder / "cache", partition=settings)
    parts = [read_dataset(str(client.path)).arrays for client in clients]
    assert min(len(part["y_test"]) for part in parts) == 1
    owners = [len(part["y_test"]) for part in parts]
    assert sum(owners) > 6  # some are borrowed
    borrowed = [part for part in parts if len(part["y_test"]) == 1]
    main = [np.bincount(part["y_train"]).argmax() == part["y_test"][0] for part in borrowed]
    assert sum(main) >= 14
    everything = np.concatenate([part["x_test"][:, 0] for part in parts])
    assert set(everything) == set(arrays["x_test"][:, 0])


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_dataset_without_test_examples_gives_files_without_test_keys(folder: Path, how: str) -> None:
    arrays = make_arrays(test=0)
    if how == "absent":
        del arrays["x_test"], arrays["y_test"]
    clients = split(write_npz(folder / "d.npz", arrays), 2, folder / "cache")
    assert clients[0].path is not None
    with np.load(clients[0].path) as file:
        assert sorted(file) == ["x_train", "y_train"]


def test_labels_of_several_numbers_can_be_split_iid(folder: Path) -> None:
    arrays = make_arrays(test=1)
    arrays |= {"y_train": np.zeros((120, 2), np.float32), "y_test": np.zeros((1, 2), np.float32)}
    clients = split(write_npz(folder / "d.npz", arrays), 3, folder / "cache")
    parts = [read_dataset(str(client.path)) for client in clients]
    assert [(part.labels("train").shape, part.labels("test").shape) for part in parts] == [((40, 2), (1, 2))] * 3


def test_bfloat16_tensors_keep_their_dtype(folder: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in make_arrays().items()}
    arrays["x_train"] = arrays["x_train"].to(torch.bfloat16)
    torch.save(arrays, folder / "d.pt")
    clients = split(str(folder / "d.pt"), 3, folder / "cache")
    part = torch.load(str(clients[0].path), weights_only=True)
    assert part["x_train"].dtype == torch.bfloat16
    assert part["x_train"].shape == (40, 3)


@pytest.mark.parametrize(
    ("name", "examples", "features", "classes"),
    [("digits", 1797, 64, 10), ("breast_cancer", 569, 30, 2), ("wine", 178, 13, 3), ("iris", 150, 4, 3)],
)
def test_named_datasets_are_real_and_split_once_and_for_all(
    name: str, examples: int, features: int, classes: int
) -> None:
    arrays = read_dataset(f"sklearn/{name}").arrays
    assert arrays["x_train"].shape[1] == features
    assert len(arrays["y_train"]) + len(arrays["y_test"]) == examples
    assert len(arrays["y_test"]) == round(examples * 0.2)
    assert (arrays["x_train"].dtype, arrays["y_train"].dtype) == (np.float32, np.int64)
    assert set(arrays["y_test"]) == set(range(classes))
    again = read_dataset(f"sklearn/{name}").arrays
    assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    if name == "digits":
        assert arrays["x_train"].max() == 16.0


def test_named_datasets_can_be_split(folder: Path) -> None:
    clients = split("sklearn/digits", 10, folder / "cache")
    parts = [read_dataset(str(client.path)) for client in clients]
    assert sum(len(part.labels("train")) for part in parts) == 1438
    assert sum(len(part.labels("test")) for part in parts) == 359
    assert set(parts[0].labels("train")) == set(range(10))


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match="sklearn/iris: scikit-learn is not installed") as caught:
        read_dataset("sklearn/iris")
    assert caught.value.hint == "pip install 'fedpkg[datasets]'"


def without(key: str) -> Arrays:
    return {name: array for name, array in make_arrays().items() if name != key}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("y_train"), "it has no y_train"),
        (without("x_test"), "it has only one of x_test and y_test"),
        (make_arrays() | {"y_train": np.zeros(7)}, r"x_train of shape \(120, 3\) and y_train of shape \(7,\)"),
        (make_arrays() | {"y_test": np.array(3)}, r"x_test of shape \(40, 3\) and y_test of shape \(\)"),
        (make_arrays(train=0), "no training examples"),
        (
            make_arrays() | {"y_train": np.array([{}] * 120)},
            "it contains pickled Python objects, which are never loaded",
        ),
    ],
    ids=["no labels", "half a test split", "lengths", "scalar", "empty", "pickle"],
)
def test_a_wrong_npz_is_refused(folder: Path, arrays: Arrays, message: str) -> None:
    dataset = write_npz(folder / "schlecht.npz", arrays)
    with pytest.raises(DataError, match=f"schlecht.npz: .*{message}"):
        split(dataset, 2, folder / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list, not a dict"),
        ({"x_train": [1], "y_train": [1]}, "x_train is a list, not a tensor"),
        (
            {"x_train": torch.zeros(2), "y_train": Path("x")},
            r"cannot be read: .* \(found pathlib[\w.]+\)",
        ),
    ],
    ids=["list", "lists", "pickle"],
)
def test_a_wrong_pt_is_refused(folder: Path, content: object, message: str) -> None:
    torch.save(content, folder / "schlecht.pt")
    with pytest.raises(DataError, match=f"schlecht.pt: {message}"):
        split(str(folder / "schlecht.pt"), 2, folder / "cache")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        b"PK\x03\x04 cut off",
        b"\x80\x02junk",
        b"\x80\x04\x95\xff",
        b"\x93NUMPY",
        pickle.dumps({"x_train": [1]}, 4),
    ],
)
def test_a_damaged_file_is_refused_in_words_of_our_own(folder: Path, suffix: str, content: bytes) -> None:
    path = folder / f"kaputt{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(DataError) as caught:
        warnings.simplefilter("always")
        split(str(path), 2, folder / "cache")
    assert f"kaputt{suffix}: cannot be read: " in caught.value.message
    assert not any(advice in str(caught.value) for advice in ("allow_pickle", "weights_only", "unsafe"))
    assert warned == []


def test_an_npz_with_damaged_members_is_refused(folder: Path) -> None:
    path = folder / "kaputt.npz"
    for member in (b"", b"text", b"\x93NUMPY\x01\x00v\x00{'descr': "):
        with zipfile.ZipFile(path, "w") as archive:
            for key in ("x_train", "y_train"):
                archive.writestr(f"{key}.npy", member)
        with pytest.raises(DataError, match=r"kaputt\.npz: cannot be read: "):
            split(str(path), 2, folder / "cache")


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nichts.npz: no such file"):
        split(str(folder / "nichts.npz"), 2, folder / "cache")
