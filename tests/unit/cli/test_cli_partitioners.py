"""``fedpkg data list`` and ``data explain``; runs with partitioners of different kinds."""

from pathlib import Path

import numpy as np
import pytest
from cli_support import REPO, fedpkg, write_run_yaml

FILE = """
from fedpkg.data.partitioners import register_partitioner
from fedpkg.data.sources.registry import register_dataset


@register_partitioner("mine_to_list")
class Mine:
    '''My own.'''

    def split(self, values, num_partitions, rng):
        return []


@register_dataset("my_data_to_list")
class Data:
    '''My own data.'''

    def read(self):
        return {}
"""


def test_partitioners_and_datasets_are_listed() -> None:
    listed = fedpkg("data", "list")
    assert listed.code == 0 and "shards                 Shards: examples are sorted by label" in listed.out
    assert "\ncsv " in listed.out and "  by: text or null; default null\n" in listed.out
    document = {one["name"]: one for one in fedpkg("data", "list", "--json").json()}
    assert document["pathological"]["parameters"][0]["required"] and document["csv"]["kind"] == "dataset"


def test_a_partitioner_is_explained_with_what_it_needs(tmp_path: Path) -> None:
    shown = fedpkg("data", "explain", "dirichlet").out
    assert "arXiv:1905.12022" in shown and "needs       labels\n" in shown and "  alpha: a number above 0" in shown
    assert fedpkg("data", "explain", "natural_id", "--json").json()["needs"] == "ids"
    assert "options of all partitioners" not in fedpkg("data", "explain", "csv").out
    unknown = fedpkg("data", "explain", "dirichlett")
    assert unknown.code == 3 and "did you mean 'dirichlet'?" in unknown.err
    (tmp_path / "mine.py").write_text(FILE)
    for name, words in (("mine_to_list", "My own.\n"), ("my_data_to_list", "My own data.\n")):
        assert words in fedpkg("data", "explain", name, "--file", tmp_path / "mine.py").out


@pytest.mark.parametrize(
    ("partition", "count", "sizes"),
    [
        ({"name": "sizes", "sizes": [30, 20, 10]}, None, [30, 20, 10]),
        ({"name": "natural_id", "by": "user"}, None, [40, 40, 40]),
        ({"name": "pathological", "classes_per_client": 1, "assignment": "deterministic"}, 4, [30, 30, 30, 30]),
        ({"name": "feature_noise", "sigma": 0.5, "inner": {"name": "linear"}}, 3, [20, 40, 60]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_run_splits_its_dataset_by_any_partitioner(
    tmp_path: Path, partition: dict[str, object], count: int | None, sizes: list[int]
) -> None:
    numbers = np.arange(120)
    np.savez(tmp_path / "d.npz", x_train=np.zeros((120, 4), np.float32), y_train=numbers % 4, user=numbers % 3)
    clients = {
        "count": count,
        "data": {"dataset": {"name": "npz", "path": "d.npz", "columns": ["user"]}, "partition": partition},
    }
    run_yaml = write_run_yaml(
        tmp_path, package=str(REPO / "tests" / "packages" / "drifting"), clients=clients, rounds=1
    )
    home = tmp_path / "home"
    ended = fedpkg("run", run_yaml, "--home", home)
    assert ended.code == 0, ended.err
    shown = fedpkg("session", "show", "--home", home, "--json").json()
    found = [np.load(home / client["data_path"]) for client in shown["clients"]]
    assert [len(file["y_train"]) for file in found] == sizes
    assert (found[0]["x_train"].std() > 0) == (partition["name"] == "feature_noise")
    told = fedpkg("session", "show", "--home", home).out
    assert f"split {partition['name']}" in told
