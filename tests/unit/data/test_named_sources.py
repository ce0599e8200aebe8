"""data.sources: what a dataset's name in an app's code stands for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.apps.federated_data.columns import ClassLabel, Image, Value
from fedpkg.apps.federated_data.sources import VARIABLE, open_splits
from fedpkg.cli.main import run_command
from fedpkg.config_sections import AppDataConfig
from fedpkg.config_shape import Places
from fedpkg.data.named_sources import Prepared, copies_for_apps, prepare_sources, resolve_sources
from fedpkg.errors import ConfigError, DataError
from fedpkg.session.configuration import load
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

RNG = np.random.default_rng(0)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    arrays = {"x_train": RNG.integers(0, 9, (8, 28, 28), dtype=np.uint8), "y_train": np.arange(8)}
    np.savez(
        tmp_path / "a.npz",
        **arrays,
        x_test=arrays["x_train"][:2],
        y_test=arrays["y_train"][:2],
        writer=np.arange(8) % 2,
    )
    return tmp_path / "a.npz"


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **sources: Any) -> Prepared:
    resolved = resolve_sources(sources, Places("run.yaml"))
    found = prepare_sources(AppDataConfig(sources=resolved), tmp_path / "home")
    assert prepare_sources(AppDataConfig(sources=resolved, digests=found.digests), tmp_path / "home") == found  # type: ignore[arg-type]
    monkeypatch.setenv(VARIABLE, str(found.listing))
    return found


def test_arrays_are_mapped_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path) -> None:
    found = prepared(tmp_path, monkeypatch, mnist=str(npz))
    assert found.files == (npz,)
    splits = open_splits("ylecun/mnist", None)
    assert {name: (len(one), one.features["image"]) for name, one in splits.items()} == {
        "train": (8, Image()),
        "test": (2, Image()),
    }
    assert isinstance(splits["train"].column("image").values, np.memmap)
    assert prepared(tmp_path, monkeypatch, mnist=str(npz)) == found


def test_the_whole_name_comes_first_and_then_the_subset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path
) -> None:
    np.savez(tmp_path / "b.npz", x_train=np.zeros((3, 2)), y_train=np.zeros(3))
    np.savez(tmp_path / "c.npz", x_train=np.zeros((4, 2)), y_train=np.zeros(4))
    files = {name: str(tmp_path / f"{name}.npz") for name in "abc"}
    prepared(tmp_path, monkeypatch, **{"mnist": files["a"], "ylecun/mnist": files["b"], "mnist/small": files["c"]})
    assert [len(open_splits(*name)["train"]) for name in (("ylecun/mnist", None), ("other/mnist", None))] == [3, 8]
    assert len(open_splits("ylecun/mnist", "small")["train"]) == 4
    with pytest.raises(DataError, match="the configuration names: mnist, ylecun/mnist, mnist/small"):
        open_splits("cifar10", None)


def test_columns_of_a_table_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "t.csv").write_text("age,height,sick,site\n1,2,no,a\n3,4,yes,b\n")
    section = {"path": str(tmp_path / "t.csv"), "label": "sick", "other": ["site"], "rename": {"height": "size"}}
    found = prepared(tmp_path, monkeypatch, patients=section)
    table = open_splits("patients", None)["train"]
    assert table.column_names == ["age", "size", "sick", "site"]
    assert (table["size"], table["sick"], table["site"]) == ([2.0, 4.0], [0, 1], [0, 1])
    assert (table.features["sick"], table.features["age"]) == (ClassLabel(["no", "yes"]), Value("float32"))
    assert [path.parent.name for path in found.files] == ["apps"]


def test_a_folder_of_images_and_a_part_for_each_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            pixels = RNG.integers(0, 255, (6, 5, 3), dtype=np.uint8)
            pillow.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    found = prepared(tmp_path, monkeypatch, cifar10={"train": str(tmp_path / "pictures"), "valid": str(npz)})
    splits = open_splits("uoft-cs/cifar10", None)
    assert {name: len(one) for name, one in splits.items()} == {"train": 6, "valid": 8}
    assert splits["train"].features == {"img": Image(), "label": ClassLabel(["cat", "dog"])}
    assert np.array_equal(np.asarray(splits["train"][5]["img"]), pixels)
    assert [path.name == "a.npz" for path in found.files] == [False, True]


def test_more_columns_of_an_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path) -> None:
    section = {"path": str(npz), "columns": ["writer"], "rename": {"image": "pixels"}}
    prepared(tmp_path, monkeypatch, femnist=section)
    assert open_splits("flwrlabs/femnist", None)["train"].column_names == ["pixels", "label", "writer"]
    with pytest.raises(
        DataError, match=r"'rename' names the column 'imag', which does not exist; did you mean 'image'"
    ):
        prepared(tmp_path, monkeypatch, femnist={"path": str(npz), "rename": {"imag": "pixels"}})


def test_a_dataset_of_scikit_learn_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    prepared(tmp_path, monkeypatch, digits="sklearn/digits")
    assert open_splits("me/digits", None)["test"]["label"] == open_splits("sklearn/digits", None)["test"]["label"]


def test_another_content_is_told_with_both_digests(tmp_path: Path, npz: Path) -> None:
    sources: dict[str, Any] = {"mnist": str(npz)}
    data = AppDataConfig(
        sources=sources, digests=dict(prepare_sources(AppDataConfig(sources=sources), tmp_path).digests)
    )
    np.savez(npz, x_train=np.zeros((3, 2)), y_train=np.zeros(3))
    now = prepare_sources(AppDataConfig(sources=sources), tmp_path).digests["mnist"]
    with pytest.raises(DataError, match=r"data\.sources\.mnist has changed since the session began") as caught:
        prepare_sources(data, tmp_path / "home")
    assert caught.value.message.endswith(f"its digest was {data.digests['mnist']} and is now {now}")


def test_a_copy_that_does_not_fit_on_the_disk_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path
) -> None:
    np.savez_compressed(npz, **np.load(npz))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"a\.npz: arrays that tasks map need 0 MB, and the disk of .* has 0 MB"):
        prepared(tmp_path, monkeypatch, mnist=str(npz))
    assert not list((tmp_path / "home").rglob("*.npz"))


def test_a_file_that_changes_during_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npz: Path) -> None:
    prepared(tmp_path, monkeypatch, mnist=str(npz))
    content = npz.read_bytes()
    npz.write_bytes(content)  # the same bytes at another time
    assert len(open_splits("mnist", None)["train"]) == 8
    npz.write_bytes(content[:-1] + b"x")
    with pytest.raises(
        DataError, match=r"a\.npz: .*has changed since the session began or was resumed: its digest was "
    ):
        open_splits("mnist", None)


@pytest.mark.parametrize("kind", ["text", "objects", "no labels", "lengths", "nothing"])
def test_bad_files_are_found_before_the_first_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "bad.npz"
    if kind == "text":
        path.write_text("x_train,y_train")
    elif kind == "objects":
        np.savez(path, x_train=np.array([{}, {}], object), y_train=np.arange(2))
    elif kind == "no labels":
        np.savez(path, x_train=np.zeros(2))
    elif kind == "lengths":
        np.savez(path, x_train=np.zeros(2), y_train=np.zeros(3))
    with pytest.raises(DataError, match=r"bad\.npz"):
        prepared(tmp_path, monkeypatch, mnist=str(path))


def test_a_dtype_that_cannot_be_mapped_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "half.pt"
    torch.save({"x_train": torch.zeros(3, 2, dtype=torch.bfloat16), "y_train": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"half\.pt: .* need dtypes of NumPy, and x_train is torch\.bfloat16") as caught:
        prepared(tmp_path, monkeypatch, mnist=str(path))
    assert caught.value.hint == "save it with dtypes of NumPy, such as float32"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnist", r"there is no dataset 'mnist'"),
        ({"path": "a.npz", "label": "y"}, "unknown key 'label'|label"),
        ({"name": "csvs", "path": "a.csv"}, "there is no dataset 'csvs'; did you mean 'csv'"),
        ({}, r"'data\.sources\.mnist' names no data"),
        ({"train": 3}, r"'data\.sources\.mnist\.train' must be a path, a name or a section, found 3"),
        ({"path": "a.npz", "rename": {"x": 3}}, "'rename' must have names of columns"),
    ],
)
def test_mistakes_are_found_when_the_configuration_is_read(tmp_path: Path, source: Any, message: str) -> None:
    path = tmp_path / "run.yaml"
    data = json.dumps({"sources": {"mnist": source}})
    path.write_text(f"package: p\nrounds: 1\nclients: {{count: 2}}\ndata: {data}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert "run.yaml" in caught.value.message


def test_paths_start_at_the_file_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below" / "images").mkdir(parents=True)
    (tmp_path / "run.yaml").write_text(
        "package: p\nrounds: 1\nclients: {count: 2}\n"
        "data: {sources: {a: below/images, b: {train: x.npz, test: {name: npz, path: y.npz}}, c: sklearn/iris}}\n"
    )
    monkeypatch.chdir(tmp_path / "below")
    config = load(tmp_path / "run.yaml", ["data.sources.uoft-cs/d=images", "data.sources.e=z.npz"]).config
    found = config.data.sources
    images = {"name": "images", "path": str(tmp_path / "below/images"), "mode": "RGB", "size": None}
    assert found["a"] == found["uoft-cs/d"] == images
    assert found["b"]["train"] == str(tmp_path / "x.npz")  # type: ignore[index]
    assert found["b"]["test"]["path"] == str(tmp_path / "y.npz")  # type: ignore[index,call-overload]
    assert (found["c"], found["e"]) == ("sklearn/iris", str(tmp_path / "below/z.npz"))


def test_home_prune_removes_copies_and_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], npz: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    data = AppDataConfig(sources={"mnist": {"name": "npz", "path": str(npz), "columns": ["writer"]}})
    with open_store(Home.open(tmp_path / ".fedpkg")):
        prepare_sources(data, tmp_path / ".fedpkg" / "data")
    assert len(copies_for_apps(tmp_path / ".fedpkg" / "data")) == 2
    assert run_command(["home", "prune"]) == 0
    assert not copies_for_apps(tmp_path / ".fedpkg" / "data"), capsys.readouterr()
