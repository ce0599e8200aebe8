"""FEDn's API client with the address of a server: the answers of a home; and actions on sessions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fedpkg
from fedpkg.api import actions
from fedpkg.api.fedn_form import METHODS
from fedpkg.api.opening import Opened, opened
from fedpkg.api_client import APIClient
from fedpkg.api_remote import RemoteClient
from fedpkg.errors import ServerOnly, SessionError, StoreError
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from tests.unit.api.conftest import MISBEHAVE, Ask

IDS: dict[str, Callable[[Any], str]] = {
    "get_session": lambda client: client.get_sessions()["result"][0]["id"],
    "get_session_status": lambda client: client.get_sessions()["result"][-1]["id"],
    "session_is_finished": lambda client: "digits-killed",
    "get_model": lambda client: client.get_models()["result"][0]["id"],
    "get_round": lambda client: client.get_rounds()["result"][0]["id"],
    "get_status": lambda client: client.get_statuses(n_max=1)["result"][0]["id"],
    "get_validation": lambda client: client.get_validations(n_max=1)["result"][0]["id"],
    "get_client": lambda client: "client-1",
    "get_combiner": lambda client: "combiner",
    "get_package": lambda client: "none",
    "get_current_attributes": lambda client: "client-1",
}


@pytest.fixture(scope="module")
def both(home: Path, address: str) -> tuple[Any, Any]:
    return APIClient(home=home), APIClient(address, token="ignored here")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_server_and_home_give_the_same_answers(both: tuple[Any, Any], name: str) -> None:
    local, remote = both
    assert isinstance(remote, RemoteClient)
    args = (IDS[name](local),) if name in IDS else ()
    wanted = getattr(local, name)(*args)
    assert getattr(remote, name)(*args) == json.loads(json.dumps(wanted))


def test_arguments_by_name_reach_the_server(both: tuple[Any, Any]) -> None:
    local, remote = both
    given: dict[str, Any] = {"session_id": "nested", "sender_name": "client-2", "n_max": 2}
    assert remote.get_validations(**given) == local.get_validations(**given)
    assert remote.get_session(session_id="nested")["name"] == "nested", "a name of FEDn 0.6"
    assert remote.get_session("nowhere") == local.get_session("nowhere")
    trail = remote.get_model_trail(include_self=False, n_max=1)
    assert trail == local.get_model_trail(include_self=False, n_max=1) and trail


def test_wrong_arguments_are_answers(both: tuple[Any, Any]) -> None:
    _, remote = both
    for answer in (remote.get_models(colour="red"), remote.get_rounds(n_max="many"), remote.get("/nowhere")):
        assert answer["success"] is False and answer["message"]
    with pytest.raises(ServerOnly, match="only reads"):
        remote.start_session()


def test_model_is_downloaded_in_the_format_of_the_name(both: tuple[Any, Any], tmp_path: Path) -> None:
    local, remote = both
    model = remote.get_models(session_id="nested")["result"][0]["id"]
    for client, name in ((local, "local.npz"), (remote, "remote.npz"), (remote, "remote.safetensors")):
        assert client.download_model(model, str(tmp_path / name))["success"]
    assert (tmp_path / "local.npz").read_bytes() == (tmp_path / "remote.npz").read_bytes()
    assert (tmp_path / "remote.safetensors").stat().st_size > 1000
    assert not remote.download_model("nowhere.1", str(tmp_path / "x.npz"))["success"]
    assert not (tmp_path / "x.npz").exists()


def test_any_address_can_be_asked(both: tuple[Any, Any]) -> None:
    _, remote = both
    assert remote.get("/sessions", search="nested")["total"] == 1
    assert len(remote.get("/compare", sessions=["nested", "tree"])["sessions"]) == 2
    listed = remote.get("/sessions/nested/validations", form="jsonl")
    assert listed and listed == remote.get("/sessions/nested/validations")


def test_address_is_put_right(both: tuple[Any, Any]) -> None:
    _, remote = both
    assert remote.get("sessions?search=nested")["total"] == 1
    assert "there is no session 'a b'" in remote.get("/sessions/a b")["message"]


def test_method_that_only_a_home_has_is_told_from_a_misspelt_one(both: tuple[Any, Any]) -> None:
    _, remote = both
    with pytest.raises(ServerOnly, match="its API only reads"):
        remote.start_session()
    with pytest.raises(AttributeError, match="did you mean 'get_sessions'"):
        remote.get_sesions()
    assert not hasattr(remote, "nothing_like_this")


def test_server_that_is_not_there_is_told() -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        fedpkg.APIClient("http://127.0.0.1:1").get_sessions()


def test_token_in_the_address_is_used() -> None:
    client = RemoteClient("http://127.0.0.1:8080/?token=abc")
    assert (client.address, client._token) == ("http://127.0.0.1:8080", "abc")


def test_long_list_is_refused_in_this_form(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpkg.api.fedn_form.MOST_ROWS", 3)
    told = ask("/fedn/get_validations").json["error"]
    assert told["status"] == 400 and "validations and tasks send lists of any length" in told["hint"]


@pytest.mark.parametrize(
    ("query", "told"), [("args={}", "must be a JSON array"), ("kwargs=[", "is not JSON"), ("kwargs=[]", "JSON object")]
)
def test_arguments_are_json(ask: Ask, query: str, told: str) -> None:
    assert told in ask(f"/fedn/get_models?{query}").json["error"]["message"]
    assert ask("/fedn/start_session").status == ask("/fedn/__init__").status == 404


def test_running_session_is_requested_to_stop(written: Callable[..., Path]) -> None:
    root = written(status="running")
    home = Home.open(root)
    with home.lock() as note, opened(root) as at:
        note("digits-1")
        assert actions.stop_session(at, "latest").command == "fedpkg session stop digits-1 --home 'skrivet hem ü'"
        assert at.store.stop_requested("digits-1")
        with pytest.raises(SessionError, match="is running: there is nothing to resume"):
            actions.resume_session(at, "digits-1")


def test_session_that_has_ended_is_not_stopped_or_resumed(at: Opened) -> None:
    with pytest.raises(SessionError, match="is finished: there is nothing to stop"):
        actions.stop_session(at, "nested")
    with pytest.raises(SessionError, match="is finished: there is nothing to resume"):
        actions.resume_session(at, "nested")


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/sessions/nested/stop", 409, "there is nothing to stop"),
        ("/sessions/nested/resume", 409, "there is nothing to resume"),
        ("/sessions/nowhere/stop", 404, "there is no session"),
    ],
)
def test_action_that_is_refused_says_why(address: str, path: str, status: int, told: str) -> None:
    request = urllib.request.Request(f"{address}/api/v1{path}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as error:
        answer = json.loads(error.read())["error"]
    assert error.code == answer["status"] == status and told in answer["message"]


@pytest.mark.soak
def test_session_is_resumed_in_a_process_of_its_own(tmp_path: Path) -> None:
    config = {"package": str(MISBEHAVE), "rounds": 1, "clients": {"count": 2}, "executor": {"workers": 2}}
    first = fedpkg.run(config, tmp_path / "home", progress=False)
    with open_store(Home.open(tmp_path / "home")) as store:
        store.extend_session(first.id, {**store.get_session(first.id).config, "rounds": 2}, 2)
    with opened(tmp_path / "home") as at:
        assert "resumed.log" in actions.resume_session(at, first.id).message
        for thread in threading.enumerate():
            if thread.name == "fedpkg-resumed":
                thread.join(120)
        log = (at.home.session_folder(first.id) / actions.LOG).read_text()
        assert at.store.count_rounds(first.id, status="finished") == 2, log


def test_a_resume_that_fails_tells_its_own_error_and_not_that_of_a_former_one(tmp_path: Path) -> None:
    log = tmp_path / actions.LOG
    log.write_text("error: a former one\n")
    start = log.stat().st_size
    for words, told in (("", "the process ended with exit code 3"), ("error: this one", "this one")):
        with log.open("ab") as output:
            command = [sys.executable, "-c", f"import sys; print({words!r}); sys.exit(3)"]
            process = subprocess.Popen(command, stdout=output)
        with pytest.raises(SessionError, match=f"^{told}$"):
            actions.Resuming("s", process, log, start).check(60.0)
