"""Models of clusters on the command line and in Python: listed, followed back, exported, and what they measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_support import REPO, fedpkg, write_run_yaml

from fedpkg.formats.model_file import read_model
from fedpkg.session.session import Session

DRIFTING = REPO / "tests" / "packages" / "drifting"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ifca")
    run = write_run_yaml(
        folder, package=str(DRIFTING), strategy={"name": "ifca", "loss": "mean"}, validation={"every": 1}
    )
    ended = fedpkg("run", run, "--home", folder / "home")
    assert ended.code == 0, ended.err
    return folder / "home"


def test_models_of_clusters_are_listed_followed_back_and_exported(home: Path, tmp_path: Path) -> None:
    where = ("--home", home)
    listed = fedpkg("model", "list", "--cluster", "0", *where, "--json").json()
    assert {model["cluster"] for model in listed} == {"0"}
    assert {model["cluster"] for model in fedpkg("model", "list", "--clusters", *where, "--json").json()} == {"0", "1"}
    assert {model["cluster"] for model in fedpkg("model", "list", *where, "--json").json()} == {""}
    header, first, *_ = fedpkg("model", "list", "--clusters", *where).out.splitlines()
    assert header.split()[:3] == ["model", "rounds", "from"] and first.split()[2] == "0"
    trail = fedpkg("model", "trail", "latest", "--cluster", "0", *where, "--json").json()
    assert [model["model_id"] for model in trail[:-1]] == [model["model_id"] for model in reversed(listed)]
    assert trail[-1]["round_number"] == 0 and not trail[-1]["cluster"]
    assert fedpkg("model", "export", "latest", "--cluster", "0", "-o", tmp_path / "zero.npz", *where).code == 0
    with_id = fedpkg("model", "diff", "latest/0", tmp_path / "zero.npz", *where)
    assert "bit-identical" in with_id.out
    assert "differ" in fedpkg("model", "diff", "latest/0", "latest/1", *where).out
    session = Session.open(home)
    assert session.model(cluster="0").equal(read_model(tmp_path / "zero.npz"))
    assert {row.cluster for row in session.cluster_models()} == {"0", "1"}
    assert session.cluster_models("0")[-1].until_round is None
    assert set(session.clusters().values()) <= {"0", "1"} and len(session.clusters()) == 3
    assert fedpkg("home", "check", *where).code == 0


def test_unknown_cluster_is_an_error_with_the_known_ones(home: Path) -> None:
    for command in (["list"], ["trail", "latest"], ["export", "latest", "-o", "x.npz"]):
        ended = fedpkg("model", *command, "--cluster", "north", "--home", home)
        assert "has no cluster 'north'; it has 0, 1" in ended.err and ended.code == 7, command


def test_metrics_are_shown_by_cluster(home: Path) -> None:
    where = ("--home", home)
    document = fedpkg("session", "show", *where, "--json").json()
    assert [one["cluster"] for one in document["clusters"]] == ["0", "1"]
    assert sum(len(one["clients"]) for one in document["clusters"]) == 3
    assert any(one["metrics"] for one in document["clusters"])
    assert "cluster  clients  model" in " ".join(fedpkg("session", "show", *where).out.split("\n")).replace("   ", "  ")
    of_round = fedpkg("session", "show", "--round", "1", *where, "--json").json()
    assert [one["cluster"] for one in of_round["clusters"]] == ["0", "1"]
    aggregates = fedpkg("metric", "list", "--aggregates", *where, "--json").json()
    by_cluster = {one["cluster"] for one in aggregates if one["phase"] == "validate"}
    assert "" in by_cluster and len(by_cluster) > 1
    assert "(all)" in fedpkg("metric", "list", "--aggregates", *where).out
    assert "cluster" in fedpkg("validation", "list", *where).out.splitlines()[0]


def test_an_export_has_the_models_and_moves_of_clusters(home: Path, tmp_path: Path) -> None:
    assert fedpkg("session", "export", tmp_path / "out", "--home", home).code == 0

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]

    assert {row["cluster"] for row in lines("models.jsonl")} == {"", "0", "1"}
    digests = {row["digest"] for row in lines("models.jsonl") if row["cluster"]}
    assert {path.stem for path in (tmp_path / "out/models/clusters").iterdir()} == digests
    assert {row["client_id"] for row in lines("cluster_clients.jsonl")} == {"client-0", "client-1", "client-2"}
    assert {row["cluster"] for row in lines("metric_rows.jsonl") if row["phase"] == "validate"} > {""}
    clusters, _, _ = (tmp_path / "out/report.html").read_text().partition('id="clusters"')[2].partition("</table>")
    assert re.findall(r"<tr><td>(.*?)</td>", clusters) == ["0", "1"]
