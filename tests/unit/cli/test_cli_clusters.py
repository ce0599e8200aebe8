"""``fedpkg cluster`` and ``session show --tree``: trees before a run, and what their combiners did."""

import json
import re
from pathlib import Path

import pytest
from cli_support import fedpkg, write_run_yaml

from fedpkg.topology.telling import some_of

TREE = {
    "children": [
        {"name": "north", "rounds": 2, "clients": ["client-[0-1]"], "arguments": {"train": {"num_examples": 5}}},
        {
            "name": "south",
            "strategy": "fedadam",
            "clients": ["client-2"],
            "children": [{"name": "edge", "clients": ["client-3"]}],
        },
    ]
}


@pytest.fixture
def run_yaml(here):
    return write_run_yaml(here, clients={"count": 4}, rounds=2, topology=TREE)


def test_a_tree_is_shown_and_checked_before_it_runs(run_yaml):
    shown = fedpkg("cluster", "tree", run_yaml)
    assert shown.code == 0, shown.err
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [
        ["(root)", "fedavg"],
        ["north", "fedavg"],
        ["south", "fedadam"],
        ["edge", "fedadam"],
    ]
    told = fedpkg("cluster", "tree", run_yaml, "topology={fanout: [2]}", "--json").json()
    assert [(one["path"], one["num_clients"]) for one in told] == [("", 4), ("0", 2), ("1", 2)]
    checked = fedpkg("cluster", "check", run_yaml)
    assert "4 clients below 3 combiners and the root, on 3 levels" in checked.out


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"arguments": {"trian": {"lr": 1}}}, "topology, combiner a/b: unknown entry point 'trian' in 'arguments'"),
        ({"strategy": "fedsgd"}, "topology, combiner a/b: strategy fedsgd asks the clients for 'gradient'"),
    ],
)
@pytest.mark.parametrize("command", [["cluster", "check"], ["run"]])
def test_what_the_package_cannot_do_for_a_combiner_is_refused_before_a_run(here, command, tree, message):
    below = {"name": "a", "children": [{"name": "b", "clients": ["*"], **tree}]}
    ended = fedpkg(*command, write_run_yaml(here, topology={"children": [below]}))
    assert ended.code != 0 and message in ended.err
    assert "try" not in fedpkg("session", "list").out


def test_what_the_package_seems_not_to_do_for_a_combiner_is_a_warning(here):
    below = {"name": "a", "children": [{"name": "b", "clients": ["*"], "strategy": "scaffold"}]}
    checked = fedpkg("cluster", "check", write_run_yaml(here, topology={"children": [below]}))
    assert checked.code == 0
    assert "topology, combiner a/b: strategy scaffold: the package does not seem to send the set dc" in checked.err


@pytest.mark.parametrize("command", [["cluster", "check"], ["run"]])
def test_clusters_that_no_round_would_find_are_a_warning(here, command):
    pytest.importorskip("scipy")
    infer = {"from": "updates", "cut": {"clusters": 2}, "first": 3}
    ended = fedpkg(*command, write_run_yaml(here, topology={"infer": infer}, rounds=1))
    assert ended.code == 0
    about = "clusters are to be found in round 3 (topology.infer.first), but the run has 1 round: none will be found"
    assert about in ended.err


def test_a_tree_in_yaml_may_have_200_levels(here):
    node = {"name": "c200", "clients": ["client-0"]}
    for number in range(199, 0, -1):
        node = {"name": f"c{number}", "children": [node]}
    run_yaml = write_run_yaml(here, clients={"count": 1}, rounds=1, topology={"children": [node]})
    assert "1 client below 200 combiners and the root, on 201 levels" in fedpkg("cluster", "check", run_yaml).out
    assert "c200" in fedpkg("config", "show", run_yaml).out
    ended = fedpkg("run", run_yaml)
    assert ended.code == 0, ended.err
    again = fedpkg("session", "resume", "try", "--rounds", "2")
    assert again.code == 0, again.err
    assert len(fedpkg("cluster", "tree", "try", "--json").json()) == 201
    told = fedpkg("session", "show", "--tree", "--round", "2", "--json").json()
    assert [one["num_ok"] for one in told] == [1] * 201


