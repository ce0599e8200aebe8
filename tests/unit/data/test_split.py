"""A split is made once, known by its content, given as files or references, and refused when its source has changed."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.client import ClientError, open_data
from fedpkg.config import ClientsConfig, DataConfig
from fedpkg.data.base import ClientData
from fedpkg.data.clients import prepare_clients
from fedpkg.data.described import read_split, statistics
from fedpkg.data.manifest import read_manifest
from fedpkg.data.split import check_split, split_into
from fedpkg.errors import DataError

CLIENTS = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Daten für λ"
    path.mkdir()
    return path


@pytest.fixture
def dataset(folder: Path) -> str:
    rng = np.random.default_rng(0)
    np.savez(
        folder / "d.npz",
        x_train=np.arange(240, dtype=np.float32).reshape(80, 3),
        y_train=rng.integers(0, 4, 80),
        x_test=np.arange(60, dtype=np.float32).reshape(20, 3),
        y_test=rng.integers(0, 4, 20),
        site=np.repeat(["a", "b", "c"], [20, 30, 30]),
        site_test=np.repeat(["c", "a", "b"], [10, 5, 5]),
    )
    return str(folder / "d.npz")


def split(folder: Path, dataset: Any, *, count: int | None = CLIENTS, isolated: bool = False, **data: Any) -> Any:
    clients = ClientsConfig(count=count, data=DataConfig(dataset=dataset, **data))
    return prepare_clients(clients, cache=folder / "cache", seed=1, isolated=isolated)


def path_of(client: ClientData) -> Path:
    assert client.path is not None
    return client.path


def arrays_of(clients: list[ClientData]) -> list[dict[str, Any]]:
    return [dict(open_data(path_of(client))) for client in clients]


def assert_equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert [sorted(arrays) for arrays in one] == [sorted(arrays) for arrays in other]
    for a, b in zip(one, other, strict=True):
        assert all(np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


SKEWED: dict[str, Any] = {"name": "dirichlet", "alpha": 0.5, "min_examples": 4}


def test_references_lead_to_the_same_arrays_as_files_and_copy_nothing(folder: Path, dataset: str) -> None:
    files = split(folder, dataset, partition=SKEWED, within={"validation": 0.25})
    references = split(folder, dataset, partition=SKEWED, within={"validation": 0.25}, form="references")
    assert_equal(arrays_of(files), arrays_of(references))
    assert [client.num_examples for client in files] == [client.num_examples for client in references]
    assert {path_of(client).suffix for client in references} == {".json"}
    home = path_of(references[0]).parent
    assert not (folder / "cache" / "sources").exists()
    assert sum(path.stat().st_size for path in home.glob("*.json") if path.name != "partition.json") < CLIENTS * 1000
    assert json.loads(path_of(references[0]).read_text())["source"] == dataset


def test_isolated_tasks_get_files_also_where_references_are_wanted(folder: Path, dataset: str) -> None:
    clients = split(folder, dataset, form="references", isolated=True)
    assert {path_of(client).suffix for client in clients} == {".npz"}


@pytest.mark.parametrize("kind", ["compressed", "csv", "safetensors"])
def test_a_source_that_cannot_be_mapped_is_copied_once_for_all_splits(folder: Path, kind: str) -> None:
    x, y = np.arange(80, dtype=np.float32).reshape(40, 2), np.arange(40) % 3
    source: Any = str(folder / f"s.{kind}")
    if kind == "compressed":
        source = str(folder / "s.npz")
        np.savez_compressed(source, x_train=x, y_train=y)
    elif kind == "csv":
        rows = "".join(f"{a:g},{b:g},{label}\n" for (a, b), label in zip(x, y, strict=True))
        Path(source).write_text(f"a,b,label\n{rows}")
    else:
        from fedpkg.client import arrays

        arrays.write(source, {"x_train": x, "y_train": y})
    for scheme in ({"name": "iid"}, SKEWED):
        clients = split(folder, source, partition=scheme, form="references")
        together = np.concatenate([arrays["x_train"] for arrays in arrays_of(clients)])
        assert np.array_equal(np.sort(together[:, 0]), x[:, 0])
    assert len(list((folder / "cache" / "sources").iterdir())) == 1


def test_a_copy_for_references_that_does_not_fit_is_not_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(folder / "s.npz", x_train=np.zeros((40, 2)), y_train=np.arange(40) % 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"clients\.data\.form: references need 0 MB, and the disk of") as caught:
        split(folder, str(folder / "s.npz"), form="references")
    assert "uncompressed .npz" in (caught.value.hint or "")


def test_a_client_is_told_when_the_source_of_its_reference_has_changed(folder: Path, dataset: str) -> None:
    clients = split(folder, dataset, form="references")
    Path(dataset).touch()
    assert len(open_data(path_of(clients[0]))["y_train"]) == 20
    content = bytearray(Path(dataset).read_bytes())
    content[200] ^= 1
    Path(dataset).write_bytes(content)
    with pytest.raises(ClientError, match=r"changed since the split: its digest was sha256:\w+ and is now sha256:\w+"):
        open_data(path_of(clients[0]))
    Path(dataset).unlink()
    with pytest.raises(ClientError, match="the source of the data cannot be opened: No such file"):
        open_data(path_of(clients[0]))


def test_open_data_refuses_what_is_no_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDN_DATA_PATH", raising=False)
    with pytest.raises(ClientError, match="FEDN_DATA_PATH is not set"):
        open_data()
    for name, content in (("a.json", b"[]"), ("b.json", b"{"), ("c.npz", b"x"), ("d.pt", b"x")):
        (folder / name).write_bytes(content)
        with pytest.raises(ClientError, match=name):
            open_data(folder / name)
    np.savez(folder / "e.npz", x_train=np.array([{}]))
    with pytest.raises(ClientError, match="Python objects, which are never loaded"):
        open_data(folder / "e.npz")


def test_parts_within_a_client_are_disjoint_and_have_its_classes(folder: Path, dataset: str) -> None:
    clients = split(folder, dataset, within={"validation": 0.1, "held": 0.2})
    for arrays, client in zip(arrays_of(clients), clients, strict=True):
        sizes = {part: len(arrays[f"y_{part}"]) for part in ("train", "validation", "held")}
        assert sizes == {"train": 14, "validation": 2, "held": 4}
        assert client.num_examples == 14
        rows = np.concatenate([arrays[f"x_{part}"][:, 0] for part in sizes])
        assert len(set(rows.tolist())) == 20
    manifest = read_split(path_of(clients[0]).parent)
    assert manifest.within == {"validation": 0.1, "held": 0.2}
    assert manifest.sizes["validation"] == [2] * CLIENTS


def test_parts_that_cannot_be_made_are_refused(folder: Path, dataset: str) -> None:
    with pytest.raises(DataError, match=r"clients\.data\.within\.test: dataset .* has test examples already"):
        split(folder, dataset, within={"test": 0.2})
    with pytest.raises(DataError, match="client 0 has 1 examples, too few for train, validation"):
        split(folder, dataset, count=80, within={"validation": 0.2})


def test_examples_are_divided_by_a_column_of_the_source(folder: Path, dataset: str) -> None:
    source = {"name": "npz", "path": dataset, "columns": ["site"]}
    clients = split(folder, source, count=None, partition={"name": "natural_id", "by": "site"})
    assert [client.num_examples for client in clients] == [20, 30, 30]
    assert [len(arrays["y_test"]) for arrays in arrays_of(clients)] == [5, 5, 10]
    with pytest.raises(DataError, match=r"it has no column 'sites'; did you mean 'site'\?"):
        split(folder, source, count=None, partition={"name": "natural_id", "by": "sites"})


@pytest.mark.parametrize("form", ["files", "references"])
def test_the_column_that_divides_need_not_be_named_twice(folder: Path, dataset: str, form: str) -> None:
    partition: Any = {"name": "natural_id", "by": "site"}
    clients = split(folder, dataset, count=None, partition=partition, form=form)
    assert [client.num_examples for client in clients] == [20, 30, 30]
    data = DataConfig(dataset=dataset, partition=partition)
    check_split(data, path_of(clients[0]).parent)
    with pytest.raises(DataError, match=r"d\.npz: it has no column 'sites'; did you mean 'site'\?"):
        split(folder, dataset, count=None, partition={"name": "natural_id", "by": "sites"})


def test_columns_of_a_table_are_divided_and_labels_stay(folder: Path, dataset: str) -> None:
    clients = split(folder, dataset, count=3, partition={"name": "vertical"})
    arrays = arrays_of(clients)
    assert [each["x_train"].shape for each in arrays] == [(80, 1)] * 3
    assert all(np.array_equal(each["y_test"], arrays[0]["y_test"]) for each in arrays)
    with pytest.raises(DataError, match=r"clients\.data\.form: references have the source's own values"):
        split(folder, dataset, count=3, partition={"name": "vertical"}, form="references")


def test_features_are_changed_the_same_way_every_time(folder: Path, dataset: str) -> None:
    noisy = {"name": "feature_noise", "sigma": 4.0}
    first = arrays_of(split(folder, dataset, partition=noisy))
    shutil.rmtree(folder / "cache")
    assert_equal(first, arrays_of(split(folder, dataset, partition=noisy)))
    plain = {row.tobytes() for arrays in arrays_of(split(folder, dataset)) for row in arrays["x_train"]}
    assert not any(row.tobytes() in plain for arrays in first for row in arrays["x_train"])


def test_the_manifest_says_what_was_split_and_into_what(folder: Path, dataset: str) -> None:
    clients = split(folder, dataset, partition=SKEWED)
    manifest = read_manifest(path_of(clients[0]).parent)
    assert manifest.source["dataset"] == dataset
    assert manifest.source["digest"] == manifest.settings["dataset"]
    assert (manifest.scheme["name"], manifest.scheme["alpha"], manifest.scheme["seed"]) == ("dirichlet", 0.5, 1)
    assert manifest.labels == [0, 1, 2, 3]
    for part in ("train", "test"):
        for row, arrays in zip(manifest.counts[part], arrays_of(clients), strict=True):
            assert row == np.bincount(arrays[f"y_{part}"], minlength=4).tolist()
    assert statistics(manifest)["examples"] == 80


@pytest.mark.parametrize("form", ["files", "references"])
def test_a_split_that_was_edited_by_hand_is_made_again_or_refused(folder: Path, dataset: str, form: Any) -> None:
    clients = split(folder, dataset, form=form)
    victim = path_of(clients[1]) if form == "files" else path_of(clients[1]).parent / "index.npy"
    before = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    data = DataConfig(dataset=dataset, form=form)
    with pytest.raises(DataError, match=rf"{victim.name} was changed: its digest was sha256:\w+ and is now sha256:"):
        check_split(data, victim.parent)
    split(folder, dataset, form=form)
    assert victim.read_bytes() == before
    check_split(data, victim.parent)


def of_two(more: str) -> str:
    """The text of a manifest of two clients."""
    entries = ", ".join(f'{{"file": "{k}.npz", "size_bytes": 1, "num_examples": 5}}' for k in range(2))
    return f'{{"settings": {{}}, "partitions": [{entries}], {more}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the manifest of the split is damaged"),
        ('{"partitions": [{"file": "../x", "size_bytes": 1, "num_examples": 1}], "settings": {}}', "damaged: a file"),
        ('{"partitions": []}', "damaged.*missing required field `settings`"),
        ('{"partitions": [], "settings": {}}', "damaged: it lists no clients"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        (
            of_two('"labels": [0], "counts": {"train": [[5], ["5"]]}'),
            r"damaged: Expected `int`, got `str` - at `\$\.counts",
        ),
        (of_two('"labels": [0], "counts": {"train": [[5], [-5]]}'), "damaged: Expected `int` >= 0"),
        (of_two('"labels": [0], "counts": {"train": [[5], [5, 5]]}'), "counts.train are not 2 clients × 1 labels"),
        (of_two('"labels": [0], "counts": {"train": [[5]]}'), "counts.train are not 2 clients × 1 labels"),
        (of_two('"counts": {"train": [[5], [5]]}'), "counts.train are not 2 clients × 0 labels"),
        (of_two('"sizes": {"test": [5]}'), "sizes.test are not those of 2 clients"),
    ],
)
def test_a_damaged_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "partition.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(folder)
    with pytest.raises(DataError, match="it is not the folder of a split"):
        read_split(folder / "nothing")


def test_a_session_is_refused_when_its_source_has_changed(folder: Path, dataset: str) -> None:
    data = DataConfig(dataset=dataset)
    home = path_of(split(folder, dataset)[0]).parent
    with np.load(dataset) as file:
        arrays = dict(file)
    arrays["y_train"][0] += 1
    np.savez(dataset, **arrays)
    with pytest.raises(DataError, match=r"has changed since .*: its digest was sha256:\w+\.npz and is now sha256:\w+"):
        check_split(data, home)
    Path(dataset).unlink()
    check_split(data, home)  # the files are complete


def test_a_damaged_split_of_former_draws_is_not_promised_again(folder: Path, dataset: str) -> None:
    home = path_of(split(folder, dataset)[0]).parent
    (home / "1.npz").unlink()
    with pytest.raises(DataError) as caught:
        check_split(DataConfig(dataset=dataset), home)
    assert "makes the same split again" in str(caught.value.hint)
    found = json.loads((home / "partition.json").read_text())
    found["settings"]["format"] = 1
    (home / "partition.json").write_text(json.dumps(found))
    with pytest.raises(DataError) as caught:
        check_split(DataConfig(dataset=dataset), home)
    assert "put the files back" in str(caught.value.hint)


def test_references_need_their_source_when_a_session_is_resumed(folder: Path, dataset: str) -> None:
    home = path_of(split(folder, dataset, form="references")[0]).parent
    Path(dataset).unlink()
    with pytest.raises(DataError, match=r"d\.npz: no such file"):
        check_split(DataConfig(dataset=dataset, form="references"), home)


def test_folders_of_former_versions_are_used_as_they_are(folder: Path, dataset: str) -> None:
    home = path_of(split(folder, dataset)[0]).parent
    found = json.loads((home / "partition.json").read_text())
    former = [{key: entry[key] for key in ("file", "size_bytes", "num_examples")} for entry in found["partitions"]]
    (home / "partition.json").write_text(json.dumps({"settings": found["settings"], "partitions": former}))
    times = [path.stat().st_mtime_ns for path in sorted(home.iterdir())]
    split(folder, dataset)
    check_split(DataConfig(dataset=dataset), home)
    assert [path.stat().st_mtime_ns for path in sorted(home.iterdir())] == times
    assert statistics(read_split(home))["clients"] == CLIENTS


def test_a_session_goes_on_with_another_version_of_scikit_learn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = path_of(split(folder, "sklearn/iris")[0]).parent
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "99.0")
    check_split(DataConfig(dataset="sklearn/iris"), home)


@pytest.mark.parametrize(
    "partition", [{"name": "iid"}, {"name": "dirichlet", "alpha": 0.5, "self_balancing": False}], ids=str
)
def test_the_key_of_a_split_has_its_settings_and_the_format(folder: Path, partition: Any) -> None:
    """The name of the folder decides whether a home's splits are found again. NumPy drew those of format 1."""
    clients = split(folder, "sklearn/digits", count=10, partition=partition)
    found = read_manifest(path_of(clients[0]).parent).settings
    assert found.pop("dataset").startswith("sklearn/digits ")
    assert found == {"format": 2, "clients": 10, "min_examples": 1, "seed": 1, **partition}


def test_a_split_into_a_folder_can_be_moved_and_is_not_written_over(folder: Path, dataset: str) -> None:
    np.savez_compressed(folder / "packed.npz", x_train=np.eye(8), y_train=np.arange(8) % 2)
    data = DataConfig(dataset=str(folder / "packed.npz"), form="references")
    assert split_into(folder / "parts", data, 2, seed=0)
    assert not split_into(folder / "parts", data, 2, seed=0)
    (folder / "parts").rename(folder / "moved")
    shutil.copytree(folder / "moved", folder / "copied")
    assert len(open_data(folder / "copied" / "1.json")["x_train"]) == 4
    with pytest.raises(DataError, match="moved: it contains another split"):
        split_into(folder / "moved", data, 3, seed=0)
    with pytest.raises(DataError, match="it exists and is not a split"):
        split_into(folder, data, 2, seed=0)
