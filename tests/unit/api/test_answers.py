"""The read API on real runs: what each function tells, also of sessions whose process was killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpkg.api import (
    changes,
    clients,
    comparing,
    configuration,
    metrics,
    models,
    rounds,
    sessions,
    sweeps,
    tasks,
    topology,
    values,
)
from fedpkg.api.changes import slots_version
from fedpkg.api.opening import Opened, opened
from fedpkg.errors import ConfigError, FedpkgError, NotFound
from fedpkg.stores.base import RoundRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.overview import decoder_of
from fedpkg.waist.order import Order
from fedpkg.waist.slots import NAME, SlotBoard
from tests.unit.api.conftest import in_store

Write = Callable[..., Path]


def test_sessions_are_found_by_words_and_filters(at: Opened) -> None:
    everyone = sessions.list_sessions(at)
    assert everyone.total == 8 and everyone.notes == ()
    assert {one.status for one in everyone.items} == {"finished", "killed"}
    of_models = dict.fromkeys(one.session_id for one in models.list_models(at, limit=1000).items)
    assert [*of_models] == [one.session_id for one in everyone.items if one.session_id in of_models]
    names = [one.name for one in sessions.list_sessions(at, sort="name", order="asc").items]
    assert names == sorted(names)
    (nested,) = sessions.list_sessions(at, search="NESTED fini").items
    assert (nested.rounds_done, nested.num_rounds, nested.progress, nested.num_clients) == (3, 3, 1.0, 3)
    assert nested.headline is not None and nested.headline.metric == "accuracy" and nested.headline.value == 0.5
    assert sessions.list_sessions(at, state="killed, failed").total == 1
    assert sessions.list_sessions(at, sweep="swept").total == 4
    part = sessions.list_sessions(at, skip=6, limit=5)
    assert (part.total, part.skip, len(part.items)) == (8, 6, 2)
    filters = sessions.session_filters(at)
    assert filters["sweep"] == ["swept"] and filters["state"] == ["finished", "killed"]
    assert sessions.list_sessions(at, strategy=filters["strategy"][0]).total == 8


def test_session_says_how_it_ended(at: Opened) -> None:
    nested = sessions.get_session(at, "nested")
    assert nested.why_ended == "It finished after 3 of 3 rounds" and nested.resume is None and nested.now is None
    assert nested.num_failed_tasks == 1 and nested.calls == 9 and nested.bytes_down > nested.bytes_up > 0
    killed = sessions.get_session(at, "digits-killed")
    assert killed.summary.status == "killed" and killed.resume == (
        "fedpkg session resume digits-killed --home 'a home'"
    )
    assert "it was killed" in str(killed.why_ended)
    with pytest.raises(NotFound, match="there is no session 'nestled'"):
        sessions.get_session(at, "nestled")


def test_running_session_says_what_it_does(written: Write) -> None:
    root = written(status="running", rounds=4)
    home = Home.open(root)
    with open_store(home) as store, home.lock() as note:
        note("digits-1")
        store.begin_round(
            RoundRow(session_id="digits-1", round_number=5, cohort=["client-000"], target=1, started_at=1.7e9 + 5)
        )
        store.extend_session("digits-1", store.get_session("digits-1").config, 9)
        with opened(root) as at:
            found = sessions.get_session(at, "latest")
            assert found.summary.status == "running" and found.seconds_left is not None
            # Round 5 began years ago; each of the 4 rounds after it still takes its time.
            assert found.seconds_left == 4 * rounds.get_round(at, "digits-1", 4).round.seconds
            assert found.now is not None and (found.now.phase, found.now.round_number) == ("training", 5)
            assert rounds.get_round(at, "digits-1", 5).round.status == "training"
    with opened(root) as at:  # its process is gone
        assert [one.status for one in rounds.list_rounds(at, "digits-1").items][3:] == ["finished", "interrupted"]
        assert rounds.get_round(at, "digits-1", 5).round.status == "interrupted"


def test_rounds_have_sums_and_requests(at: Opened) -> None:
    found = rounds.list_rounds(at, "nested").items
    assert [(one.round_number, one.num_clients, one.num_counted, one.num_failed) for one in found] == [
        (1, 3, 3, 0),
        (2, 3, 2, 1),
        (3, 3, 3, 0),
    ]
    assert all(one.calls == 3 and one.bytes_down and one.seconds and one.phases for one in found)
    second = rounds.get_round(at, "nested", 2)
    assert second.round == found[1] and second.requests[0].num_counted == 2
    assert second.tasks == {"train": {"ok": 2, "failed": 1}, "validate": {"ok": 3}}
    with pytest.raises(NotFound, match="no round 9"):
        rounds.get_round(at, "nested", 9)


def test_nested_values_are_metrics_and_are_read_back_whole(at: Opened) -> None:
    names = {(one.phase, one.metric) for one in metrics.metric_names(at, "nested")}
    assert {
        ("validate", "accuracy"),
        ("validate", "by_class.0.precision"),
        ("validate", "by_class.1.precision"),
    } <= names
    assert not any(metric.startswith("confusion") for _, metric in names), "a table is no list of metrics"
    curve = metrics.series(at, "nested", "by_class.1.precision", axis="calls")
    assert curve.x == [3, 6, 9] and curve.mean == [0.75] * 3 and curve.num_clients == [3] * 3
    first, *_ = values.list_validations(at, "nested")
    assert first.metrics["confusion"] == [[3, 1], [2, 4]] and first.metrics["threshold"] is None
    assert values.get_validation(at, first.task_id) == first
    lines = values.client_lines(at, "nested", "by_class.0.precision", ["client-2", "client-9"]).lines
    assert [(one.client_id, one.values) for one in lines] == [("client-2", [0.25] * 3), ("client-9", [])]
    (report, *_) = values.list_reports(at, "nested", 1).items
    assert report.client_id == "client-0" and report.metadata["num_examples"] == report.num_examples


@pytest.mark.parametrize(
    ("tree", "name", "value"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b.c": [4, {"d": 5}]}}, "a.b.c.1.d", 5),
        ({"a": [1, 2]}, "a.2", None),
        ({"a": [1, 2]}, "a.-1", None),
        ([1, 2], "1", 2),
        ({"a": 1}, "a.b", None),
        ("text", "0", None),
        ({'a"\\': {"b\x1b": 3}}, 'a"\\.b\x1b', 3),
    ],
)
def test_value_is_found_by_the_name_of_its_metric(tree: Any, name: str, value: Any) -> None:
    assert values.value_at(tree, name) == value
    decode = decoder_of(values.first_keys(name))
    beside = {**tree, "zz": [{"a": "\ud800"}, float("nan"), 10**30]} if isinstance(tree, dict) else tree
    assert values.value_at(decode(json.dumps(tree)), name) == value
    assert values.value_at(decode(json.dumps(beside)), name) == value


def test_only_the_keys_of_a_metric_are_decoded() -> None:
    decode = decoder_of(values.first_keys("a.b"))
    assert decode('{"a": {"b": 0.1}, "zz": [1], "a.b": null}') == {"a": {"b": 0.1}, "a.b": None}
    with pytest.raises(ValueError):
        decode('{"a": 1')


def test_metrics_of_former_sessions_have_means(at: Opened) -> None:
    old = metrics.series(at, "digits-former", "test_accuracy")
    assert old.rounds == [1, 2, 3, 4, 5] and old.mean == [None] * 5 and all(old.weighted_mean)
    assert old.best == max(range(5), key=lambda place: old.weighted_mean[place] or 0.0)
    with pytest.raises(NotFound, match="did you mean 'test_accuracy'"):
        metrics.series(at, "digits-former", "test_acuracy")
    assert [one.metric for one in metrics.all_series(at, "digits-killed", limit=2)] == ["test_accuracy", "test_loss"]


def test_clients_have_sums_of_recent_rounds_and_a_history(at: Opened) -> None:
    found = clients.list_clients(at, "nested", sort="num_failed", order="desc")
    assert (found.total, found.states) == (3, {"ok": 3})
    first = found.items[0]
    assert first.client_id == "client-1"
    assert (first.times_asked, first.times_counted, first.num_failed, first.calls) == (3, 2, 1, 6)
    assert first.seconds > 0 and first.bytes_up > 0 and first.validation_metrics["accuracy"] == 0.5
    assert clients.get_client(at, "nested", "client-1") == first
    assert clients.list_clients(at, "digits-killed", state="failing").total == 1
    past = clients.client_history(at, "client-1")
    assert len(past) == 6 and sum(one.num_failed for one in past) == 1
    with pytest.raises(NotFound, match="did you mean"):
        clients.get_client(at, "nested", "client-11")


def test_failures_have_logs_and_a_command_that_repeats_them(at: Opened, home: Path) -> None:
    (failed,) = tasks.list_failures(at, "nested").items
    assert (failed.client_id, failed.round_number, failed.failure) == ("client-1", 2, "exit_code")
    assert tasks.failure_kinds(at, "nested")[0].by_round == [(2, 1)]
    found = tasks.get_task(at, failed.task_id)
    assert "expected 784 features" in str(found.log_tail) and found.logs["stderr.log"] > 0
    log = tasks.get_log(at, failed.task_id, size=40)
    assert not log.is_whole and log.text.endswith("got 785\n")
    assert found.repeat is not None and found.repeat.startswith("fedpkg package call 'a home/packages/")
    words = found.repeat.replace("fedpkg", f"{sys.executable} -m fedpkg", 1)
    repeated = subprocess.run(words, shell=True, cwd=home.parent, capture_output=True, text=True)
    assert repeated.returncode != 0 and "expected 784 features" in repeated.stderr + repeated.stdout
    with pytest.raises(NotFound, match="no log"):
        tasks.get_log(at, failed.task_id, "../task.json")
    assert len(list(tasks.list_tasks(at, "nested"))) == 18
    assert len(list(tasks.list_tasks(at, "nested", status="failed"))) == 1


def test_tasks_in_flight_are_those_without_an_answer(written: Write) -> None:
    root = written(status="running", rounds=2)
    home = Home.open(root)
    order = Order(
        task_id="digits-1/2/client-003",
        session_id="digits-1",
        round_number=2,
        client_id="client-003",
        entry_point="train",
        package="0" * 64,
        reply_spec="0" * 64,
        seed=0,
    )
    with open_store(home) as store, home.lock() as note:
        note("digits-1")
        in_store(root, "delete from tasks where task_id = 'digits-1/2/client-003'")
        in_store(root, "update requests set status = 'asked' where round_number = 2")
        in_store(root, "update tasks set request_id = '1' where entry_point = 'train'")
        board = SlotBoard(root, 2)
        with opened(root) as at:
            assert tasks.tasks_in_flight(at, "digits-1").waiting == 1
            before = slots_version(at)
            board.take(1, order, since=5.0)
            flying = tasks.tasks_in_flight(at, "digits-1")
            assert slots_version(at) != before
            assert (flying.slots, flying.total, flying.waiting) == (2, 1, 0)
            (running,) = flying.running
            assert (running.slot, running.client_id, running.since) == (1, "client-003", 5.0)
            assert clients.get_client(at, "digits-1", "client-003").state == "in flight"
            board.free(1)
            assert not tasks.tasks_in_flight(at, "digits-1").running
            (root / NAME).write_text('{"slot": \n\xff')
            assert not tasks.tasks_in_flight(at, "digits-1").running
            (root / NAME).unlink()
            os.mkfifo(root / NAME)
            assert not tasks.tasks_in_flight(at, "digits-1").running
            board.close()
            assert slots_version(at) == 0
        assert store.get_session("digits-1").status == "running"


def test_models_have_a_trail_tensors_and_files(at: Opened, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file

    graph = models.model_graph(at, "nested")
    assert graph.total == 4 and [one.parents for one in graph.models] == [
        [],
        *([one.model_id] for one in graph.models[:-1]),
    ]
    last = graph.models[-1]
    assert models.get_model(at, "nested") == last and last.has_file and last.num_contributors == 3
    assert [one.round_number for one in models.model_trail(at, last.model_id)] == [3, 2, 1, 0]
    found = models.get_tensors(at, last.model_id)
    assert {one.name: (one.dtype, one.shape) for one in found.tensors}["w"] == ("float32", [10, 32])
    assert found.forms == [".npz", ".safetensors"]
    for form in ("", *found.forms):
        download = models.model_file(at, last.model_id, form)
        path = tmp_path / download.name
        with download.open() as file:
            path.write_bytes(file.read())
    as_npz, as_safetensors = np.load(tmp_path / f"{last.model_id}.npz".replace("/", "-")), load_file(path)
    assert all(np.array_equal(as_npz[name], as_safetensors[name]) for name in as_npz.files)
    with pytest.raises(ConfigError, match=r"cannot be a \.txt file"), models.model_file(at, "nested", ".txt").open():
        pass


def test_file_of_a_model_that_is_a_link_is_not_given(written: Write) -> None:
    root = written(has_files=True)
    with opened(root) as at:
        download = models.model_file(at, "digits-1.2")
        secret = root.parent / "secret"
        secret.write_text("secret")
        download.path.unlink()
        download.path.symlink_to(secret)
        with pytest.raises(NotFound, match="is not a file of the home"):
            models.model_file(at, "digits-1.2")
        with pytest.raises(FedpkgError, match="is damaged"):
            models.get_tensors(at, "digits-1.1")


def test_tree_has_weights_and_clients(at: Opened) -> None:
    tree = topology.get_topology(at, "tree")
    assert [(one.path, one.parent, one.clients) for one in tree.combiners] == [
        ("", None, []),
        ("north", "", ["client-0", "client-1"]),
        ("south", "", ["client-2"]),
    ]
    assert math.isclose(sum(one.weight or 0.0 for one in tree.combiners), 1.0)
    assert tree.combiners[1].strategy == "fedavg" and tree.combiners[1].calls == 4
    assert [one.round_number for one in topology.combiner_rounds(at, "tree", "north")] == [1, 2]
    assert topology.get_topology(at, "nested").combiners == []
    with pytest.raises(NotFound, match="no combiner 'west'"):
        topology.combiner_rounds(at, "tree", "west")


def test_configuration_has_origins_and_no_paths_or_secrets(at: Opened) -> None:
    found = {one.key: one for one in configuration.get_configuration(at, "swept-0").values}
    assert (found["seed"].value, found["seed"].origin) == (1, "sweep")
    assert found["package"].value == "…/misbehave" and found["package"].origin == "given"
    assert found["round.required"].origin == "default"
    of_file = {one.key: one.origin for one in configuration.get_configuration(at, "nested").values}
    assert of_file["rounds"] == of_file["arguments.validate.how"] == "run.yaml:1"
    assert of_file["round.required"] == "default"
    package = configuration.get_package(at, "nested")
    assert {one.name for one in package.files} >= {
        "misbehave/entrypoint.py",
        "misbehave/fedn.yaml",
    } and package.notes == ()
    assert "train" in package.entry_points and package.source == "…/misbehave"
    (start,) = configuration.list_starts(at, "nested")
    assert start.versions["python"]
    split = configuration.get_split(at, "digits-killed")
    assert split is not None and len(split.counts) == len(split.clients) == 4 and len(split.labels) == 10
    assert configuration.get_split(at, "nested") is None


def test_sessions_are_compared(at: Opened) -> None:
    found = comparing.compare(at, ["swept-0", "swept-1", "nested"])
    assert [one.name for one in found.sessions] == ["swept.0", "swept.1", "nested"]
    differences = {one.key: one for one in found.differences}
    assert differences["rounds"].values == [1, 1, 3]
    assert differences["arguments.validate.how"].has == [False, False, True]
    accuracy = {(one.phase, one.metric): one for one in found.outcomes}["validate", "by_class.0.precision"]
    assert accuracy.final == [None, None, 0.25] and accuracy.best_round == [None, None, 1] and accuracy.winner == 2
    of_equals = [one.winner for one in comparing.compare(at, ["swept-0", "swept-1"]).outcomes if len({*one.best}) == 1]
    assert of_equals and {*of_equals} == {None}
    keys = [one.key for one in comparing.compare(at, ["nested", "tree"]).differences]
    assert not {"topology", "arguments"}.intersection(keys), "one of them has keys in these sections"
    assert any(key.startswith("topology.") for key in keys) and any(key.startswith("arguments.") for key in keys)
    overlay = comparing.compare_series(at, ["digits-killed", "digits-former", "nested"], "test_loss")
    assert [one.session_id for one in overlay.series] == ["digits-killed", "digits-former"]
    assert len(overlay.missing) == 1


def test_sweep_has_points_and_a_heat_map(at: Opened) -> None:
    (sweep,) = sweeps.list_sweeps(at).items
    assert (sweep.name, sweep.status, sweep.points) == ("swept", "finished", {"finished": 4})
    found = sweeps.get_sweep(at, "latest")
    assert found.keys == ["seed", "arguments.train.num_examples"] and found.metric == found.metrics[0]
    assert all(one.final is not None and one.session_status == "finished" for one in found.points)
    drawn = sweeps.heat_map(at, "swept", "seed", "arguments.train.num_examples")
    assert (drawn.x, drawn.y, drawn.counts) == ([1, 2], [5, 7], [[1, 1], [1, 1]])
    assert drawn.values[0][0] is not None
    with pytest.raises(NotFound, match="no key 'lr'"):
        sweeps.heat_map(at, "swept", "lr", "seed")


def test_token_changes_with_the_rows(written: Write) -> None:
    root = written(status="running")
    with opened(root) as at:
        before, of_home, version = (
            changes.change_token(at, "digits-1"),
            changes.change_token(at),
            changes.database_version(at),
        )
        assert (before, version) == (changes.change_token(at, "digits-1"), changes.database_version(at))
        in_store(root, "update tasks set round_number = 5 where task_id = 'digits-1/1/client-000'")
        assert changes.database_version(at) != version
        assert changes.change_token(at, "digits-1") != before and changes.change_token(at) == of_home
        in_store(root, "update sessions set updated_at = 1.0")
        assert changes.change_token(at) != of_home


def test_damaged_row_is_a_note(written: Write) -> None:
    root = written()
    write = "update {} set {} = '{{' where session_id = 'digits-1'"
    in_store(root, write.format("rounds", "phases") + " and round_number = 2")
    in_store(root, write.format("clients", "num_examples") + " and client_id = 'client-000'")
    in_store(root, write.format("tasks", "phases") + " and task_id = 'digits-1/5/client-002'")
    in_store(root, write.format("validations", "metrics") + " and task_id = 'digits-1/1/client-000/v'")
    with opened(root) as at:
        found = rounds.list_rounds(at, "digits-1")
        assert [one.round_number for one in found.items] == [1, 3, 4, 5] and "round of digits-1, 2" in found.notes[0]
        with pytest.raises(NotFound, match="round of digits-1, 2"):
            rounds.get_round(at, "digits-1", 2)
        failures = tasks.list_failures(at, "digits-1")
        assert failures.total == 2 and len(failures.items) == 1 and "tasks.phases" in failures.notes[0]
        assert len(list(values.list_validations(at, "digits-1"))) == 17
        with pytest.raises(NotFound, match=r"the database is damaged: validations\.metrics"):
            values.get_validation(at, "digits-1/1/client-000/v")
        in_store(root, write.format("sessions", "config"))
        listed = sessions.list_sessions(at)
        assert listed.total == 0 and "sessions.config" in listed.notes[0]
        assert "configuration of digits-1 cannot be read" in sessions.get_session(at, "digits").notes[0]
        assert configuration.get_configuration(at, "digits-1").notes
        assert len(rounds.list_rounds(at, "digits-1").items) == 4


def test_damaged_session_does_not_hide_others(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home")
    in_store(
        tmp_path / "home",
        "update sessions set config = '{' where name = 'swept.0' or session_id = 'digits-killed'",
    )
    with opened(tmp_path / "home") as at:
        found = sweeps.get_sweep(at, "swept")
        assert [one.session_status for one in found.points] == [None, "finished", "finished", "finished"]
        assert [one.final is None for one in found.points] == [True, False, False, False]
        assert len(found.notes) == 2 and "sessions.config" in found.notes[0]
        past = [one.session_id.rpartition("-")[0] for one in clients.client_history(at, "client-0")]
        assert len(past) > 3 and not [one for one in past if one.startswith("swept-0")]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limit": 0}, "limit: expected `int` >= 1"),
        ({"limit": 1001}, "limit: expected `int` <= 1000"),
        ({"skip": -1}, "skip"),
        ({"sort": "config"}, "sort: invalid enum value 'config'"),
        ({"search": "x" * 1001}, "search"),
        ({"search": "\ud800"}, "search must be Unicode text"),
        ({"search": "a\0b"}, "search must not contain NUL"),
    ],
)
def test_parameters_are_checked(at: Opened, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sessions.list_sessions(at, **given)


def test_reading_loads_neither_torch_nor_the_strategies(home: Path) -> None:
    code = (
        "import sys; from fedpkg.api.opening import opened\n"
        "from fedpkg.api import routes, sessions, clients, topology\n"
        f"with opened({str(home)!r}) as at:\n"
        "    sessions.get_session(at, 'tree'), clients.list_clients(at, 'tree'), topology.get_topology(at, 'tree')\n"
        "print({'torch', 'aiohttp', 'fedpkg.strategies.tree'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
