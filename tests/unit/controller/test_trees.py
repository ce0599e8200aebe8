"""Trees of combiners in sessions: real processes, failures of parts, kills, and what is on record."""

from __future__ import annotations

import functools
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import AtOnce
from driven import drive, killed, outcome_of, wait_until_gone, write_config
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import CombinerReported, PhaseStarted, RoundFinished, TaskEnded
from fedpkg.errors import AggregationError, ConfigError, DataError
from fedpkg.stores.base import CombinerRow, SessionRow
from fedpkg.stores.home import Home

TREE: dict[str, Any] = {
    "children": [
        {
            "name": "north",
            "rounds": 2,
            "strategy": {"name": "fedavgm", "momentum": 0.9},
            "children": [
                {"name": "kiruna", "clients": ["client-[0-1]"], "rounds": 2, "strategy": "fedadam"},
                {"name": "lulea", "clients": ["client-2"], "children": [{"name": "harbour", "clients": ["client-3"]}]},
            ],
        },
        {"name": "south", "clients": ["client-4", "client-5"]},
    ]
}
FLAT_TREE = {
    "clients": ["client-0"],
    "children": [
        {"name": "a", "children": [{"name": "b", "clients": ["client-1", "client-2"]}]},
        {"name": "c", "clients": ["client-[3-5]"]},
    ],
}


def rows_of(federation: Federation, session: SessionRow, round_number: int = 1) -> dict[str, CombinerRow]:
    rows = federation.store.list_combiners(session.session_id, round_number=round_number)
    return {row.path: row for row in rows}


def config_of(federation: Federation, tree: dict[str, Any], **changes: Any) -> RunConfig:
    return federation.config(**{"package": str(DRIFTING), "clients": 6, "rounds": 2, "topology": tree, **changes})


@pytest.mark.parametrize("sampler", [{}, {"count": 4}], ids=["all", "some"])
def test_a_tree_of_means_gives_the_model_of_the_flat_round(federation: Federation, sampler: dict[str, Any]) -> None:
    flat = federation.run(config_of(federation, FLAT_TREE, sampler=sampler, topology=None))
    tree = federation.run(config_of(federation, FLAT_TREE, sampler=sampler))
    for number in (1, 2):
        one, other = (federation.model(f"{session.session_id}.{number}") for session in (flat, tree))
        for name in one:
            np.testing.assert_allclose(one[name].numpy(), other[name].numpy(), rtol=1e-5, atol=1e-7)
    asked = [row.cohort for row in federation.store.list_rounds(tree.session_id)]
    assert [sorted(row) for row in asked] == [
        sorted(row.cohort) for row in federation.store.list_rounds(flat.session_id)
    ]


def test_what_each_combiner_did_is_on_record(federation: Federation) -> None:
    session = federation.run(config_of(federation, TREE, clock={"links": {"north/*": 1e3}}))
    rows = rows_of(federation, session)
    assert list(rows) == ["", "north", "north/kiruna", "north/lulea", "north/lulea/harbour", "south"]
    assert {path: (row.rounds, row.num_ok) for path, row in rows.items()} == {
        "": (1, 2),
        "north": (2, 2),
        "north/kiruna": (4, 2),  # two rounds in each of north's
        "north/lulea": (2, 2),
        "north/lulea/harbour": (2, 1),
        "south": (1, 2),
    }
    assert rows[""].num_examples == sum(rows[path].num_examples for path in ("north", "south"))
    assert rows["north"].num_examples == rows["north/kiruna"].num_examples + rows["north/lulea"].num_examples
    assert rows["south"].bytes_up == rows["south"].bytes_down > 0
    assert rows["north/kiruna"].bytes_up == 2 * rows["north"].bytes_up == 2 * rows["south"].bytes_up
    assert rows["north"].virtual_s is not None and rows["south"].virtual_s is not None
    assert rows["north"].virtual_s > rows["south"].virtual_s
    requests = federation.store.list_requests(session.session_id)
    of_kiruna = [row for row in requests if row.client_group == "north/kiruna" and row.round_number == 1]
    assert [row.cohort for row in of_kiruna] == [["client-0", "client-1"]] * 4  # two rounds of north, two of its own
    assert len({task.task_id for task in federation.store.list_tasks(session.session_id, client_id="client-0")}) == 8


