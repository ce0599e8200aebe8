"""`clients.data.partition` names a scheme: its keys are checked, completed, and those of older versions still work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedpkg.config import dump_config
from fedpkg.config_reading import config_from_json
from fedpkg.config_shape import Places
from fedpkg.data.partitioners import make_partitioner, resolve_partition
from fedpkg.data.partitioners.registry import PARTITIONERS
from fedpkg.errors import ConfigError
from fedpkg.partitions.dirichlet import DirichletPartitioner
from fedpkg.partitions.iid import IidPartitioner
from fedpkg.session.configuration import load

TEXT = "package: p\nrounds: 1\nclients:\n  count: 2\n  data:\n    dataset: a.npz\n"
KEY = "clients.data.partition"


def partition(folder: Path, given: str, *overrides: str) -> dict[str, Any]:
    (folder / "run.yaml").write_text(TEXT + (f"    partition: {given}\n" if given else ""))
    config = load(folder / "run.yaml", overrides).config
    assert config_from_json(dump_config(config)) == config
    assert config.clients.data is not None
    return dict(config.clients.data.partition)


def test_tables_are_not_given_to_clients_as_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'files' or 'references', found text 'csv'") as caught:
        partition(tmp_path, "", "clients.data.form=csv", "clients.data.dataset=a.csv")
    assert "clients get arrays, also of tables" in (caught.value.hint or "")


def test_without_a_section_the_split_is_iid(tmp_path: Path) -> None:
    assert partition(tmp_path, "") == {"name": "iid", "by": None, "seed": None, "min_examples": 1}


def test_defaults_of_the_parameters_are_filled_in(tmp_path: Path) -> None:
    found = partition(tmp_path, "{name: dirichlet}", f"{KEY}.alpha=0.1")
    assert found | {"name": "dirichlet", "alpha": 0.1, "min_examples": 1, "self_balancing": False} == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{alhpa: 1}", "line 7: unknown key 'alhpa' in 'clients.data.partition'"),
        (
            "{name: dirichlet, alhpa: 1}",
            "line 7: unknown key 'alhpa' in 'clients.data.partition'; did you mean 'alpha'?",
        ),
        (
            "{name: dirichlet, alpha: 0}",
            "line 7: 'clients.data.partition.alpha' must be a number above 0, at most 1e+09",
        ),
        ("{name: dirchlet}", "line 7: there is no partitioner 'dirchlet'; did you mean 'dirichlet'?"),
        ("{name: iid, alpha: 1}", "line 7: unknown key 'alpha' in 'clients.data.partition'"),
        ("{name: iid, by: user}", "line 7: 'clients.data.partition.by' has no effect on the iid partition"),
        ("{name: natural_id}", "line 7: the partitioner 'natural_id' needs 'clients.data.partition.by'"),
        ("{name: rotation, inner: natural_id}", "the partitioner 'rotation' needs 'clients.data.partition.by'"),
        ("{name: rotation, inner: {name: shard}}", "there is no partitioner 'shard'; did you mean 'shards'?"),
        ("{name: pathological}", "missing key 'classes_per_client' in 'clients.data.partition'"),
        ("{name: grouped_ids, by: u, mode: stric}", "did you mean 'strict'?"),
        ("{name: 3}", "line 7: 'clients.data.partition.name' must be the name of a partitioner, found 3"),
    ],
)
def test_a_wrong_section_is_refused_with_its_line(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        partition(tmp_path, given)
    assert message in caught.value.message


def test_only_a_scheme_that_tells_the_number_of_clients_needs_no_count(tmp_path: Path) -> None:
    without = "clients.count=null"
    assert partition(tmp_path, "{name: natural_id, by: user}", without)
    assert partition(tmp_path, "{name: sizes, sizes: [0.5, 0.5]}", without)
    assert partition(tmp_path, "{name: rotation, inner: {name: sizes, sizes: [1]}}", without)
    with pytest.raises(ConfigError, match=r"'clients\.data' needs 'clients\.count', the number of clients to split"):
        partition(tmp_path, "{name: shards}", without)


def test_another_scheme_on_the_command_line_puts_parameters_of_the_file_aside(tmp_path: Path) -> None:
    assert "alpha" not in partition(tmp_path, "{name: dirichlet, alpha: 0.1}", f"{KEY}.name=iid")
    with pytest.raises(ConfigError, match="on the command line: unknown key 'alpha'"):
        partition(tmp_path, "", f"{KEY}.name=iid", f"{KEY}.alpha=1")
    with pytest.raises(ConfigError, match="line 7: unknown key 'alhpa'"):
        partition(tmp_path, "{name: dirichlet, alhpa: 0.1}", f"{KEY}.name=iid")


def test_sections_that_an_earlier_version_stored_make_the_same_partitioners() -> None:
    stored: dict[str, Any] = {"name": "iid", "alpha": 0.5, "min_examples": 3, "seed": None}
    assert make_partitioner(stored) == IidPartitioner(3)
    assert make_partitioner({**stored, "name": "dirichlet"}) == DirichletPartitioner(0.5, 3)


def test_an_installed_package_adds_schemes_by_its_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts.py").write_text(
        "class All:\n    def split(self, values, num_partitions, rng):\n        return [list(range(len(values)))]\n"
    )
    information = tmp_path / "own_parts-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text("[fedpkg.partitioners]\nall-to-one = own_parts:All\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert PARTITIONERS.installed()["all-to-one"] == "own_parts:All"
    assert partition(tmp_path, "{name: all-to-one, by: user}")["by"] == "user"
    assert len(make_partitioner({"name": "all-to-one"}).split(range(3), 1, None)[0]) == 3
    assert len(make_partitioner({"name": "own_parts:All"}).split(range(4), 1, None)[0]) == 4


def test_a_file_named_in_the_section_registers_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(
        "import numpy as np\n"
        "from fedpkg.data.partitioners import register_partitioner\n\n"
        "@register_partitioner('halves_of_a_test')\n"
        "class Halves:\n"
        "    def __init__(self, first: float = 0.5):\n"
        "        self.first = first\n"
        "    def split(self, values, num_partitions, rng):\n"
        "        return np.split(np.arange(len(values)), [int(self.first * len(values))])\n"
    )
    found = partition(tmp_path, "{file: halves.py, first: 0.25}")
    assert found["name"] == "halves_of_a_test" and found["file"] == str(tmp_path / "halves.py")
    assert [len(part) for part in make_partitioner(found).split(range(8), 2, None)] == [2, 6]
    with pytest.raises(ConfigError, match=r"makes a \w*Path, which is no partitioner"):
        make_partitioner(resolve_partition({"name": "pathlib:Path"}, Places("x")))
