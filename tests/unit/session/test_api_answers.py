"""Each method of FEDn's API client, as its versions have it: arguments in their order, and the answers in a table."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_support import LISTS, PACKAGE, client_in, failed, finish

from fedpkg.api_client import APIClient
from fedpkg.api_settings import in_order_of_today
from fedpkg.cli.main import run_command
from fedpkg.session import background

AGENTS = ("sender_name", "sender_role", "receiver_name", "receiver_role", "n_max")
ROUNDS = ("round_timeout", "rounds", "round_buffer_size", "delete_models", "validate")
IN_ORDER: dict[str, tuple[str, ...]] = {  # of FEDn 0.33
    **{f"get_{noun}_count": () for noun in LISTS},
    **{f"get_{noun}": ("n_max",) for noun in ("clients", "combiners", "packages", "rounds")},
    **{f"get_{noun}": ("id",) for noun in ("client", "combiner", "model", "package", "round", "status", "validation")},
    "get_client_config": ("checksum",),
    "get_active_clients": ("combiner_id", "n_max"),
    "get_controller_status": (),
    "get_models": ("session_id", "n_max"),
    "get_active_model": (),
    "get_model_trail": ("id", "include_self", "reverse", "n_max"),
    "download_model": ("id", "path"),
    "set_active_model": ("path",),
    "get_active_package": (),
    "get_package_checksum": (),
    "download_package": ("path",),
    "set_active_package": ("path", "helper", "name", "description"),
    "get_session": ("id", "name"),
    "get_sessions": ("n_max", "name"),
    "get_session_status": ("id",),
    "session_is_finished": ("id",),
    "start_session": (
        *("name", "aggregator", "aggregator_kwargs", "model_id", *ROUNDS, "helper", "min_clients"),
        *("requested_clients", "server_functions"),
    ),
    "start_splitlearning_session": ("name", "model_id", *ROUNDS, "min_clients", "requested_clients"),
    "continue_session": ("session_id", "rounds", "round_timeout"),
    "get_statuses": ("session_id", "event_type", "sender_name", "sender_role", "n_max"),
    "get_validations": ("session_id", "model_id", "correlation_id", *AGENTS),
    "get_predictions": ("model_id", "correlation_id", *AGENTS),
    "start_predictions": ("prediction_id", "model_id"),
    "get_current_attributes": ("client_list",),
    "add_attributes": ("attribute",),
}
BY_NAME: dict[str, tuple[str, ...]] = {  # of Scaleout 1.x, besides; and of FEDn 0.6 to 0.8
    "get_clients_count": ("only_active",),
    "get_rounds": ("n_max", "filter"),
    "get_validations_count": ("session_id",),
    "get_validations": ("session_id", "model_id", "sender_client_id"),
    "get_predictions": ("model_id", "client_id"),
    "set_active_package": ("path", "helper", "name", "restart_clients"),
    "stop_current_session": (),
    "stop_current_command": (),
    "set_package": ("path", "helper", "name", "description"),
    "set_initial_model": ("path",),
    "list_models": ("session_id",),
    "list_compute_packages": (),
    "start_session": ("session_id", "id"),
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_every_method_of_fedn_takes_its_arguments_in_their_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(APIClient, name)).parameters)
    assert tuple(parameters[1 : len(IN_ORDER[name]) + 1]) == IN_ORDER[name]


@pytest.mark.parametrize("name", BY_NAME)
def test_arguments_of_other_versions_are_taken_by_name(name: str) -> None:
    inspect.signature(getattr(APIClient, name)).bind(None, **dict.fromkeys(BY_NAME[name]))


def test_the_first_versions_call_an_id_after_its_noun(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    assert client.get_session(session_id=session_id) == client.get_session(session_id)  # type: ignore[call-arg]
    assert client.session_is_finished(session_id=session_id) is True  # type: ignore[call-arg]
    assert client.get_round(round_id=f"{session_id}.1")["status"] == "Finished"  # type: ignore[call-arg]
    assert client.get_combiner(combiner_id="combiner")["name"] == "combiner"  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="round_id"):
        client.get_models(round_id="1")  # type: ignore[call-arg]


COUNTS: list[tuple[str, tuple[Any, ...], dict[str, Any], int]] = [
    ("get_validations", ("SESSION", "LAST"), {}, 3),
    ("get_validations", ("SESSION", None, None, "site-1"), {}, 2),
    ("get_validations", (None, None, None, None, "WORKER", "combiner", "COMBINER"), {}, 6),
    ("get_validations", (None, "LAST"), {"sender_client_id": "site-2"}, 1),
    ("get_statuses", ("SESSION", "MODEL_UPDATE", "site-2", "WORKER"), {}, 2),
    ("get_predictions", ("LAST", None, "site-1"), {}, 0),
    ("get_active_clients", ("combiner",), {}, 3),
    ("get_active_clients", ("another",), {}, 0),
    ("get_models", ("SESSION",), {}, 2),
    ("get_rounds", (), {"filter": {"round_config.session_id": "SESSION"}}, 2),
    ("get_rounds", (), {"filter": {"round_config.session_id": "another"}}, 0),
    ("get_sessions", (None, "first"), {}, 1),
]


@pytest.mark.parametrize(("method", "given", "named", "count"), COUNTS)
def test_lists_are_filtered(
    used: tuple[APIClient, str, Path], method: str, given: tuple[Any, ...], named: dict[str, Any], count: int
) -> None:
    client, session_id, _folder = used
    ids = {"SESSION": session_id, "LAST": client.get_active_model()["model"]}
    filters = named.get("filter")
    named = {**named, **({"filter": {key: ids.get(one, one) for key, one in filters.items()}} if filters else {})}
    answer = getattr(client, method)(*(ids.get(one, one) for one in given), **named)
    assert answer["count"] == len(answer["result"]) == count


def test_counts_may_be_of_some_only(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    assert client.get_clients_count(only_active=True) == client.get_clients_count() == 3
    assert (client.get_validations_count(session_id), client.get_validations_count("another")) == (6, 0)


def test_a_rounds_model_is_the_one_that_it_began_with(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    seed, first, _last = [model["model"] for model in client.get_model_trail()]  # type: ignore[call-overload]
    models = [one["round_config"]["model_id"] for one in client.get_rounds()["result"]]
    assert models == [first, seed] and client.get_session(session_id)["session_config"]["model_id"] == seed


ANSWERS: dict[str, tuple[Callable[[APIClient], Any], str]] = {
    "no id": (lambda client: client.get_session(), "No id or name provided."),
    "no such name": (lambda client: client.get_session(name="x"), "Session not found."),
    "no such id": (lambda client: client.get_session("x"), "Entity with id: x not found"),
    "no package yet": (lambda client: client.get_active_package(), "Entity not found"),
    "nothing to stop": (lambda client: client.stop_current_session(), "No session is running."),
    "no rounds": (lambda client: client.continue_session("x", 0), "Invalid number of rounds provided. "),
    "no time": (lambda client: client.continue_session("x", 1, -1), "Invalid round timeout provided. "),
    "no session": (lambda client: client.continue_session("x"), "there is no session 'x'"),
    "no model to predict with": (lambda client: client.start_predictions(), "No models available"),
    "no model": (lambda client: client.get_active_model(), "there is no model yet"),
    "no trail": (lambda client: client.get_model_trail("x"), "Entity with id: x not found"),
    "no package to start": (lambda client: client.start_session("a", "fedavg"), "No active package"),
    "no mapping": (lambda client: client.start_session("a", "fedavg", [1]), "aggregator_kwargs must be a mapping"),
    "nothing to download": (lambda client: client.download_package("p.tgz"), "Failed to download package."),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_failure_is_an_answer_that_says_so(tmp_path: Path, what: str) -> None:
    call, message = ANSWERS[what]
    answer = call(client_in(tmp_path, clients=2))
    assert answer.keys() == {"success", "message"} and answer["success"] is False
    assert message in answer["message"]


def test_a_file_that_holds_no_model_is_not_added(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    (tmp_path / "seed.npz").write_text("no model")
    answer = client.set_active_model(str(tmp_path / "seed.npz"))
    assert answer["success"] is False and answer["message"].startswith("Failed to add model. ")
    assert str(tmp_path / "seed.npz") in answer["message"] and client.get_models_count() == 0
    client.set_active_package(str(PACKAGE), "binaryhelper", "raw")  # whose files say nothing of themselves
    assert client.set_active_model(str(tmp_path / "seed.npz"))["success"] is True


POSITIONS: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
    (("a", "fedavg", "model", 60, 3, -1), ("a", "fedavg", None, "model", 60, 3, -1)),
    (("a", "fedavg", None, 60, 3), ("a", "fedavg", None, None, 60, 3)),
    (("a", "fedavg", "model"), ("a", "fedavg", None, "model")),
    (("a", "fedopt", '{"serveropt": "adam"}', "model"), ("a", "fedopt", '{"serveropt": "adam"}', "model")),
    (("a", "fedopt", {"serveropt": "adam"}, None, 60), ("a", "fedopt", {"serveropt": "adam"}, None, 60)),
    (("a", "fedavg", None, None, 60), ("a", "fedavg", None, None, 60)),
    (("a", "fedavg", None, "model"), ("a", "fedavg", None, "model")),
    (("a",), ("a",)),
]


@pytest.mark.parametrize(("given", "meant"), POSITIONS)
def test_arguments_of_a_session_by_position_are_read_in_the_order_of_their_version(
    given: tuple[Any, ...], meant: tuple[Any, ...]
) -> None:
    assert in_order_of_today(given) == meant


def test_an_error_names_the_file_that_was_uploaded_and_so_do_the_lists(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    package = tmp_path / "mine" / "client"
    package.mkdir(parents=True)
    (package / "fedn.yaml").write_text("entry_points: {train: {command: cp}}")
    client.set_active_package(str(package), "numpyhelper", "means")
    told = client.start_session()["message"]
    assert f"package {package} has no 'build' entry point" in told and "api/files" not in told
    np.savez(tmp_path / "seed.npz", **{"0": np.full(1, np.nan)})
    client.set_active_model(str(tmp_path / "seed.npz"))
    session = client.start_session(rounds=1)
    background.wait()
    assert f"seed model {tmp_path / 'seed.npz'}: tensor '0' has NaN" in session["message"]
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(1)})
    client.set_active_model(str(tmp_path / "seed.npz"))
    client.start_session(rounds=1)
    background.wait()
    for words in (["list"], ["show"]):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            run_command(["session", *words, "--home", str(tmp_path / "home")])
        assert str(package) in shown.getvalue() and "api/files" not in shown.getvalue(), shown.getvalue()


def test_a_setting_that_does_not_do_is_named(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    client.set_active_package(str(PACKAGE), "numpyhelper", "means")
    assert client.start_session(rounds="2")["message"].startswith("'rounds' must be a whole number")  # type: ignore[arg-type]
    assert "round.required is 9" in client.start_session(min_clients=9)["message"]


def test_what_was_done_is_said_in_fedns_words(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(1)})
    said = [client.set_active_package(str(PACKAGE), "numpyhelper"), client.set_active_model(str(tmp_path / "seed.npz"))]
    assert [one["message"] for one in said] == ["Package uploaded", "Model added successfully"]
    assert client.start_predictions(model_id="x") == failed("Model x not found")
    said += [client.get_package_checksum(), client.download_package(str(tmp_path / "package.tgz"))]
    started = client.start_session("by position", "fedavg", None, None, 60, 1000, -1, True, False, "numpyhelper", 1, 8)
    assert (started["message"], client.get_session_status(started["session_id"])) == ("Session started", "Started")
    config = client.get_session(started["session_id"])["session_config"]
    assert (config["rounds"], config["round_timeout"], config["validate"]) == (1000, 60, False)
    said += [started, client.stop_current_session()]
    background.wait()
    assert client.session_is_finished(started["session_id"])
    assert all(one["success"] is True for one in said), said


def test_files_of_the_script_are_opened_as_fedn_opens_them(used: tuple[APIClient, str, Path], tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    for method in (client.set_active_model, client.set_active_package):
        with pytest.raises(FileNotFoundError):
            method(str(tmp_path / "no.npz"))  # type: ignore[operator]
    with pytest.raises(FileNotFoundError):
        used[0].download_model(used[0].get_active_model()["id"], str(tmp_path / "no folder" / "model.npz"))


def test_what_only_a_server_has_is_told_where_to_read_more(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    assert not hasattr(client, "stage_model")
    with pytest.raises(AttributeError, match=r"no 'run_custom_command': docs/reference/fedn-api\.md"):
        client.run_custom_command("x")  # type: ignore[attr-defined]


def test_an_attribute_is_of_the_client_or_entity_that_it_names(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    client.add_attributes({"key": "a", "value": "1", "sender": {"name": "", "client_id": "client-0"}})
    client.add_attributes({"key": "b", "value": "2", "entity_id": "client-0"})
    assert client.get_current_attributes("client-0") == {"client-0": {"a": "1", "b": "2"}}


@pytest.mark.slow
def test_predictions_are_found_by_position_and_a_session_goes_on(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    client.set_active_package(str(PACKAGE), "numpyhelper", None, None)
    session_id = finish(client, rounds=1)
    client.start_predictions("mine", client.get_active_model()["id"])
    background.wait()
    rows = client.get_predictions(None, "mine", None, "WORKER", "combiner", "COMBINER", 1)
    assert (rows["count"], len(rows["result"])) == (2, 1)
    assert client.get_predictions(client_id="client-1")["count"] == 1
    assert client.continue_session(session_id, 1, 60)["success"] is True
    background.wait()
    assert client.get_rounds_count() == 2