def test_events_say_which_combiner(federation: Federation) -> None:
    federation.run(config_of(federation, TREE, rounds=1, arguments={"train": {"fails": "client-4@1,client-5@1"}}))
    reported = [event.combiner for event in federation.events if isinstance(event, CombinerReported)]
    assert [one.path for one in reported if one.path.startswith("north/k")] == ["north/kiruna"] * 2
    (south,) = [one for one in reported if one.path == "south"]
    assert (south.status, south.reason) == ("failed", "0 usable updates of 2, 1 are required")
    (finished,) = [event for event in federation.events if isinstance(event, RoundFinished)]
    assert {one.path: one for one in finished.combiners} == {one.path: one for one in reported}
    assert finished.combiners == federation.store.list_combiners(finished.round.session_id)


def test_a_subtree_of_crashing_clients_costs_no_more_than_its_updates(federation: Federation) -> None:
    plan = {"client-2": "exit3", "client-3": "exit3"}
    tree = {
        "children": [
            {
                "name": "north",
                "children": [
                    {"name": "lulea", "clients": ["client-[23]"]},
                    {"name": "kiruna", "clients": ["client-[01]"]},
                ],
            },
            {"name": "south", "clients": ["client-[45]"]},
        ]
    }
    session = federation.run(clients=6, rounds=2, plan=plan, topology=tree)
    rows = rows_of(federation, session)
    assert rows["north/lulea"].status == "failed"
    assert rows["north/lulea"].reason == "0 usable updates of 2, 1 are required"
    assert (rows["north"].status, rows["north"].num_ok, rows["north"].num_asked) == ("ok", 1, 2)
    assert federation.steps_taken(session, 2) == pytest.approx(2.0)


