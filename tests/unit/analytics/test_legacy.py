"""Calls and clients of versions 1 to 3. Each defect of the published ones (RAN in the reference) has a test here."""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from backends import NAMES, backend_of

from fedpkg.analytics import eras, serialise, tokens
from fedpkg.analytics.backend import Backend, Organization
from fedpkg.analytics.current import Call, using
from fedpkg.analytics.errors import (
    ClientError,
    CollectResultsError,
    DataFrameNotFound,
    MethodNotFoundError,
    SubtakCreationError,
    UserInputError,
    WrongArguments,
)
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.legacy import calling
from fedpkg.analytics.legacy.calling import Wrapper, answer, wrapper_in, wrapper_of
from fedpkg.analytics.legacy.client import _MOST_LOOKS, AlgorithmClient, ContainerClient, UserClient
from fedpkg.analytics.node import Database, Node
from fedpkg.analytics.places import DeserialisationError, SerialisationError

MODULE = """
import time

import numpy as np

calls = []
helper = 5


def master(client, data, *args, **kwargs):
    return [type(client).__name__, None if data is None else len(data), args, kwargs]


def total_of_all(client, data, column="x"):
    ids = [one["id"] for one in client.get_organizations_in_my_collaboration()]
    task = client.create_new_task({"method": "total", "args": [column]}, ids)
    return sum(client.get_results(task["id"]))


def patient(client, data):
    # It sleeps before it looks, as public functions do.
    tasks = [client.create_new_task({"method": "total"}, [one]) for one in (3, 1)]
    time.sleep(3600)
    return [client.get_results(one["id"]) for one in tasks]


def RPC_total(data, column="x", fail=False):
    calls.append(column)
    if fail and len(data) == 1:
        raise ValueError("too few rows")
    return data[column].sum()


def RPC_echo(data, *args, **kwargs):
    return [args, kwargs]


def RPC_frame(data):
    return data


def RPC_places(data):
    return data


def RPC_leave(data):
    exit(3)


def RPC_lambda(data):
    return {"model": lambda: 1}


RPC_number = 3
"""
TOTAL = {"method": "total"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An algorithm whose name has hyphens."""
    name = "v6-of-a-test-py"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def call_at(frame: Any, *, databases: tuple[str, ...] = ("default",), node: Node | None = None) -> Call:
    """A call at the first of two organizations."""
    nodes = [MockNode(Organization(number, f"org-{number}"), {"default": frame}) for number in (1, 2)]
    backend = InProcess("no module", nodes)
    node = node or Node(databases={label: Database(label, f"/data/{label}.csv") for label in databases})
    return Call(backend, node, databases, lambda label: frame)


@pytest.fixture
def ask(module: str) -> Callable[..., Any]:
    """Answers an input; returns the result as the client of that era reads it."""

    def ask(input_: Any, *, wrapper: Wrapper | None = None, **more: Any) -> Any:
        call = call_at(pd.DataFrame({"x": [1, 2]}))
        written = input_ if isinstance(input_, bytes) else serialise.write(input_, what="the input")
        return serialise.read(answer(module, written, call, wrapper=wrapper or Wrapper(), **more), what="the result")

    return ask


# ---- which function, and how it is called


@pytest.mark.parametrize("flag", [1, True, "true", "false", [0]])
def test_any_true_value_of_master_asks_for_a_central_function(flag: Any, ask: Callable[..., Any]) -> None:
    assert ask({"master": flag, "method": "master", "args": [1], "kwargs": {"a": 2}})[1:] == [2, (1,), {"a": 2}]


@pytest.mark.parametrize("flag", [{}, {"master": 0}, {"master": None}, {"master": ""}, {"master": False}])
def test_any_other_value_asks_for_a_partial_function(flag: dict[str, Any], ask: Callable[..., Any]) -> None:
    assert ask({**flag, "method": "echo", "args": (1,), "kwargs": {"a": 2}}) == [(1,), {"a": 2}]


def test_results_keep_the_types_of_numpy(ask: Callable[..., Any]) -> None:
    assert type(ask(TOTAL)) is np.int64


@pytest.mark.parametrize(
    ("input_", "message"),
    [
        ({"method": "totl"}, "no function 'RPC_totl'. Did you mean 'total'?"),
        ({"method": "RPC_total"}, "no function 'RPC_RPC_total'. The method of a partial function is given without"),
        ({"method": "master"}, "'master' is a central function: add 'master': True"),
        ({"master": 1, "method": "total"}, "'total' is a partial function: leave out 'master'"),
        ({"master": 1, "method": "xyz"}, "central functions: master, patient, total_of_all. Functions of its"),
        ({"method": "number"}, "has a int, and no function, 'RPC_number'"),
        ({"master": 1, "method": "helper"}, "has a int, and no function, 'helper'"),
    ],
)
def test_a_missing_function_is_an_error_that_names_it(
    input_: dict[str, Any], message: str, ask: Callable[..., Any]
) -> None:
    with pytest.raises(MethodNotFoundError) as raised:
        ask(input_)
    assert message in str(raised.value)
    assert "v6-of-a-test-py" in str(raised.value)


@pytest.mark.parametrize(
    ("input_", "message"),
    [
        ({**TOTAL, "kwargs": {"colum": "x"}}, r"RPC_total\(\) has no argument 'colum'; did you mean 'column'\?"),
        ({**TOTAL, "args": [1, 2, 3]}, r"RPC_total\(\) takes 2 by position, but the input has 3 arguments in args"),
        ({**TOTAL, "kwargs": {"data": 1}}, r"RPC_total\(\) gets the argument 'data' from the runner"),
        (
            {"master": 1, "method": "total_of_all", "kwargs": {"client": 1}},
            "gets the argument 'client' from the runner",
        ),
        ({**TOTAL, "args": ["x"], "kwargs": {"column": "x"}}, "gets the argument 'column' twice"),
    ],
)
def test_wrong_arguments_are_errors_that_name_them(
    input_: dict[str, Any], message: str, ask: Callable[..., Any]
) -> None:
    with pytest.raises(WrongArguments, match=message):
        ask(input_)


@pytest.mark.parametrize("input_", [[], {}, {"method": 5}, {"method": "total", "args": "x"}, {**TOTAL, "kwargs": [1]}])
def test_what_is_no_input_is_an_error(input_: Any, ask: Callable[..., Any]) -> None:
    with pytest.raises(UserInputError):
        ask(input_)


@pytest.mark.parametrize("written", [b'json.{"method": "echo", "args": [1]}', b'JSON.{"method": "echo", "args": [1]}'])
def test_an_input_may_be_json(written: bytes, ask: Callable[..., Any]) -> None:
    assert ask(written) == [(1,), {}]


def test_output_format_is_that_of_the_input(module: str) -> None:
    call = call_at(pd.DataFrame({"x": [1, 2]}))
    written = serialise.write({"method": "frame", "output_format": "json"}, what="the input")
    assert answer(module, written, call, wrapper=Wrapper()) == b'json.{"x":{"0":1,"1":2}}'
    written = serialise.write({**TOTAL, "output_format": "json"}, what="the input")
    with pytest.raises(SerialisationError, match=r"result of RPC_total: it is of the type numpy\.int64"):
        answer(module, written, call, wrapper=Wrapper())


def test_pickles_are_read_and_written_only_if_they_are_allowed(ask: Callable[..., Any], module: str) -> None:
    written = pickle.dumps({"method": "echo"})
    with pytest.raises(DeserialisationError, match="the input: it is a pickle, which is not read"):
        ask(written)
    assert ask(written, allow_pickle=True) == [(), {}]
    with pytest.raises(SerialisationError, match=r"result of RPC_lambda: \['model'\] is of the type function"):
        ask({"method": "lambda"})


def test_the_runner_answers_old_inputs_by_their_form(module: str) -> None:
    call = call_at(pd.DataFrame({"x": [1, 2]}))
    assert serialise.read(eras.answer(module, b'json.{"method": "total"}', call), what="the result") == 3


# ---- the data


def test_several_databases_are_an_error_where_one_is_wanted(module: str) -> None:
    call = call_at(pd.DataFrame(), databases=("default", "other"))
    with pytest.raises(UserInputError, match="takes one database, but the task names default, other"):
        answer(module, b'json.{"method": "frame"}', call, wrapper=Wrapper())


def test_multidb_gives_the_places_of_all_databases(module: str) -> None:
    call = call_at(pd.DataFrame(), databases=("default", "other"))
    written = answer(module, b'json.{"method": "places"}', call, wrapper=Wrapper("multidb"))
    assert serialise.read(written, what="") == {"default": "/data/default.csv", "other": "/data/other.csv"}


def test_a_function_without_data_gets_none(ask: Callable[..., Any]) -> None:
    assert ask({"method": "frame"}, wrapper=Wrapper(has_data=False)) is None


def test_a_database_that_is_not_there_is_named(module: str) -> None:
    node = Node(databases={"default": Database("default", "/data/a.csv")})
    backend = InProcess("no module", [MockNode(Organization(1, "a"), {"x": None})])
    call = Call(backend, node, ("elsewhere",), Frames(node))
    with pytest.raises(DataFrameNotFound, match="no database 'elsewhere'; it has: default"):
        answer(module, b'json.{"method": "frame"}', call, wrapper=Wrapper())


def test_the_query_of_an_input_reads_an_sql_database(module: str, tmp_path: Path) -> None:
    """The published wrapper swaps the arguments of pandas.read_sql, and always fails."""
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("create table patients (x integer)")
        database.executemany("insert into patients values (?)", [(1,), (2,), (40,)])
    node = Node(databases={"default": Database("default", str(tmp_path / "a.sqlite"), "sql")})
    backend = InProcess("no module", [MockNode(Organization(1, "a"), {"x": None})])
    call = Call(backend, node, ("default",), Frames(node))
    input_ = {**TOTAL, "query": "select x from patients where x < 10"}
    written = answer(module, serialise.write(input_, what=""), call, wrapper=Wrapper())
    assert serialise.read(written, what="") == 3


def test_a_csv_file_has_no_query(module: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    node = Node(databases={"default": Database("default", str(tmp_path / "a.csv"))})
    call = Call(InProcess("-", [MockNode(Organization(1, "a"))]), node, ("default",), Frames(node))
    written = serialise.write({**TOTAL, "query": "select 1", "sheet_name": "a"}, what="")
    assert serialise.read(answer(module, written, call, wrapper=Wrapper()), what="") == 3


# ---- what the Dockerfile says


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("docker_wrapper('${PKG_NAME}')", Wrapper("csv", True, False)),
        ("wrapper import auto_wrapper; auto_wrapper('a', use_new_client=True)", Wrapper("auto", True, True)),
        ("multidb_wrapper('a', use_new_client = True)", Wrapper("multidb", True, True)),
        ("docker_wrapper('a', load_data=False)", Wrapper("csv", False, False)),
        ("from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()", None),
        ("", None),
    ],
)
def test_the_wrapper_is_the_one_of_the_dockerfile(command: str, expected: Wrapper | None, tmp_path: Path) -> None:
    assert wrapper_in(f'CMD python -c "{command}"') == expected
    (tmp_path / "Dockerfile").write_text(f'FROM x\nCMD python -c "{command}"\n')
    assert wrapper_of(tmp_path) == (expected or Wrapper())


def test_the_client_is_the_one_that_the_wrapper_asks_for(ask: Callable[..., Any]) -> None:
    input_ = {"master": 1, "method": "master"}
    assert ask(input_, wrapper=Wrapper(new_client=False))[0] == "ContainerClient"
    assert ask(input_, wrapper=Wrapper(new_client=True))[0] == "AlgorithmClient"
    assert issubclass(AlgorithmClient, ContainerClient)


# ---- clients: over functions in this process, and over the rounds of a session


@pytest.fixture(params=["coordinated", "in_process"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, module: str) -> Backend:
    found = backend_of(request.param, tmp_path, module)
    if isinstance(found, InProcess):
        found._network.answer = calling.answer
    return found


@pytest.fixture
def client(backend: Backend) -> AlgorithmClient:
    return AlgorithmClient.of(backend)


def calls_of(module: str) -> list[str]:
    return sys.modules[module].calls if module in sys.modules else []  # type: ignore[no-any-return]


def test_tasks_run_together_at_the_first_look(client: AlgorithmClient, backend: Backend, module: str) -> None:
    tasks = [client.create_new_task({**TOTAL, "kwargs": {"column": "x"}}, [one]) for one in (1, 2, 3)]
    assert calls_of(module) == []
    assert [one["id"] for one in tasks] == [1, 2, 3]
    assert tasks[1]["complete"] is True
    assert len(calls_of(module)) == 3
    assert all(backend.has_ended(one["id"]) for one in tasks)
    assert client.get_results(3) == [15]


@pytest.mark.parametrize("look", ["get_task", "request", "dictionary", "results"])
def test_a_loop_that_waits_ends_at_once(look: str, client: AlgorithmClient) -> None:
    task = client.create_new_task(TOTAL, [3, 1])
    if look == "get_task":
        task = client.get_task(task.get("id"))
    if look == "request":
        task = client.request(f"task/{task['id']}")
    if look != "results":
        assert task.get("complete") is True
        assert task["status"] == "completed"
    assert client.get_results(task_id=task["id"]) == [15, 3]


def test_a_nested_central_function_that_sleeps_does_not_wait(tmp_path: Path, module: str) -> None:
    client = AlgorithmClient.of(backend_of("coordinated", tmp_path, module))
    task = client.create_new_task({"master": True, "method": "patient"}, [2])
    assert client.get_results(task["id"]) == [[[15], [3]]]


def test_results_are_new_values_each_time(client: AlgorithmClient) -> None:
    task = client.create_new_task({"method": "frame"}, [1])
    first = client.get_results(task["id"])[0]
    first["x"] = 0
    assert list(client.get_results(task["id"])[0].x) == [1, 2]


def test_a_failed_organization_is_named_where_results_are_read(client: AlgorithmClient) -> None:
    """The published clients raise an EOFError (2.x) or leave the organization out without a word (3.x)."""
    task = client.create_new_task({**TOTAL, "kwargs": {"fail": True}}, [1, 2, 3])
    assert task["complete"] is True
    assert task["status"] == "failed"
    with pytest.raises(CollectResultsError) as raised:
        client.get_results(task["id"])
    assert "1 of 3 organizations have no result of task 1" in str(raised.value)
    assert f"{NAMES[1]} (id 2)" in str(raised.value)
    assert "ValueError: too few rows" in str(raised.value)
    records = client.request("task/1/result")
    assert [one["result"] is None for one in records] == [False, True, False]


def test_a_task_without_organizations_is_for_all_with_a_warning(client: AlgorithmClient) -> None:
    """A server makes a task without runs, which is complete at once and has no results."""
    with pytest.warns(UserWarning, match="names no organizations, so all of them run it"):
        task = client.create_new_task(TOTAL)
    assert client.get_results(task["id"]) == [3, 3, 15]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "organization_ids is empty"), ([1, 1], "twice"), ([7], "7"), (1, "must be a list"), ("12", "must be a list")],
)
def test_wrong_organizations_are_errors_where_the_task_is_created(
    ids: Any, message: str, client: AlgorithmClient
) -> None:
    with pytest.raises(ValueError, match=message):
        client.create_new_task(TOTAL, ids)


def test_inputs_without_a_method_or_with_objects_are_errors(client: AlgorithmClient) -> None:
    for wrong in ({"metod": "total"}, "total", None):
        with pytest.raises(SubtakCreationError, match="has no method"):
            client.create_new_task(wrong, [1])
    with pytest.raises(SerialisationError, match=r"input of total: \['args'\]\[0\] is of the type object"):
        client.create_new_task({**TOTAL, "args": [object()]}, [1])


def test_request_answers_what_functions_ask(client: AlgorithmClient) -> None:
    task = client.create_new_task(TOTAL, [2, 1])
    records = client.request(f"task/{task['id']}/result")
    assert [one["organization"]["id"] for one in records] == [2, 1]
    assert [pickle.loads(base64.b64decode(one["result"])) for one in records] == [3, 3]
    assert client.request("/api/task/1")["results"][0]["id"] == records[0]["id"]
    assert [one["name"] for one in client.request("collaboration/1/organization")] == list(NAMES)
    assert client.request("organization", params={"collaboration_id": 1}) == client.organization.list()
    assert client.request("organization/2")["name"] == NAMES[1]
    assert client.request("collaboration/1")["id"] == 1
    assert client.request(f"node/{client.host_node_id}")["organization"]["id"] == client.organization_id
    for path in ("task/77", "task/77/result", "organization/77", "collaboration/77", "node/77"):
        kind, id_ = path.split("/")[:2]
        assert client.request(path) == {"msg": f"{kind} id={id_} not found"}


@pytest.mark.parametrize(
    ("path", "method"), [("role", "get"), ("user/1", "get"), ("task/1", "delete"), ("task/x", "get"), ("vpn/a", "get")]
)
def test_other_requests_are_errors_that_name_the_path(path: str, method: str, client: AlgorithmClient) -> None:
    with pytest.raises(NotImplementedError, match=f"{method.upper()} {path}"):
        client.request(path, method=method)


def test_a_task_can_be_posted(client: AlgorithmClient) -> None:
    input_ = base64.b64encode(b"json." + json.dumps(TOTAL).encode()).decode()
    body = {"name": "a", "organizations": [{"id": 1, "input": input_}, {"id": 3, "input": input_}]}
    assert client.get_results(client.request("task", json=body, method="POST")["id"]) == [3, 15]
    with pytest.raises(SubtakCreationError, match="the same input for all"):
        client.request("task", json={"organizations": []}, method="post")
    pickled = base64.b64encode(pickle.dumps(TOTAL)).decode()
    with pytest.raises(DeserialisationError, match="it is a pickle"):
        client.request("task", json={"organizations": [{"id": 1, "input": pickled}]}, method="post")


def test_post_task_is_for_the_image_and_collaboration_of_the_function(client: AlgorithmClient) -> None:
    task = client.post_task("name", client.image, client.collaboration_id, TOTAL, "words", [1], "default")
    assert (task["name"], task["description"]) == ("name", "words")
    assert client.get_results(task["id"]) == [3]
    with pytest.raises(SubtakCreationError, match="must be those of this function"):
        client.post_task("name", "another image", client.collaboration_id, TOTAL, organization_ids=[1])


def test_the_client_of_version_3_has_groups_of_calls(client: AlgorithmClient) -> None:
    task = client.task.create(input_=TOTAL, organization_ids=[1, 3], name="step", description="first")
    assert (task["name"], task["description"]) == ("step", "first")
    assert client.task.get(task["id"])["complete"] is True
    assert client.result.get(task_id=task["id"]) == [3, 15]
    assert client.organization.get(client.organization_id)["name"] == NAMES[0]
    assert client.organization.get(9) == {"msg": "organization id=9 not found"}
    assert client.collaboration.get()["id"] == client.collaboration_id
    assert client.node.get()["id"] == client.host_node_id
    assert client.database == "default"
    for call in (client.vpn.get_addresses, client.vpn.get_parent_address):
        with pytest.raises(NotImplementedError, match="no VPN"):
            call()
    with pytest.raises(NotImplementedError, match="no VPN"):
        client.get_algorithm_addresses(task_id=1)


def test_a_task_that_is_not_there(client: AlgorithmClient) -> None:
    assert client.get_task(5) == {"msg": "task id=5 not found"}
    with pytest.raises(CollectResultsError, match="there is no task with id 5"):
        client.get_results(5)
    with pytest.raises(CollectResultsError, match="give the id of the task"):
        client.get_results(client.create_new_task(TOTAL, [1]))  # type: ignore[arg-type]


def test_a_thousand_looks_run_nothing_again(client: AlgorithmClient, module: str) -> None:
    task = client.create_new_task(TOTAL, [1])
    assert all(client.get_task(task["id"])["complete"] for _ in range(1000))
    assert len(calls_of(module)) == 1


def test_a_loop_that_never_ends_is_an_error(client: AlgorithmClient) -> None:
    """As one that compares `complete` with "true"."""
    task = client.create_new_task(TOTAL, [1])
    client.get_results(task["id"])
    client._looks[task["id"]] = _MOST_LOOKS
    with pytest.raises(CollectResultsError, match="'complete' of a task is True, and no text"):
        while client.get_task(task["id"])["complete"] != "true":
            pass


def test_a_partial_function_that_exits_is_a_failed_organization(module: str) -> None:
    nodes = [MockNode(Organization(1, "North"), {"default": pd.DataFrame({"x": [1]})})]
    client = AlgorithmClient.of(InProcess(module, nodes, answer=calling.answer))
    task = client.create_new_task({"method": "leave"}, [1])
    with pytest.raises(CollectResultsError, match=r"North \(id 1\): crashed: SystemExit: 3"):
        client.get_results(task["id"])


# ---- tokens


def test_a_client_is_made_with_the_token_of_the_task(backend: Backend) -> None:
    with pytest.raises(ClientError, match="no task is running"):
        ContainerClient(tokens.of(backend), "http://proxy", 80, "")
    with using(Call(backend, Node(), ("default",), lambda label: None)):
        client = ContainerClient(token=tokens.of(backend), host="http://proxy", port=8080, path="")
        assert client.generate_path_to("task") == "http://proxy:8080/task"
        task = client.create_new_task(TOTAL, [1])
        assert client.get_results(task["id"]) == [3]
        for token, message in _wrong_tokens(backend):
            with pytest.raises(ClientError, match=message):
                ContainerClient(token, "http://proxy", 80, "")


def _wrong_tokens(backend: Backend) -> list[tuple[str, str]]:
    header, content, signature = tokens.of(backend).split(".")
    claims = json.loads(base64.urlsafe_b64decode(content + "=="))

    def with_(**changes: Any) -> str:
        part = base64.urlsafe_b64encode(json.dumps({**claims, **changes}).encode()).decode().rstrip("=")
        return f"{header}.{part}.{signature}"

    return [
        (with_(exp=1), "the token of the task has expired"),
        (with_(sub={**claims["sub"], "collaboration_id": 99}), "that of another task: its collaboration_id is 99"),
        (with_(sub="user"), "cannot be read"),
        ("no token", "cannot be read"),
        ("", "cannot be read"),
    ]


def test_the_token_has_the_published_form(backend: Backend) -> None:
    """Algorithms decode it, and use "identity" (before 3.3) or "sub"."""
    content = tokens.of(backend).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(content + "=="))
    assert claims["identity"] == claims["sub"]
    expected = {"type": "container", "node_id": 1, "organization_id": 1, "collaboration_id": 1, "database": "default"}
    assert {name: claims["identity"][name] for name in expected} == expected


def test_the_client_of_a_researcher_says_what_to_use() -> None:
    with pytest.raises(ClientError, match="fedpkg algorithm run"):
        UserClient("http://localhost", 5000, "/api")
