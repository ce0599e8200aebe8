"""The read API over HTTP: the answers of the functions, refusals in one form, and lists that are sent bit by bit."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from fedpkg.api import encoding, metrics, sessions, tasks, values
from fedpkg.api.asking import parameters
from fedpkg.api.opening import Opened, opened
from fedpkg.api.routes import PREFIX, ROUTES, Route
from fedpkg.stores import overview
from tests.unit.api.conftest import Ask, in_store, serving
from tests.unit.reporting.written import write_session

HOSTILE_REFS = (
    "..", "../..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f", "/etc/passwd", "nested/../tree",
    "nested\0", "nested\n", "'; drop table sessions; --", "nested' or '1'='1", "%", "_", "*", "~", "~root", "$HOME",
    "\\..\\..", "file:///etc/passwd", "http://127.0.0.1/", "C:\\", "😀" * 40, "ا" * 300, "\u202e", "\ufeff", " ", ".",
    "{ref}", "${x}", "<script>", "nested.", "nested.999999999999999999999999", "nested.-1", "latest.1.1", "x" * 1001,
)  # fmt: skip


def filled(route: Route, value: str) -> str:
    """The address of a route, each name in it with this value."""
    return re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] == "round_number" else quote(value, safe=""), route.path)


def needed(route: Route) -> str:
    """The query that a route needs."""
    given = {"metric": "accuracy", "clients": "client-0", "sessions": "nested", "x": "seed", "y": "seed"}
    fields = msgspec.structs.fields(parameters(route.function))
    names = [one.name for one in fields if one.required and f"{{{one.name}}}" not in route.path]
    return "?" + "&".join(f"{name}={given[name]}" for name in names) if names else ""


def test_document_names_every_address_and_parameter(ask: Ask) -> None:
    document = ask("/openapi.json").json
    assert {f"{PREFIX}{route.path}" for route in ROUTES} == document["paths"].keys()
    operation = document["paths"][f"{PREFIX}/sessions/{{ref}}/series"]["get"]
    assert operation["summary"] == "One metric of a session by round."
    by_name = {one["name"]: one for one in operation["parameters"]}
    assert by_name["ref"]["in"] == "path" and by_name["metric"]["required"] and not by_name["axis"]["required"]
    assert by_name["axis"]["schema"]["enum"] == ["bytes", "calls", "round", "seconds", "virtual_s"]
    assert "first of the phases" in by_name["phase"]["description"]
    schemas = document["components"]["schemas"]
    assert "SessionSummary" in schemas and "list_sessions" not in schemas, "types of answers, and no others"
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))) <= schemas.keys()


@pytest.mark.parametrize("route", [one for one in ROUTES if not one.is_action], ids=lambda route: route.name)
def test_every_address_has_an_answer_of_its_type(ask: Ask, at: Opened, route: Route) -> None:
    task = next(tasks.list_tasks(at, "nested", status="ok", entry_point="validate"))
    values_of = dict.fromkeys(("get_validation", "get_task", "get_log"), task.task_id)
    values_of |= {"get_sweep": "swept", "heat_map": "swept", "client_history": "client-0"}
    value = {**values_of, "combiner_rounds": "tree", "fedn_answer": "get_rounds"}.get(route.name, "nested")
    path = route.path.replace("{client_id}", "client-0") if route.name == "get_client" else route.path
    answered = ask(filled(Route(path, route.function), value) + needed(route))
    assert answered.status == 200, answered.body
    if not route.is_file:
        kind = list[route.answer] if route.is_stream else route.answer  # type: ignore[name-defined]
        msgspec.json.decode(answered.body, type=kind)


def test_answer_is_that_of_the_function(ask: Ask, at: Opened) -> None:
    assert ask("/sessions/nested").body == encoding.encode(sessions.get_session(at, "nested"))
    lines = ask("/sessions/nested/validations?form=jsonl&round_number=2")
    assert lines.headers["Content-Type"] == "application/jsonl"
    wanted = [msgspec.to_builtins(one) for one in values.list_validations(at, "nested", round_number=2)]
    assert [json.loads(line) for line in lines.body.splitlines()] == wanted and len(wanted) == 3
    assert ask("/sessions/nested/validations?round_number=2").json == wanted
    assert ask("/sessions/nested/validations?round_number=77").json == []


def test_model_is_downloaded(ask: Ask) -> None:
    got = ask("/models/nested/file?form=.safetensors")
    assert got.status == 200 and len(got.body) == int(got.headers["Content-Length"])
    assert re.fullmatch(r'attachment; filename="nested-[0-9-]+\.3\.safetensors"', got.headers["Content-Disposition"])


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/sessions/nestled", 404, "there is no session 'nestled'"),
        ("/sessions?limit=many", 400, "limit: expected `int`, got `str`"),
        ("/sessions?limit=1&limit=2", 400, "limit is given 2 times"),
        ("/sessions?limits=1", 400, "there is no parameter limits; did you mean 'limit'?"),
        ("/sessions?at=1", 400, "there is no parameter at"),
        ("/sessions/nested?ref=tree", 400, "there is no parameter ref"),
        ("/sessions/nested/series", 400, "required field `metric`"),
        ("/sessions/nested/rounds/x", 400, "round_number: expected `int`"),
        ("/sessions/nested/rounds/-1", 400, "round_number: expected `int` >= 0"),
        ("/sessions/nested/validations?phase=x", 400, "phase: invalid enum value 'x'"),
        ("/sessions/nested/validations?form=xml", 400, "form must be json or jsonl"),
        ("/sessions/nested/lines?metric=accuracy&" + "clients=a&" * 101, 400, "clients: expected `array` of length <="),
        ("/compare", 400, "required field `sessions`"),
        ("/models/nested/file?form=.exe", 400, "form must be one of"),
        ("/sessions/%00", 400, "ref must not contain NUL"),
        ("/clients/nobody", 404, "no session of the home has a client"),
        ("/sessions?search=" + "x" * 1001, 400, "search: expected `str` of length <= 500"),
    ],
)
def test_refusal_says_what_is_wrong(ask: Ask, path: str, status: int, told: str) -> None:
    answered = ask(path)
    error = answered.json["error"]
    assert answered.status == error["status"] == status
    assert told in error["message"]


@pytest.mark.parametrize(
    "route", [one for one in ROUTES if "{" in one.path and not one.is_action], ids=lambda route: route.name
)
def test_no_reference_leads_out_of_the_home(ask: Ask, home: Path, route: Route) -> None:
    for ref in HOSTILE_REFS:
        answered = ask(filled(route, ref) + needed(route))
        assert answered.status in (400, 404), (ref, answered.status, answered.body[:200])
        assert b"root:" not in answered.body and str(home).encode() not in answered.body
        assert b"Traceback" not in answered.body


def test_home_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    write_session(tmp_path / "home")
    (tmp_path / "home" / "state.db").write_bytes(b"no database" * 500)
    with serving(tmp_path / "home") as address:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/api/v1/sessions")
        with caught.value as error:
            told = json.loads(error.read())["error"]
    assert told["status"] == 503 and "state.db is not a database" in told["message"]
    assert str(tmp_path) not in told["message"]


def test_home_that_is_made_anew_is_read_anew(tmp_path: Path) -> None:
    """An open database of which the file was removed has its rows for ever."""

    def told() -> Any:
        try:
            with urllib.request.urlopen(f"{address}/api/v1/sessions") as got:
                return [one["session_id"] for one in json.load(got)["items"]]
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    write_session(tmp_path / "home", "before-1")
    with serving(tmp_path / "home") as address:
        assert told() == ["before-1"]
        shutil.rmtree(tmp_path / "home")
        assert told() == 404
        write_session(tmp_path / "home", "after-1")
        assert told() == ["after-1"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), None),
        ({"a": [float("inf"), 1.5]}, {"a": [None, 1.5]}),
        (10**400, 10**400),
        ("\ud800", "\ud800"),
        ({"\udcff": float("nan")}, {"\udcff": None}),
        ("\x1b[31m\u202e</script>", "\x1b[31m\u202e</script>"),
    ],
)
def test_every_value_of_a_client_is_json(value: Any, told: Any) -> None:
    sent = encoding.encode({"value": value})
    assert json.loads(sent, parse_constant=pytest.fail) == {"value": told}


def test_rows_that_a_page_reads_do_not_grow_with_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages about a session read aggregates: no row for each task or validation."""
    read: dict[int, dict[str, int]] = {}
    for clients in (4, 40):
        root = tmp_path / str(clients)
        write_session(root, clients=clients, rounds=5, fails_every=99)
        with opened(root) as at:
            counted: list[int] = []
            rows = at.store._database.rows

            def counting(sql: str, parameters: Any = {}, /, *, rows: Any = rows, counted: Any = counted) -> Any:  # noqa: B006
                found = rows(sql, parameters)
                counted.append(len(found))
                return found

            monkeypatch.setattr(at.store._database, "rows", counting)
            read[clients] = {}
            for name, path in (
                ("session", sessions.get_session),
                ("list", lambda at, _: sessions.list_sessions(at)),
                ("metrics", metrics.all_series),
            ):
                counted.clear()
                path(at, "digits-1")
                read[clients][name] = sum(counted)
    assert read[4] == read[40] and read[4]["session"] < 60 and read[4]["metrics"] < 100, read


def test_long_list_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "home"
    write_session(root, clients=9, rounds=4, fails_every=99)
    with opened(root) as at:
        whole = [one.task_id for one in values.list_validations(at, "digits-1")]
        monkeypatch.setattr(overview, "BATCH_ROWS", 5)
        monkeypatch.setattr(overview, "BATCH_BYTES", 200)
        assert [one.task_id for one in values.list_validations(at, "digits-1")] == whole and len(whole) == 36
        assert len(list(tasks.list_tasks(at, "digits-1", client_id="client-003"))) == 8


def test_long_list_needs_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """36 validations of 300 kB are sent with a few of them in memory."""
    root = tmp_path / "home"
    write_session(root, clients=9, rounds=4, fails_every=99)
    in_store(root, f"update validations set metrics = '{json.dumps({'text': 'x' * 300_000})}'")
    monkeypatch.setattr(overview, "BATCH_BYTES", 1 << 20)
    with opened(root) as at:
        tracemalloc.start()
        try:
            size = sum(map(len, encoding.pieces(values.list_validations(at, "digits-1"), "json")))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 36 * 300_000 and peak < 5e6