def test_without_enough_children_of_the_root_the_round_fails_and_is_repeated(federation: Federation) -> None:
    plan = {"client-0@1": "exit3"}
    tree = {"children": [{"name": "a", "clients": ["client-0"]}, {"name": "b", "clients": ["client-1"]}]}
    config = federation.config(clients=2, plan=plan, topology=tree, round={"required": 2})
    with pytest.raises(AggregationError, match="1 usable updates of 2, 2 are required") as failed:
        federation.run(config)
    assert failed.value.hint == "a failed: fedpkg session show --tree says why"
    (session,) = federation.store.list_sessions()
    assert federation.store.list_rounds(session.session_id)[0].status == "failed"
    rows = rows_of(federation, session)
    assert {path: (row.status, row.reason) for path, row in rows.items()} == {
        "a": ("failed", "0 usable updates of 1, 1 are required"),
        "b": ("ok", None),
    }


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"children": [{"name": "a", "clients": ["client-[0-1]"]}, {"name": "b", "clients": ["client-[1-5]"]}]}, "client-1 is below two combiners, a and b"),
        ({"children": [{"name": "a", "clients": ["client-0"]}]}, "below no combiner: client-1, client-2, client-3 and 2 more"),
        ({"children": [{"name": "a", "clients": ["client-?"]}, {"name": "a", "clients": ["client-1"]}]}, "2 combiners are called 'a'"),
        ({"children": [{"name": "a", "clients": ["client-?"]}, {"name": "b"}]}, "combiner b: there is no client and no combiner below it"),
        ({"children": [{"name": "a", "clients": ["patient-*"]}]}, "topology, combiner a: no client id matches 'patient-\\*'"),
        ({"children": [{"name": "a", "clients": ["client-?"], "rounds": 0}]}, "topology.children.0.rounds"),
        ({"children": [{"name": "a/b", "clients": ["client-?"]}]}, "'a/b' cannot be the name of a combiner"),
        ({"children": [{"name": "a", "clients": ["client-?"], "required": 7}]}, "7 replies are required, and it has 6 children"),
        ({"children": [{"name": "a", "clients": ["client-?"], "stratgy": "fedavg"}]}, "stratgy"),
        ({"children": [{"name": "a", "clients": ["client-?"], "strategy": "fedavgg"}]}, "there is no strategy 'fedavgg'"),
        ({"fanout": [4, 2]}, "8 combiners at the bottom, but there are 6 clients"),
        ({"fanout": [7, 2]}, "14 combiners at the bottom, but there are 6 clients"),
        ({"fanout": [2], "children": [{"name": "a"}]}, "both 'children' and 'fanout'"),
        *(
            ({"children": [{"name": name, "clients": ["client-?"]}]}, "cannot be the name of a combiner")
            for name in (" a", "a ", "\u3000a", "(root)", "..", "a/b", "a\n", "", "\u202ea", "a" * 101)
        ),
        ({}, "neither 'children'"),
        ({"by": "region"}, "'region' is no attribute of entities, and the run has no dataset with such a column"),
        ({"children": [{"name": "a", "clients": ["client-?"], "strategy": "fedbuff"}]}, "fedbuff cannot be in a tree: its requests stay outstanding"),
        ({"children": [{"name": "a", "clients": ["client-[0-1]"], "strategy": "krum"}], "others": "root"}, "combiner a: krum needs 5 updates in each round, and it has 2 children"),
        ({"children": [{"name": "a", "clients": ["client-?"]}], "defaults": {"rounds": 2}}, "'topology.defaults' goes with 'fanout', 'by', 'from' and 'infer'"),
        ({"fanout": [2], "others": "root"}, "'topology.others' goes with 'children' only; 'fanout' places all clients"),
    ],
)  # fmt: skip
def test_a_bad_tree_is_refused_before_anything_runs(federation: Federation, tree: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        federation.run(config_of(federation, tree))
    assert not federation.home.state_db.exists() or federation.store.list_sessions() == []


def test_a_strategy_that_needs_its_clients_is_refused_above_combiners(federation: Federation) -> None:
    config = config_of(federation, FLAT_TREE, strategy={"name": "scaffold"})
    with pytest.raises(
        ConfigError, match="the root: scaffold cannot have combiners below it: each client has a control"
    ):
        federation.run(config)


SAMPLED: dict[str, Any] = {
    "rounds": 2,
    "clients": ["client-6", "client-7"],
    "children": [
        {
            "name": "north",
            "rounds": 2,
            "strategy": {"name": "fedadam", "learning_rate": 0.3},
            "sampler": {"count": 3, "over_selection": 0.4},
            "children": [
                {"name": "kiruna", "clients": ["client-[0-1]"], "rounds": 2, "strategy": "fedavgm"},
                {
                    "name": "lulea",
                    "clients": ["client-2"],
                    "strategy": {"name": "fedyogi", "transforms": [{"name": "quantise", "bits": 8}]},
                    "children": [{"name": "harbour", "clients": ["client-[3-4]"], "strategy": "fedadagrad"}],
                },
            ],
        },
        {"name": "south", "clients": ["client-5", "client-8"], "rounds": 2, "strategy": "fedexp"},
    ],
}
FAILS = {"arguments": {"train": {"fails": "client-1@2,client-4@1"}}}
KILLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stateful": (TREE, FAILS),
    "sampled": (
        SAMPLED,
        {
            "clients": 9,
            "strategy": {"name": "fedavgm"},
            "sampler": {"fraction_train": 0.7, "over_selection": 0.5, "held_out": ["client-8"]},
            "clock": {"seconds": {"client-[24]": 5.0}, "links": {"north/*": 1e3, "*": 1e4}},
            "validation": {"every": 1},
            **FAILS,
        },
    ),
}


