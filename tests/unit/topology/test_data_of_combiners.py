"""Trees and data: datasets of combiners, and places of clients by the split of their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.cli.main import run_command
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_of
from fedpkg.data.clients import prepare_clients
from fedpkg.errors import ConfigError, FedpkgError
from fedpkg.session.configuration import resolved
from fedpkg.topology.building import facts_of, manifest_of, shares_of, tree_of

NORTH, SOUTH = ["client-[0-2]"], ["client-[3-5]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, number in (("common", 12), ("south", 30)):
        y = np.arange(number) % 3
        np.savez(
            f"{name}.npz",
            x_train=np.full((number, 2), number),
            y_train=y,
            country=np.array(["fi", "se"])[np.arange(number) // (number // 2)],
            region=np.array(["a", "b", "c"])[y],
        )
    (tmp_path / "entities.yaml").write_text("[{id: p}, {id: a, parent: p, site: x}, {id: b, parent: p, site: y}]")
    return tmp_path


def config(topology: dict[str, Any], **clients: Any) -> RunConfig:
    clients = clients or {"count": 6, "data": {"dataset": "common.npz"}}
    return config_of({"package": ".", "rounds": 1, "clients": clients, "topology": topology}, resolve=resolved)


def declared(*, north: dict[str, Any] | None = None, south: dict[str, Any] | None = None) -> dict[str, Any]:
    children = [
        {"name": "north", "clients": NORTH, **(north or {})},
        {"name": "south", "clients": SOUTH, **(south or {})},
    ]
    return {"children": children}


def sizes(config: RunConfig) -> list[int | None]:
    clients = prepare_clients(
        config.clients, cache=Path("cache"), seed=0, shares=shares_of(config), facts=facts_of(config)
    )
    return [one.num_examples for one in clients]


def places(config: RunConfig) -> dict[str, tuple[str, ...]]:
    clients = prepare_clients(config.clients, cache=Path("cache"), seed=0, facts=facts_of(config))
    tree = tree_of(config, [one.client_id for one in clients], manifest=lambda: manifest_of(config, clients[0].path))
    assert tree is not None
    return {one.path: one.clients for one in tree.root.everyone() if one.clients}


def test_clients_below_a_combiner_divide_its_dataset_and_the_others_that_of_all(here: Path) -> None:
    assert sizes(config(declared())) == [2] * 6
    assert sizes(config(declared(south={"data": "south.npz"}))) == [4, 4, 4, 10, 10, 10]
    deeper = {
        "data": {"dataset": "south.npz"},
        "clients": ["client-3"],
        "children": [{"name": "in", "clients": ["client-[45]"]}],
    }
    assert sizes(config(declared(south=deeper))) == [4, 4, 4, 10, 10, 10]
    assert sizes(config(declared(north={"data": "common.npz"}, south=deeper), count=6)) == [4, 4, 4, 10, 10, 10]


def test_keys_of_data_that_a_combiner_leaves_out_come_from_above(here: Path) -> None:
    data = {"dataset": "common.npz", "within": {"test": 0.5}, "partition": {"name": "shards", "shards_per_client": 1}}
    shares = shares_of(config(declared(south={"data": "south.npz"}), count=6, data=data))
    assert [(share.clients[0], share.data.within, share.data.partition["name"]) for share in shares] == [
        ("client-0", {"test": 0.5}, "shards"),
        ("client-3", {"test": 0.5}, "shards"),
    ]
    own = {"dataset": "south.npz", "within": {}, "partition": {"name": "iid"}}
    south = shares_of(config(declared(south={"data": own}), count=6, data=data))[1]
    assert (south.data.within, south.data.partition["name"]) == ({}, "iid")


@pytest.mark.parametrize(
    ("tree", "clients", "message"),
    [
        (declared(south={"data": {"partition": {"name": "iid"}}}), {}, "names no 'dataset'"),
        (declared(south={"data": {"dataset": "south.npz", "partiton": {}}}), {}, "partiton"),
        (declared(south={"data": {"dataset": "sklearn/digit"}}), {}, "there is no dataset 'sklearn/digit'"),
        (declared(south={"data": {"dataset": "south.npz", "partition": {"name": "natural_id"}}}), {}, "needs 'topology.children.1.data.partition.by'"),
        (declared(south={"data": "common.npz"}), {}, "south and clients.data divide the same dataset"),
        (declared(north={"data": "south.npz"}, south={"data": "south.npz"}), {"count": 6}, "north and south divide the same dataset"),
        (declared(south={"data": "south.npz"}), {"count": 6}, "client-0 has no data"),
        (declared(south={"data": "south.npz"}), {"folders": "folders/*"}, "would replace the data that clients.folders gives"),
        (declared(south={"data": "missing.npz"}), {}, "topology, combiner south, data: dataset .*missing.npz: no such file"),
        ({"fanout": [2], "defaults": {"data": "south.npz"}}, {}, "'defaults' cannot have 'data'"),
    ],
)  # fmt: skip
def test_data_of_a_combiner_that_cannot_be_is_refused(
    here: Path, tree: dict[str, Any], clients: dict[str, Any], message: str
) -> None:
    for number in range(6):
        (here / "folders" / f"client-{number}").mkdir(parents=True)
    with pytest.raises(FedpkgError, match=message):
        sizes(config(tree, **clients))


def test_a_column_of_the_dataset_makes_a_tree(here: Path) -> None:
    data = {"dataset": "common.npz", "partition": {"name": "natural_id", "by": "ward"}}
    with np.load("common.npz") as arrays:
        np.savez("common.npz", **arrays, ward=np.arange(12) // 2)
    found = places(config({"by": "country", "then": ["top_label"]}, data=data))
    assert found == {
        "fi/0": ("client-0", "client-1"),
        "fi/1": ("client-2",),
        "se/0": ("client-3", "client-4"),
        "se/1": ("client-5",),
    }


def test_data_in_a_file_of_a_tree_is_relative_to_it(here: Path) -> None:
    (here / "trees").mkdir()
    (here / "south.npz").rename(here / "trees" / "south.npz")
    tree = "topology: {others: root, children: [{name: south, clients: ['client-[3-5]'], data: south.npz}]}\n"
    (here / "trees" / "tree.yaml").write_text(tree)
    assert sizes(config({"file": "trees/tree.yaml"})) == [4, 4, 4, 10, 10, 10]
    (here / "trees" / "tree.yaml").write_text(tree + "rounds: 3\n")
    with pytest.raises(ConfigError, match=r"tree\.yaml, line 2: 'rounds' stands beside the section 'topology'"):
        config({"file": "trees/tree.yaml"})


def test_texts_in_a_table_make_a_tree_and_are_shown_before_a_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    rows = [f"{k},{k % 2},{'se' if k < 6 else 'fi'},ward-{k // 3}" for k in range(12)]
    (here / "people.csv").write_text("\n".join(["x,label,country,ward", *rows]))
    data = {"dataset": "people.csv", "partition": {"name": "natural_id", "by": "ward"}}
    assert places(config({"by": "country"}, data=data)) == {
        "se": ("client-0", "client-1"),
        "fi": ("client-2", "client-3"),
    }
    (here / "run.yaml").write_text(
        "{package: ., rounds: 1, topology: {by: country}, "
        "clients: {data: {dataset: people.csv, partition: {name: natural_id, by: ward}}}}"
    )
    (here / "fedn.yaml").write_text("entry_points: {train: {command: 'true'}}")
    assert run_command(["cluster", "tree", "run.yaml"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["combiner", "(root)", "se", "fi"]
    assert not (here / ".fedpkg").exists()


@pytest.mark.parametrize(
    ("by", "clients", "message"),
    [
        ("country", {"count": 6}, "'country' is no attribute of entities, and the run has no dataset"),
        ("contry", {"count": 6, "data": {"dataset": "common.npz"}}, "it has no column 'contry'; did you mean 'country'"),
        ("region", {"count": 2, "data": {"dataset": "common.npz"}}, "'region' tells no place of the client 0 in the tree: it has 3 values"),
        ("sit", {"entities": "entities.yaml"}, "a has no attribute 'sit'"),
    ],
)  # fmt: skip
def test_a_tree_by_what_clients_have_not_is_refused(here: Path, by: str, clients: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpkgError, match=message):
        places(config({"by": by}, **clients))


def test_a_tree_of_entities_without_parents_is_refused(here: Path) -> None:
    (here / "flat.yaml").write_text("[{id: a}, {id: b}]")
    with pytest.raises(FedpkgError, match="no entity has a parent, so there is no tree"):
        places(config({"from": "entities"}, entities="flat.yaml"))


def test_attributes_of_entities_and_columns_go_together(here: Path) -> None:
    data = {"dataset": "common.npz", "partition": {"name": "natural_id", "by": "country"}}
    found = places(config({"by": "site", "then": ["country"]}, entities="entities.yaml", data=data))
    assert found == {"x/fi": ("a",), "y/se": ("b",)}