def test_a_cycle_of_parents_is_named(here):
    (here / "entities.yaml").write_text("[{id: client-0, parent: a}, {id: a, parent: b}, {id: b, parent: a}]")
    run_yaml = write_run_yaml(here, clients={"entities": "entities.yaml"}, rounds=1, topology={"from": "entities"})
    ended = fedpkg("cluster", "check", run_yaml)
    assert ended.code == 6
    assert "the parents of 'client-0' form a circle: a → b → a" in ended.err


def test_what_combiners_did_is_shown(run_yaml):
    ended = fedpkg("run", run_yaml)
    assert ended.code == 0, ended.err
    shown = fedpkg("session", "show", "--tree")
    assert [line.split()[0] for line in shown.out.splitlines()[:5]] == ["combiner", "(root)", "north", "south", "edge"]
    (north,) = [
        one for one in fedpkg("session", "show", "--tree", "--round", "1", "--json").json() if one["path"] == "north"
    ]
    assert (north["rounds"], north["num_ok"], north["calls"], north["num_examples"]) == (2, 2, 4, 10.0)
    assert fedpkg("cluster", "tree", "try").out.splitlines()[1].startswith("(root)")
    assert "has no clusters with models of their own" in fedpkg("model", "list", "--clusters").err
    assert fedpkg("session", "export", "out").code == 0
    rows = [json.loads(line) for line in Path("out/combiners.jsonl").read_text().splitlines()]
    assert [row["num_examples"] for row in rows if (row["path"], row["round_number"]) == ("north", 1)] == [10.0]
    combiners, _, _ = Path("out/report.html").read_text().partition('id="combiners"')[2].partition("</table>")
    assert re.findall(r"<tr><td>(.*?)</td>", combiners) == ["(root)", "north", "south", "south/edge"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster", "tree", "missing.yaml"], "missing.yaml: cannot be read"),
        (["cluster", "tree", "run.yaml", "topology=null"], "run.yaml has no tree of combiners"),
        (["cluster", "check", "run.yaml", "topology={children: [{name: a, clients: [x]}]}"], "no client id matches"),
        (
            ["cluster", "check", "run.yaml", "topology={children: [{name: a, sampler: []}]}"],
            "0.sampler' must be a section",
        ),
        (["cluster", "check", "run.yaml", "topology={children: [{name: a, data: []}]}"], "0.data' must be a section"),
        (["session", "show", "--tree"], "there is no fedpkg home"),
    ],
)
def test_what_has_no_tree_is_said(run_yaml, words, message):
    ended = fedpkg(*words)
    assert ended.code != 0
    assert message in ended.err


def test_a_tree_that_cannot_be_written_is_said(here):
    entities = here / "entities.yaml"
    entities.write_text("[{id: a, site: x}, {id: b, site: y}]")
    folder = here / "tree.yaml"
    folder.mkdir()
    ended = fedpkg("cluster", "infer", entities, "--cut", "clusters=2", "-o", folder)
    assert ended.code == 3
    assert ended.err.startswith("error: ") and "tree.yaml" in ended.err


def test_clusters_that_were_found_during_a_run_are_shown(here):
    infer = {"cut": {"clusters": 2}, "distance": "euclidean", "own_models": True}
    run_yaml = write_run_yaml(here, clients={"count": 4}, rounds=1, topology={"infer": infer})
    assert fedpkg("cluster", "check", run_yaml).out == f"{run_yaml}: clusters of 4 clients are found in round 1\n"
    assert fedpkg("cluster", "check", run_yaml, "--json").json()["found_from"] == "updates"
    early = fedpkg("cluster", "tree", run_yaml)
    assert early.code == 3 and "its clusters are found during the run" in early.err
    ended = fedpkg("run", run_yaml)
    assert ended.code == 0, ended.err
    told = fedpkg("cluster", "tree", "try", "--json").json()
    assert [one["path"] for one in told] == ["", "a", "b"] and told[0]["num_clients"] == 4
    shown = fedpkg("cluster", "tree", "try", "--picture", "found.html")
    assert shown.code == 0, shown.err
    assert "euclidean distance" in (here / "found.html").read_text()
    assert [line.split()[0] for line in fedpkg("session", "show", "--tree").out.splitlines()[1:4]] == [
        "(root)",
        "a",
        "b",
    ]


def test_clients_of_a_combiner_are_no_range_when_some_are_left_out():
    assert some_of(["client-1", "client-2", "client-4", "client-5"]) == "client-1, client-2, client-4, client-5"
    assert (
        some_of(["client-0", "client-1", "client-3", "client-4", "client-9"])
        == "client-0, client-1, client-3 and 2 more"
    )