def outcome_with_combiners(federation: Federation) -> list[object]:
    (session,) = federation.store.list_sessions()
    rows = [{**asdict(row), "session_id": ""} for row in federation.store.list_combiners(session.session_id)]
    return [*outcome_of(federation, session.session_id), rows]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[list[object], int]]:
    """What undisturbed sessions of these trees have given, and the number of their events."""

    @functools.cache
    def undisturbed(name: str) -> tuple[list[object], int]:
        federation = Federation(Home.open(tmp_path_factory.mktemp(f"quiet {name}") / ".fedpkg"))
        tree, more = KILLED[name]
        federation.run(config_of(federation, tree, **more))
        return outcome_with_combiners(federation), len(federation.events)

    return undisturbed


def run_killed(federation: Federation, name: str, words: Sequence[str], **changes: Any) -> None:
    """Run a session that kills itself, and resume it."""
    tree, more = KILLED[name]
    config = write_config(federation, config_of(federation, tree, **more, **changes))
    killed(federation, "--run", config, *words)
    wait_until_gone(federation)
    session = federation.store.list_sessions()[-1]
    assert federation.resume(session.session_id).status == "finished"


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", KILLED)
@pytest.mark.parametrize(
    ("first", "every"),
    [pytest.param(1, 23, marks=pytest.mark.slow), *(pytest.param(k, 5, marks=pytest.mark.soak) for k in range(1, 6))],
)
@pytest.mark.every_push("1-23-stateful")
def test_a_tree_that_is_killed_at_an_event_resumes_to_the_same_bits(
    tmp_path: Path, quiet: Callable[[str], tuple[list[object], int]], name: str, first: int, every: int
) -> None:
    expected, number = quiet(name)
    for kill_at in range(first, number, every):
        federation = Federation(Home.open(tmp_path / str(kill_at) / ".fedpkg"))
        run_killed(federation, name, ["--kill-at", str(kill_at)])
        assert outcome_with_combiners(federation) == expected, f"killed at event {kill_at}"


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", KILLED)
@pytest.mark.parametrize("step", ["begin_round", "record_requests", "commit_round", "finish_round"])
def test_a_tree_that_is_killed_at_a_commit_resumes_to_the_same_bits(
    tmp_path: Path, quiet: Callable[[str], tuple[list[object], int]], name: str, step: str
) -> None:
    expected, _ = quiet(name)
    for moment in ("before", "after"):
        for number in (1, 2, 5, 9) if step == "record_requests" else (1, 2):
            federation = Federation(Home.open(tmp_path / f"{moment} {number}" / ".fedpkg"))
            run_killed(federation, name, ["--kill-at-step", f"{moment}:{step}:{number}"])
            assert outcome_with_combiners(federation) == expected, f"killed {moment} {step} {number}"


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", KILLED)
@pytest.mark.parametrize(
    ("executor", "workers"), [("process", 1), ("forkserver", 2), ("forkserver", 4), ("resident", 4)]
)
def test_a_tree_that_is_killed_at_random_instants_resumes_to_the_same_bits(
    tmp_path: Path, quiet: Callable[[str], tuple[list[object], int]], name: str, executor: str, workers: int
) -> None:
    expected, number = quiet(name)
    rng = random.Random(f"{name} {executor} {workers}")
    tree, more = KILLED[name]
    for attempt in range(6):
        federation = Federation(Home.open(tmp_path / str(attempt) / ".fedpkg"))
        changes = {"executor": {"name": executor, "workers": workers}}
        config = config_of(federation, tree, **more, **changes)
        words = ["--run", write_config(federation, config)]
        kills = [
            f"{rng.randint(1, number // 2)}:{rng.uniform(0, 0.1):.3f}",
            f"{rng.randint(0, 9)}:{rng.uniform(0, 0.5):.3f}",
        ]
        for kill in kills:
            process = drive(federation, *words, "--kill-after", kill)
            process.communicate(timeout=200)
            assert process.returncode in (-signal.SIGKILL, 0), kills
            wait_until_gone(federation)
            words = ["--resume", federation.store.list_sessions()[-1].session_id]
        assert federation.resume(words[1]).status == "finished"
        assert outcome_with_combiners(federation) == expected, f"kills {kills}"
        assert not [finding for finding in federation.findings() if finding.damaged], kills


