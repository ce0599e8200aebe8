"""The table of examples that apps get: how it is read, changed, divided and shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fedpkg.apps.federated_data import (
    Dataset,
    DatasetDict,
    Divider,
    FederatedDataError,
    FederatedDataset,
    Merger,
    concatenate,
    concatenate_divisions,
    divide_dataset,
)
from fedpkg.apps.federated_data import columns as columns_module
from fedpkg.apps.federated_data.columns import Array, ClassLabel, Column, Image, Value
from fedpkg.apps.federated_data.metrics import compute_counts, compute_frequencies
from fedpkg.apps.federated_data.partitioners import DirichletPartitioner, IidPartitioner, SizePartitioner

PIXELS = np.random.default_rng(0).integers(0, 255, (12, 3, 5, 7), dtype=np.uint8)
LABELS = np.arange(12) % 3


def images() -> Dataset:
    return Dataset({"img": Column(PIXELS, is_image=True), "label": Column(LABELS, names=("cat", "dog", "owl"))})


def numbers(count: int = 10) -> Dataset:
    return Dataset.from_dict({"x": np.arange(count * 2.0).reshape(count, 2), "y": list(range(count))})


def test_a_row_a_slice_and_a_column() -> None:
    table = numbers()
    row = table[3]
    assert (row["x"].tolist(), row["y"], type(row["y"])) == ([6.0, 7.0], 3, int)
    assert table[-1]["y"] == table[np.int64(9)]["y"] == 9
    assert table[2:8:3]["y"] == [2, 5]
    assert table[[4, -1]]["y"] == table[np.array([4, 9])]["y"] == [4, 9]
    assert table[np.arange(10) > 7]["y"] == [8, 9]
    assert table["y"] == [one["y"] for one in table] == table.to_dict()["y"] == list(range(10))
    assert (len(table), table.num_rows, table.shape, table.column_names) == (10, 10, (10, 2), ["x", "y"])
    for wrong in (10, -11, [3, 10]):
        with pytest.raises(IndexError, match="a dataset with 10 rows"):
            table[wrong]


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_a_column_of_rows_that_does_not_exist_lists_those_that_do(form: str | None) -> None:
    table = numbers().with_format(form)
    for rows in (table[0], table[:3], next(iter(table))):
        with pytest.raises(FederatedDataError, match=r"no column 'image'(.|\n)*its columns: x, y"):
            rows["image"]


def test_rows_can_be_written_to_and_the_data_stay() -> None:
    values = np.zeros((2, 3))
    values.flags.writeable = False  # as those of a mapped file
    table = Dataset({"x": Column(values)})
    table[0]["x"][:] = 1
    table.with_format("torch")[:]["x"].fill_(1)
    assert not values.any()


def test_unknown_columns_are_named_with_what_there_is() -> None:
    table = images()
    for read in (
        lambda: table["image"],
        lambda: table.remove_columns("image"),
        lambda: table.with_transform(lambda batch: {"x": batch["image"]})[0],
        lambda: table.with_transform(lambda batch: {"x": batch["image"]})[:2],
        lambda: table.rename_column("image", "x"),
        lambda: table.with_format("torch", columns=["image"]),
    ):
        with pytest.raises(KeyError) as caught:
            read()
        assert isinstance(caught.value, FederatedDataError)
        assert str(caught.value) == (
            "the dataset has no column 'image'; did you mean 'img'?\n    try      its columns: img, label"
        )


def test_images_are_pillows_or_bytes_with_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    first = images()[0]["img"]
    assert (type(first).__module__.partition(".")[0], first.size, first.mode) == ("PIL", (7, 5), "RGB")
    assert np.array_equal(np.asarray(first), PIXELS[0].transpose(1, 2, 0))
    grey = Dataset({"image": Column(PIXELS[:, 0], is_image=True)})
    assert (grey[0]["image"].mode, grey[0]["image"].size) == ("L", (7, 5))
    tensor = images().with_format("torch")[:2]["img"]
    assert torch.equal(tensor, torch.from_numpy(PIXELS[:2]))
    assert grey.with_format("torch")[:2]["image"].shape == (2, 1, 5, 7)
    assert images().with_format("numpy")[:2]["img"].shape == (2, 5, 7, 3)
    last = Dataset({"img": Column(PIXELS.transpose(0, 2, 3, 1), is_image=True)})
    assert np.array_equal(np.asarray(last[3]["img"]), np.asarray(images()[3]["img"]))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert np.array_equal(images()[0]["img"], PIXELS[0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [((9, 28, 28), "u1", True), ((9, 3, 8, 8), "u1", True), ((9, 8, 8, 4), "u1", True), ((9, 2, 8, 8), "u1", False),
     ((9, 784), "u1", False), ((9, 28, 28), "f4", False)],
)  # fmt: skip
def test_which_arrays_are_images(shape: tuple[int, ...], dtype: str, expected: bool) -> None:
    assert columns_module.is_picture(shape, np.dtype(dtype)) is expected


def test_features() -> None:
    found = images().features
    assert (found["img"], found["label"]) == (Image(), ClassLabel(["cat", "dog", "owl"]))
    label = found["label"]
    assert isinstance(label, ClassLabel)
    assert (label.num_classes, label.int2str(1), label.str2int("owl")) == (3, "dog", 2)
    assert numbers().features == {"x": Array((2,), "float64"), "y": Value("int64")}
    assert Dataset.from_dict({"t": ["a", "b"]}).features == {"t": Value("string")}


def test_a_torch_loader_gets_batches() -> None:
    def changed(batch: dict[str, list[Any]]) -> dict[str, Any]:
        return {
            **batch,
            "img": [torch.from_numpy(np.asarray(one).copy()).permute(2, 0, 1) / 255 for one in batch["img"]],
        }

    parts = images().train_test_split(test_size=0.25, seed=1).with_transform(changed)
    for batch in DataLoader(parts["train"], batch_size=4, shuffle=True):
        assert batch["img"].shape[1:] == (3, 5, 7)
        assert batch["label"].dtype == torch.int64
    assert [len(batch["y"]) for batch in DataLoader(numbers(), batch_size=4)] == [4, 4, 2]
    batch = next(iter(DataLoader(numbers().with_format("torch"), batch_size=4)))
    assert (batch["x"].dtype, batch["y"].tolist()) == (torch.float32, [0, 1, 2, 3])


def test_formats() -> None:
    table = numbers()
    assert isinstance(table.with_format("numpy")["y"], np.ndarray)
    assert table.with_format("numpy")[1]["x"].tolist() == [2.0, 3.0]
    assert list(table.with_format("torch", columns=["y"])[0]) == ["y"]
    assert list(table.with_format("torch", columns=["y"], output_all_columns=True)[0]) == ["x", "y"]
    assert table.with_format("torch").with_format(None)["y"] == list(range(10))
    table.set_format("torch")
    assert torch.equal(table[:3]["y"], torch.tensor([0, 1, 2]))
    table.reset_format()
    assert table[:3]["y"] == [0, 1, 2]
    with pytest.raises(FederatedDataError, match="there is no format 'jax'"):
        table.with_format("jax")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [({}, (7, 3)), ({"test_size": 0.2}, (8, 2)), ({"test_size": 3}, (7, 3)), ({"train_size": 0.5}, (5, 5)),
     ({"train_size": 4, "test_size": 0.2}, (4, 2)), ({"test_size": 0.25, "shuffle": False}, (7, 3))],
)  # fmt: skip
def test_train_and_test_are_disjoint(sizes: dict[str, Any], expected: tuple[int, int]) -> None:
    parts = numbers().train_test_split(seed=42, **sizes)
    found = [parts[name]["y"] for name in ("train", "test")]
    assert tuple(map(len, found)) == expected
    assert len({*found[0], *found[1]}) == sum(expected)
    assert numbers().train_test_split(seed=42, **sizes)["train"]["y"] == found[0]
    if sizes.get("shuffle") is False:
        assert found == [list(range(7)), [7, 8, 9]]


def test_stratified_parts_have_one_mixture() -> None:
    parts = images().train_test_split(test_size=0.25, stratify_by_column="label", seed=0)
    assert sorted(parts["test"]["label"]) == [0, 1, 2]
    assert sorted(parts["train"]["label"]) == sorted([0, 1, 2] * 3)


@pytest.mark.parametrize("sizes", [{"test_size": 0}, {"test_size": 10}, {"train_size": 8, "test_size": 3}])
def test_impossible_sizes_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(FederatedDataError, match="train_test_split: 10 rows cannot be divided into"):
        numbers().train_test_split(**sizes)


def test_without_a_seed_numpys_decides() -> None:
    def drawn() -> list[int]:
        np.random.seed(7)
        return list(numbers().shuffle()["y"])

    assert drawn() == drawn() != list(range(10))


def test_selections_of_selections() -> None:
    table = numbers(20).select(range(5, 20)).shuffle(seed=3).shard(3, 1)
    whole = numbers(20).select(range(5, 20)).shuffle(seed=3)["y"]
    assert table["y"] == whole[5:10]
    assert [numbers(7).shard(3, index)["y"] for index in range(3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert numbers(7).shard(3, 1, contiguous=False)["y"] == [1, 4]
    assert numbers(7).skip(5)["y"] == numbers(7).select([5, 6])["y"] == [5, 6]
    assert numbers(7).take(2)["y"] == [0, 1]
    assert Dataset.from_dict({"a": [2, 1, 2], "b": [0, 1, 2]}).sort(["a", "b"], reverse=True)["b"] == [2, 0, 1]
    with pytest.raises(FederatedDataError, match="there is no shard 3 of 3"):
        numbers().shard(3, 3)


def test_map_and_filter() -> None:
    table = numbers()
    doubled = table.map(lambda row: {"z": row["y"] * 2})
    assert (doubled.column_names, doubled["z"], doubled["y"]) == (["x", "y", "z"], list(range(0, 20, 2)), table["y"])
    batched = table.map(lambda batch, rows: {"z": rows}, batched=True, batch_size=3, with_indices=True, num_proc=4)
    assert batched["z"] == list(range(10))
    assert table.map(lambda batch: {"z": [1, 2]}, batched=True, remove_columns=table.column_names)["z"] == [1, 2]
    assert table.map(lambda y, add: {"y": y + add}, input_columns="y", fn_kwargs={"add": 1})["y"] == list(range(1, 11))
    assert table.map(lambda row: None)["y"] == table["y"]
    assert table.map(lambda row: {"t": torch.ones(3)})[0]["t"].shape == (3,)
    assert table.map(lambda row: {"t": "a" * row["y"]})[2]["t"] == "aa"
    assert table.map(lambda row: {"t": list(range(row["y"]))})[3]["t"] == [0, 1, 2]
    assert table.filter(lambda row: row["y"] > 7)["y"] == [8, 9]
    assert table.filter(lambda batch: [y % 5 == 0 for y in batch["y"]], batched=True, batch_size=4)["y"] == [0, 5]
    with pytest.raises(FederatedDataError, match=r"returned 2 rows for 10, so the columns \['x', 'y'\] do not fit"):
        table.map(lambda batch: {"z": [1, 2]}, batched=True)


def test_columns_are_renamed_removed_and_added() -> None:
    table = images().rename_columns({"img": "x", "label": "y"}).add_column("z", list(range(12)))
    assert table.column_names == ["x", "y", "z"]
    assert isinstance(table.features["y"], ClassLabel)
    assert table.remove_columns(["x"]).select_columns("z").column_names == ["z"]
    assert images().unique("label") == [0, 1, 2]
    with pytest.raises(FederatedDataError, match="two columns would have one name"):
        images().rename_column("img", "label")


def test_joined_and_divided_splits() -> None:
    both = concatenate([images().select([0, 1]), images().select([5])])
    assert both["label"] == [0, 1, 2]
    assert np.array_equal(np.asarray(both[2]["img"]), np.asarray(images()[5]["img"]))
    splits = {"train": numbers(8), "test": numbers(2)}
    merged = Merger({"all": ("train", "test"), "train": ("train",)})(splits)
    assert (len(merged["all"]), len(merged["train"])) == (10, 8)
    divided = Divider({"train": 0.75, "valid": 0.25}, divide_split="train")(splits)
    assert {name: len(one) for name, one in divided.items()} == {"test": 2, "train": 6, "valid": 2}
    several = Divider({"train": {"a": 3, "b": 2}, "test": {"c": 1.0}}, drop_remaining_splits=True)(splits)
    assert several.num_rows == {"a": 3, "b": 2, "c": 2}
    assert [len(part) for part in divide_dataset(numbers(), [0.5, 0.2])] == [5, 2]
    assert divide_dataset(numbers(), {"a": 0.5, "b": 0.5})["b"]["y"] == [5, 6, 7, 8, 9]
    partitioner = SizePartitioner([6, 4])
    partitioner.dataset = numbers()
    six, four = (partitioner.load_partition(number)["y"] for number in range(2))
    assert concatenate_divisions(partitioner, [0.5, 0.5], 1)["y"] == [*six[3:], *four[2:]]
    assert concatenate_divisions(partitioner, {"train": 0.5, "test": 0.5}, "train")["y"] == [*six[:3], *four[:2]]
    for wrong, message in (([0.8, 0.3], "add up to more than 1"), ([8, 3], "are 11 rows"), ([], "are no fractions")):
        with pytest.raises(FederatedDataError, match=message):
            divide_dataset(numbers(), wrong)
    with pytest.raises(FederatedDataError, match="Merger: 'all': the dataset has no split 'valid'"):
        Merger({"all": ("train", "valid")})(splits)


def test_a_named_dataset_of_scikit_learn_needs_no_file() -> None:
    pytest.importorskip("sklearn")
    whole = FederatedDataset(dataset="sklearn/digits", partitioners={"train": 10, "test": IidPartitioner(2)})
    parts = [whole.load_partition(number, "train") for number in range(10)]
    assert sum(map(len, parts)) == len(whole.load_split("train")) == 1438
    assert parts[0][0]["x"].shape == (64,)
    assert {name: one.num_partitions for name, one in whole.partitioners.items()} == {"train": 10, "test": 2}
    with pytest.raises(FederatedDataError, match="partitioners are given for train, test"):
        whole.load_partition(0)
    with pytest.raises(FederatedDataError, match="has no split 'valid'"):
        whole.load_split("valid")
    with pytest.raises(FederatedDataError, match="no partitioner is given for the split 'valid'"):
        whole.load_partition(0, "valid")
    with pytest.raises(FederatedDataError, match=r"there is no partition 10: the dataset is divided into 10"):
        whole.load_partition(10, "train")
    merged = FederatedDataset(
        dataset="sklearn/iris", preprocessor={"train": ("train", "test")}, partitioners={"train": 3}
    )
    assert [len(merged.load_partition(number)) for number in range(3)] == [50, 50, 50]


def test_what_a_federated_dataset_refuses() -> None:
    with pytest.raises(FederatedDataError, match="two splits have the same partitioner"):
        one = IidPartitioner(2)
        FederatedDataset(dataset="a", partitioners={"train": one, "test": one})
    with pytest.raises(FederatedDataError, match="the partitioner of the split 'train' is a str"):
        FederatedDataset(dataset="a", partitioners={"train": "iid"})  # type: ignore[dict-item]
    with pytest.raises(FederatedDataError) as caught:
        FederatedDataset(dataset="ylecun/mnist", partitioners={"train": 2}).load_partition(0)
    assert caught.value.message == (
        "FederatedDataset: no data are named for the dataset 'ylecun/mnist'; the configuration names no data. fedpkg "
        "downloads nothing"
    )
    assert "run.data.sources.mnist=PATH" in (caught.value.hint or "")


def test_counts_need_pandas() -> None:
    divide = DirichletPartitioner(3, "label", 1.0, min_partition_size=1)
    divide.dataset = images()
    try:
        import pandas  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(FederatedDataError, match="compute_counts needs pandas, which is not installed"):
            compute_counts(divide, "label")
        return
    counts = compute_counts(divide, "label", verbose_names=True)
    assert (counts.to_numpy().sum(), list(counts.columns)) == (12, ["cat", "dog", "owl"])
    assert compute_frequencies(divide, "label").to_numpy().sum() == pytest.approx(3)


def test_splits_together() -> None:
    both = DatasetDict(numbers().train_test_split(test_size=0.5, seed=0))
    assert both.rename_column("y", "label").column_names == {"train": ["x", "label"], "test": ["x", "label"]}
    with pytest.raises(AttributeError):
        both.nothing  # noqa: B018