def test_a_session_whose_combiners_have_data_resumes_with_the_same(federation: Federation, tmp_path: Path) -> None:
    def write(name: str, number: int) -> str:
        np.savez(tmp_path / f"{name}.npz", x_train=np.zeros((number, 1)), y_train=np.arange(number) % 2)
        return str(tmp_path / f"{name}.npz")

    south = {"name": "south", "clients": ["client-[2-3]"], "data": write("south", 12)}
    clients = {"count": 4, "data": {"dataset": write("common", 4)}}
    tree = {"children": [{"name": "north", "clients": ["client-[0-1]"]}, south]}
    session = federation.run(clients=clients, topology=tree)
    rows = federation.store.list_clients(session.session_id)
    assert [row.num_examples for row in rows] == [2, 2, 6, 6]
    assert len({Path(row.data_path or "").parent for row in rows}) == 2
    assert federation.resume(session.session_id, rounds=2).status == "finished"
    write("south", 14)
    with pytest.raises(DataError, match=r"south\.npz has changed since the session began"):
        federation.resume(session.session_id, rounds=3)


def test_a_session_whose_tree_is_made_of_a_column_resumes_with_the_same(federation: Federation, tmp_path: Path) -> None:
    y = np.arange(12) % 2
    np.savez(
        tmp_path / "all.npz", x_train=np.zeros((12, 1)), y_train=y, ward=np.arange(12) // 3, region=np.arange(12) // 6
    )
    data = {"dataset": str(tmp_path / "all.npz"), "partition": {"name": "natural_id", "by": "ward"}}
    session = federation.run(clients={"data": data}, topology={"by": "region"})
    assert federation.resume(session.session_id, rounds=2).status == "finished"
    rows = federation.store.list_combiners(session.session_id)
    assert [(row.path, row.num_ok) for row in rows] == [("", 2), ("0", 2), ("1", 2)] * 2


def test_a_round_that_the_root_has_failed_is_resumed_to_the_bits_of_one_without_failures(
    federation: Federation, at_once: AtOnce, tmp_path: Path
) -> None:
    calm = Federation(Home.open(tmp_path / "calm" / ".fedpkg"))
    config = config_of(federation, TREE, round={"required": 2})
    expected = calm.digests(calm.run(config).session_id)
    at_once.fails = frozenset({"client-4@2", "client-5@2", "client-1@2"})
    with pytest.raises(AggregationError, match="1 usable updates of 2, 2 are required"):
        federation.run(config)
    (session,) = federation.store.list_sessions()
    with pytest.raises(AggregationError, match="1 usable updates of 2, 2 are required"):
        federation.resume(session.session_id)
    at_once.fails = frozenset()
    federation.resume(session.session_id)
    assert federation.digests(session.session_id) == expected
    assert all(row.status == "ok" for row in rows_of(federation, session, 2).values())
    tasks = federation.store.list_tasks(session.session_id)
    of_round = [task for task in tasks if (task.round_number, task.client_id) == (2, "client-4")]
    assert [task.status for task in of_round] == ["failed", "failed", "ok"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": {"name": "failing_strategies:Raising"}}, "ValueError: expected more"),
        ({"strategy": {"name": "failing_strategies:NotFinite"}}, "not finite"),
        ({"strategy": {"name": "failing_strategies:Exiting"}}, "SystemExit: 3"),
        ({"strategy": {"name": "failing_strategies:NotSaved"}}, "its state cannot be saved: a set"),
        ({"timeout_s": 0.1}, "0 usable updates of 2, 1 are required"),
        ({"required": 3, "children": [{"name": "x", "clients": ["client-2"]}]}, "1 usable updates of 3, 3 are required"),
    ],
)  # fmt: skip
def test_a_combiner_that_fails_is_named_by_its_path(
    federation: Federation, at_once: AtOnce, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    kiruna = {"name": "kiruna", "clients": ["client-[01]"], **changes}
    tree = {"others": "root", "children": [{"name": "north", "children": [kiruna]}]}
    at_once.hangs = frozenset({"client-0", "client-1"} if "timeout_s" in changes else ())
    at_once.fails = frozenset({"client-0@1", "client-1@1"} if "required" in changes else ())
    session = federation.run(config_of(federation, tree, rounds=1))
    rows = rows_of(federation, session)
    assert rows["north/kiruna"].status == rows["north"].status == "failed" and rows[""].status == "ok"
    assert reason in (rows["north/kiruna"].reason or "")
    assert rows["north"].reason == "0 usable updates of 1, 1 are required"
    assert any("combiner=north/kiruna" in record.getMessage() for record in caplog.records)
    (finished,) = [event for event in federation.events if isinstance(event, RoundFinished)]
    assert finished.round.num_ok >= rows[""].num_ok == (3 if "children" in changes else 4)


def test_a_sampler_belongs_to_a_subtree_and_draws_in_each_of_its_rounds(
    federation: Federation, at_once: AtOnce
) -> None:
    below = [{"name": "a", "clients": ["client-[0-1]"]}, {"name": "b", "clients": ["client-[2-3]"]}]
    north = {"name": "north", "rounds": 6, "sampler": {"count": 1}, "children": below}
    south = {"name": "south", "clients": ["client-[4-7]"], "sampler": {"count": 2, "over_selection": 0.5}}
    more = {"clients": 8, "rounds": 1, "sampler": {"held_out": ["client-7"]}, "clock": {}}
    session = federation.run(config_of(federation, {"children": [north, south]}, **more))
    requests = federation.store.list_requests(session.session_id)
    asked = [row.cohort for row in requests if (row.client_group or "").startswith("north")]
    assert [len(cohort) for cohort in asked] == [1] * 6
    assert len({cohort[0] for cohort in asked}) > 2
    (of_south,) = [row for row in requests if row.client_group == "south"]
    assert (len(of_south.cohort), of_south.target, rows_of(federation, session)["south"].num_ok) == (3, 2, 2)
    assert "client-7" not in of_south.cohort


def test_combiners_with_samplers_are_asked_while_the_clients_of_the_root_are_away(
    federation: Federation, at_once: AtOnce, tmp_path: Path
) -> None:
    trace = tmp_path / "Spur.csv"
    trace.write_text("client,from_round,to_round\nclient-0,2,2\nclient-1,1,2\nclient-2,1,2\n")
    tree = {
        "clients": ["client-0"],
        "children": [{"name": "north", "clients": ["client-[12]"], "sampler": {"count": 2}}],
    }
    more = {"clients": 3, "rounds": 3, "sampler": {"availability": {"trace": str(trace)}}}
    session = federation.run(config_of(federation, tree, **more))
    cohorts = [sorted(row.cohort) for row in federation.store.list_rounds(session.session_id)]
    assert cohorts == [["client-1", "client-2"], ["client-0", "client-1", "client-2"], []]


@pytest.mark.parametrize("where", ["here", "below", "root"])
def test_a_round_that_finds_no_clients_is_the_last_of_its_combiner(
    federation: Federation, at_once: AtOnce, where: str
) -> None:
    draws = {"name": "poisson", "fraction_train": 0.4}
    own, here = {"clients": ["client-[0-1]"], "sampler": draws}, where == "here"
    north = {"name": "north", **(own if here else {"children": [{"name": "a", **own}]})}
    south = {"name": "south", "clients": ["client-[2-5]"]}
    tree: dict[str, Any] = {"children": [{**north, "rounds": 4}, south]}
    path, siblings = "north", 2
    if where == "root":
        tree, path, siblings = {"rounds": 4, "children": [{**north, "sampler": draws}]}, "", 1
    more = {"clients": 2 if where == "root" else 6, "rounds": 8}
    session = federation.run(config_of(federation, tree, **more))
    ended = 0
    for number in range(1, 9):
        rows = rows_of(federation, session, number)
        assert {row.status for row in rows.values()} <= {"ok"}
        if (one := rows.get(path)) is not None and one.rounds < 4:
            ended += 1
            assert one.reason == (
                f"its round {one.rounds + 1} found no clients, and it passed on the model of the one before"
            )
            assert one.num_ok == one.num_asked > 0 < one.num_examples
            assert rows[""].num_ok == siblings
    assert ended > 0


def test_clients_get_what_the_combiners_above_them_set_and_all_are_asked_at_once(
    federation: Federation, at_once: AtOnce
) -> None:
    inner = {"name": "in", "clients": ["client-2"], "parameters": {"mu": 3}, "arguments": {"all": {"lr": 3}}}
    outer = {
        "name": "out",
        "clients": ["client-1"],
        "parameters": {"mu": 2, "nu": 2},
        "arguments": {"train": {"lr": 2}},
    }
    tree = {"others": "root", "children": [{**outer, "children": [inner]}]}
    arguments = {"train": {"lr": 1, "epochs": 1}, "validate": {"lr": 1}}
    federation.run(config_of(federation, tree, clients=3, rounds=1, arguments=arguments, validation={"every": 1}))
    orders = [event.order for event in federation.events if isinstance(event, TaskEnded)]
    of_train = {one.client_id: one for one in orders if one.entry_point == "train"}
    assert {name: (one.arguments, one.parameters) for name, one in of_train.items()} == {
        "client-0": ({"lr": 1, "epochs": 1}, {}),
        "client-1": ({"lr": 2, "epochs": 1}, {"mu": 2, "nu": 2}),
        "client-2": ({"lr": 2, "epochs": 1}, {"mu": 3, "nu": 2}),
    }
    of_validate = {one.client_id: one.arguments["lr"] for one in orders if one.entry_point == "validate"}
    assert of_validate == {"client-0": 1, "client-1": 1, "client-2": 3}
    assert next(event.num_clients for event in federation.events if isinstance(event, PhaseStarted)) == 3


def test_transforms_above_combiners_are_applied_to_their_models(federation: Federation, at_once: AtOnce) -> None:
    transforms = [{"name": "clip", "norm": 0.5}]
    config = config_of(federation, FLAT_TREE, strategy={"name": "fedavg", "transforms": transforms}, rounds=1)
    session = federation.run(config)
    before, moved = (federation.model(f"{session.session_id}.{number}") for number in (0, 1))
    norm = sum(float(((moved[name] - before[name]) ** 2).sum()) for name in moved) ** 0.5
    assert 0 < norm <= 0.5 + 1e-6


ERROR_FEEDBACK = {"name": "fedavg", "transforms": [{"name": "top_k", "share": 0.1, "error_feedback": True}]}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "dp_fedavg", "noise_multiplier": 1.0}, "the root: dp_fedavg cannot be in a tree"),
        (ERROR_FEEDBACK, "the root: fedavg has transforms with error_feedback, which clients alone can keep"),
        ({"name": "scaffold"}, "the root: scaffold cannot have combiners below it"),
        ({"name": "krum", "attackers": 1}, None),
        ({"name": "fedprox"}, None),
    ],
)  # fmt: skip
def test_what_cannot_hold_at_the_root_of_a_tree_is_refused(
    federation: Federation, at_once: AtOnce, strategy: dict[str, Any], message: str | None
) -> None:
    tree = {"others": "root", "children": [{"name": "a", "clients": ["client-0"], "strategy": "fedavg"}]}
    config = config_of(federation, tree, strategy=strategy, rounds=1)
    if message is None:
        assert federation.run(config).status == "finished"
        return
    with pytest.raises(ConfigError, match=message):
        federation.run(config)
    assert federation.store.list_sessions() == []
