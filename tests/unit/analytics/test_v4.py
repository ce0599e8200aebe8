"""Decorators and clients of version 4. Each defect of the published ones (RAN in the reference) has a test here."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shapes import importable, mock_client

from fedpkg.analytics import tokens
from fedpkg.analytics.backend import Organization
from fedpkg.analytics.current import Call, using
from fedpkg.analytics.errors import (
    AlgorithmInitializationError,
    ClientError,
    CollectResultsError,
    DataFrameNotFound,
    EnvironmentVariableError,
    EnvironmentVariableNotFoundError,
    SubtakCreationError,
    UserInputError,
)
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.node import Database, Node
from fedpkg.analytics.places import SerialisationError
from fedpkg.analytics.v4 import decorators, util
from fedpkg.analytics.v4.client import AlgorithmClient
from fedpkg.analytics.v4.mock_client import MockAlgorithmClient
from fedpkg.analytics.v4.preprocessing import preprocess_data
from fedpkg.analytics.v4.wrap import wrap_algorithm

FRAMES = {"patients": pd.DataFrame({"x": [1, 2]}), "visits": pd.DataFrame({"y": [3]})}
HOSPITALS = [{"default": pd.DataFrame({"age": [30, 40, 50]})}, {"default": pd.DataFrame({"age": [60]})}]


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """A call of a task that names two databases."""
    backend = InProcess("a", [MockNode(Organization(1, "North"), FRAMES)])
    files = {"TEMPORARY_FOLDER": str(tmp_path), "INPUT_FILE": str(tmp_path / "input")}
    databases = {label: Database(label, "") for label in FRAMES}
    running = Call(backend, Node(databases=databases, environment=files), list(FRAMES), FRAMES.__getitem__)
    with using(running):
        yield running


@pytest.fixture
def client() -> Iterator[Any]:
    """A mock of tests/algorithms/v4-shapes, which records failures as production does."""
    with importable("v4-shapes"):
        yield mock_client("v4-shapes", HOSPITALS, on_failure="record")


# ---------------------------------------------------------------- decorators


def test_frames_are_in_the_order_in_which_the_task_names_their_labels(call: Call) -> None:
    """Published: the first frame was that of the second label, and the mock had the other order."""

    @decorators.data(2)
    def columns(first: Any, second: Any, word: str) -> Any:
        return [*first.columns, *second.columns, word]

    assert columns("a") == ["x", "y", "a"]
    with importable("v4-crosstab"):
        assert columns("a", mock_data=list(FRAMES.values())) == ["x", "y", "a"]


def test_the_decorator_next_to_def_supplies_the_first_arguments(call: Call) -> None:
    @decorators.data(1)
    @decorators.algorithm_client
    def client_first(client: Any, frame: Any) -> Any:
        return type(client).__name__, list(frame.columns)

    @decorators.algorithm_client
    @decorators.data(1)
    def frame_first(frame: Any, client: Any) -> Any:
        return type(client).__name__, list(frame.columns)

    assert client_first() == frame_first() == ("AlgorithmClient", ["x"])


def test_more_databases_than_a_function_takes_are_told_and_too_few_are_an_error(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(decorators.data(1)(lambda frame: frame.columns)()) == ["x"]
    assert capsys.readouterr().out == "warn > the function takes 1 database; not used: visits\n"
    with pytest.raises(UserInputError, match="needs 3 databases, but the task names patients, visits"):
        decorators.data(3)(print)()
    with pytest.raises(UserInputError, match="needs 2 databases, but mock_data has 1"):
        decorators.data(2)(print)(mock_data=[FRAMES["visits"]])
    with pytest.raises(UserInputError, match="mock_data is a DataFrame; it must be a list"):
        decorators.data(1)(print)(mock_data=FRAMES["visits"])


def test_a_database_that_the_node_lacks_is_named_with_those_that_it_has(call: Call) -> None:
    other = Call(call.backend, call.node, ["labs"], call.frame)
    with using(other), pytest.raises(DataFrameNotFound, match="no database 'labs'; it has: patients, visits"):
        decorators.data(1)(print)()


def test_data_without_parentheses_is_an_error_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"write @data\(1\)"):
        decorators.data(print)  # type: ignore[arg-type]


def test_reserved_arguments_take_the_place_of_client_and_frames_and_marks_are_the_published_ones() -> None:
    @decorators.algorithm_client
    @decorators.data(1)
    def function(frame: Any, client: Any, word: str) -> Any:
        return frame, client, word

    assert function("a", mock_client="client", mock_data=["frame"]) == ("frame", "client", "a")
    assert function.wrapped_in_algorithm_client_decorator and function.wrapped_in_data_decorator  # type: ignore[attr-defined]
    assert function.__name__ == "function"


def test_metadata_are_the_ids_and_files_of_the_task(call: Call, tmp_path: Path) -> None:
    about = decorators.metadata(lambda meta: meta)()
    assert (about.task_id, about.node_id, about.organization_id, about.collaboration_id) == (0, 1, 1, 1)
    assert (about.temporary_directory, about.input_file) == (tmp_path, tmp_path / "input")
    assert about.output_file is None and about.token_file is None


def test_connections_to_omop_say_what_they_would_need_and_what_to_use(call: Call) -> None:
    @decorators.database_connection(["OMOP"])
    def cohort(connection: Any, about: Any) -> None: ...

    with pytest.raises(AlgorithmInitializationError, match=r"cohort asks .* OMOP: that needs R .* type sql"):
        cohort()


def test_a_function_that_no_node_runs_says_how_to_run_it() -> None:
    with pytest.raises(EnvironmentVariableNotFoundError, match=r"CONTAINER_TOKEN is not set .*'fedpkg algorithm run'"):
        decorators.data(1)(print)()
    with pytest.raises(ClientError, match=r"no task is running.*mock_client"):
        AlgorithmClient(tokens.make({"node_id": 1}), "http://proxy", 80, "")


# ---------------------------------------------------------------- the client


def test_tasks_are_found_by_their_ids_from_1(client: Any) -> None:
    """Published: ids were from 1, and were looked up from 0."""
    ids = [client.task.create({"method": "rows"}, [0], name=name)["id"] for name in ("first", "second")]
    assert ids == [1, 2]
    assert [client.task.get(id_)["name"] for id_ in ids] == ["first", "second"]
    assert client.task.get(3) == {"msg": "Task id=3 not found"}


def test_a_task_runs_when_its_status_is_first_looked_at(client: Any) -> None:
    first, second = client.task.create({"method": "rows"}, [0, 1]), client.task.create({"method": "rows"}, [1])
    assert not client._backend.has_ended(1)
    assert first["id"] == 1 and first.get("name") == "subtask" and dict(first)["status"] == "pending"
    assert not client._backend.has_ended(1)
    assert first.get("status") == "completed" and client._backend.has_ended(2)
    assert second["complete"] is True and second.get("nothing", 3) == 3
    assert type(pickle.loads(pickle.dumps(first))) is dict


def test_results_runs_and_organizations_have_the_published_form(client: Any) -> None:
    task = client.task.create({"method": "rows"}, [1, 0], description="count")
    assert client.wait_for_results(task_id=task["id"], interval=300) == [1, 3]
    assert client.result.from_task(1) == [1, 3] and client.result.get(2) == 3
    assert client.result.get(9) == {"msg": "Result id=9 not found"}
    runs = client.run.from_task(1)
    assert [one["organization"]["id"] for one in runs] == [1, 0] and [one["id"] for one in runs] == [1, 2]
    assert client.run.get(2) == runs[1] and client.run.get(3) == {"msg": "Run id=3 not found"}
    assert json.loads(base64.b64decode(runs[0]["input"])) == {"method": "rows"}
    assert client.organization.get(1)["name"] == "mock-1" and client.organization.get(1)["domain"] == "mock-1.org"
    assert [one["id"] for one in client.organization.list()] == [0, 1]
    assert client.organization.get(7) == {"msg": "Organization id=7 not found"}
    assert client.collaboration.get()["id"] == 1 and client.study.list() == []
    names = ("id", "status", "name", "databases", "description", "image", "init_org", "parent", "collaboration")
    assert all(name in client.task.get(1) for name in names)


def test_an_organization_that_failed_is_named_and_its_result_is_left_out(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task = client.task.create({"method": "rows_of_many", "kwargs": {"least": 2}}, [0, 1])
    results = client.wait_for_results(task["id"])
    assert results == [3] and list(results.failed) == [1] and "DataError" in results.failed[1].log
    assert capsys.readouterr().out.endswith(
        "warn > task 1: 1 of 2 organizations have no result: mock-1 (id 1): crashed: "
        "fedpkg.analytics.errors.DataError: 1 rows are fewer than 2\n"
    )
    assert client.task.get(1)["status"] == "failed" and client.result.get(2) is None


@pytest.mark.parametrize("none", [None, [], 1])
def test_a_task_for_no_organization_is_an_error(client: Any, none: Any) -> None:
    with pytest.raises(ValueError, match="needs at least one organization"):
        client.task.create({"method": "rows"}, none)


def test_an_input_that_json_lacks_is_an_error_where_the_task_is_created(client: Any) -> None:
    with pytest.raises(SerialisationError, match=r"input of rows: \['args'\]\[0\] is of the type pandas.DataFrame"):
        client.task.create({"method": "rows", "args": [FRAMES["visits"]]}, [0])


def test_results_of_a_task_that_is_not_there_are_an_error(client: Any) -> None:
    with pytest.raises(CollectResultsError, match="no task with id 4"):
        client.wait_for_results(4)
    with pytest.raises(CollectResultsError, match=r"give the id of the task, task\['id'\]"):
        client.wait_for_results(client.task.create({"method": "rows"}, [0]))


def test_requests_have_the_answers_of_a_server(client: Any) -> None:
    input_ = base64.b64encode(b'{"method": "rows"}').decode()
    body = {"name": "by hand", "organizations": [{"id": 1, "input": input_}, {"id": 0, "input": input_}]}
    task = client.request("task", json=body, method="post")
    assert client.request(f"task/{task['id']}/status") == {"status": "completed"}
    for path, params in (("/api/result", {"task_id": 1}), ("task/1/result", None)):
        answer = client.request(path, params=params)
        assert [base64.b64decode(one["result"]) for one in answer["data"]] == [b"1", b"3"]
    assert [one["status"] for one in client.request("run", params={"task_id": 1})["data"]] == ["completed"] * 2
    assert client.request("organization/1")["name"] == "mock-1"
    assert client.request("task/8") == {"msg": "Task id=8 not found"}
    assert [one["id"] for one in client.request("organization")["data"]] == [0, 1]
    assert client.request("collaboration/1")["id"] == 1
    for method, path in (("get", "vpn/algorithm/addresses"), ("delete", "task/1"), ("get", "user")):
        with pytest.raises(NotImplementedError, match=f"{method.upper()} {path}: .*there are: POST task"):
            client.request(path, method=method)
    with pytest.raises(SubtakCreationError, match="same input for all"):
        client.request("task", json={"organizations": []}, method="post")


def test_what_functions_cannot_do_is_raised(call: Call) -> None:
    """Published: `authenticate` returned the NotImplementedError."""
    client = AlgorithmClient(tokens.of(call.backend), "http://proxy", "8080", "/api")
    for refused in (client.authenticate, client.refresh_token, client.vpn.get_addresses, client.vpn.get_own_address):
        with pytest.raises(NotImplementedError):
            refused()
    with pytest.raises(NotImplementedError):
        client.setup_encryption(None)
    assert client.base_path == "http://proxy:8080/api" and client.token in client.headers["Authorization"]
    assert not hasattr(client.task, "kill")  # as published


MEMBERS = """
organization_id node_id collaboration_id image databases study_id log request wait_for_results
task.create task.get run.get run.from_task result.get result.from_task organization.get organization.list
collaboration.get study.get vpn.get_addresses vpn.get_own_address vpn.get_child_addresses vpn.get_parent_address
"""  # of the published clients, as functions of version 4 use them
OF_A_MOCK = (
    "n module_name all_organization_ids all_node_ids datasets_per_org organizations_with_data tasks runs results"
)


def test_the_clients_have_the_published_members(call: Call, client: Any) -> None:
    real = AlgorithmClient(tokens.of(call.backend), "http://proxy", 8080, "/api")
    wanted = {real: MEMBERS.split(), client: [*MEMBERS.split(), *OF_A_MOCK.split()]}
    for one, members in wanted.items():
        for name in members:
            assert attrgetter(name)(one) is not None or name == "study_id", name


# ---------------------------------------------------------------- the mock


def test_the_mock_raises_what_the_function_raised_with_its_own_traceback() -> None:
    with importable("v4-shapes"):
        client = mock_client("v4-shapes", HOSPITALS)
        with pytest.raises(Exception, match="1 rows are fewer than 2") as error:
            client.task.create({"method": "survey"} | {"method": "rows_of_many", "kwargs": {"least": 2}}, [0, 1])
    assert error.traceback[-1].name == "rows_of_many"


def test_frames_are_copied_for_each_task_and_organization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spoiling.py").write_text(
        "from fedpkg.analytics.v4.decorators import data\n\n\n"
        "@data(1)\ndef spoil(df):\n    df['age'] += 1\n    return [int(one) for one in df['age']]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    frame = pd.DataFrame({"age": [1]})
    client = MockAlgorithmClient([[{"database": frame}]] * 2, "spoiling")
    for _ in range(2):
        task = client.task.create({"method": "spoil"}, [0, 1])
        assert client.wait_for_results(task["id"]) == [[2], [2]]
    assert list(frame["age"]) == [1]


def test_ids_of_organizations_and_nodes_are_those_that_are_given() -> None:
    datasets = [[{"database": FRAMES["patients"]}], [{"database": FRAMES["patients"]}]]
    with importable("v4-shapes"):
        client = MockAlgorithmClient(datasets, "shapes_v4", 5, organization_ids=[12, 10], node_ids=[7, 8])
        assert (client.organization_id, client.node_id, client.collaboration_id, client.n) == (12, 7, 5, 2)
        task = client.task.create({"method": "partial_who"}, [10])
        assert client.wait_for_results(task["id"])[0]["organization"] == 10
        assert client.all_node_ids == [7, 8] and len(client.tasks) == len(client.runs) == len(client.results) == 1
    with pytest.raises(ValueError, match="organization_ids has 1 ids, but there are datasets of 2 organizations"):
        MockAlgorithmClient(datasets, "shapes_v4", organization_ids=[1])


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([{"database": FRAMES["visits"]}], "datasets of organization 0: a dict is given; give a list of dicts"),
        ([[FRAMES["visits"]]], "database 1 is no dict with the key 'database'"),
    ],
)
def test_datasets_of_another_form_are_refused(datasets: Any, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        MockAlgorithmClient(datasets, "shapes_v4")


def test_databases_are_read_and_preprocessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    HOSPITALS[0]["default"].to_csv(tmp_path / "a.csv", index=False)
    steps = [{"function": "filter_range", "parameters": {"column": "age", "min_": 30, "max_": 50, "include_max": True}}]
    dataset = {"database": tmp_path / "a.csv", "db_type": "csv", "preprocessing": steps, "input_data": {}, "colour": 1}
    with importable("v4-shapes"):
        client = MockAlgorithmClient([[dataset]], "shapes_v4")
        assert client.wait_for_results(client.task.create({"method": "rows"}, [0])["id"]) == [2]
    said = "warn > datasets of organization 0: database 1 has the key 'colour', which is not used; there are: database,"
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "step 1 has no 'function'; there are: filter_range, dummy_preprocess"),
        ({"function": "filter_rang"}, "no function 'filter_rang'; did you mean 'filter_range'?"),
        ({"function": "filter_range"}, "filter_range needs the parameter 'column'"),
        (
            {"function": "filter_range", "parameters": {"col": 1}},
            "filter_range has no parameter 'col'; it takes:",
        ),
        ({"function": "filter_range", "parameters": {"column": "b"}}, "there is no column 'b'"),
    ],
)
def test_a_wrong_step_of_preprocessing_is_named(step: Any, message: str) -> None:
    with pytest.raises(UserInputError) as error:
        preprocess_data(FRAMES["visits"], [step])
    assert message in str(error.value)


# ---------------------------------------------------------------- environment and the program of a container


def encoded(text: str) -> str:
    return base64.b32encode(text.encode()).decode().replace("=", "!")


@pytest.mark.parametrize("value", ["DISABLED", "MFRGGZDF", "plain text", "GE======", "ä", ""])
def test_a_plain_value_that_looks_like_base32_survives(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published: ``GPU_MODE=DISABLED`` ended the program with a UnicodeDecodeError."""
    monkeypatch.setenv("MODE", value)
    for input_file in ("/mnt/data/input", ""):
        monkeypatch.setenv("INPUT_FILE", input_file)
        assert util.get_env_var("MODE") == value


def test_values_of_a_node_that_encodes_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INPUT_FILE", encoded("/mnt/data/input"))
    for value in ("1", "a b\n", "ü" * 20):
        monkeypatch.setenv("MODE", encoded(value))
        assert util.get_env_var("MODE") == value
    monkeypatch.setenv("MODE", "DISABLED")  # of the image, and no text in base32
    assert util.get_env_var("MODE") == "DISABLED"


def test_variables_have_types_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWS", "10")
    monkeypatch.setenv("STRICT", "yes")
    assert util.get_env_var("ROWS", as_type="int") == 10 and util.get_env_var("STRICT", as_type="bool") is True
    assert util.get_env_var("ABSENT", 3, as_type="int") == 3 and util.get_env_var("ABSENT") is None
    assert util.get_env_var("ABSENT", "false", as_type="bool") is False
    with pytest.raises(EnvironmentVariableError, match="STRICT is 'yes', which is no whole number"):
        util.get_env_var("STRICT", as_type="int")
    with pytest.raises(EnvironmentVariableError, match="ROWS is '10', which is none of true, 1"):
        util.get_env_var("ROWS", as_type="bool")
    with pytest.raises(EnvironmentVariableError, match="ROWS is -1, which is negative"):
        util.check_envvar_value_positive("ROWS", -1)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The environment and files that a node of version 4 makes for a container; yields their folder."""
    for name, frame in FRAMES.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "token").write_text(tokens.make({"node_id": 4, "organization_id": 5, "collaboration_id": 6}) + "\n")
    variables = {name.upper() + "_FILE": str(tmp_path / name) for name in ("input", "output", "token")}
    variables |= {f"{name.upper()}_DATABASE_URI": str(tmp_path / f"{name}.csv") for name in FRAMES}
    variables |= {"USER_REQUESTED_DATABASE_LABELS": "visits,patients", "TEMPORARY_FOLDER": str(tmp_path)}
    step = {"function": "filter_range", "parameters": {"column": "x", "min_": 1}}
    variables["PATIENTS_PREPROCESSING"] = json.dumps([step])
    for name, value in variables.items():
        monkeypatch.setenv(name, encoded(value))
    monkeypatch.setenv("PKG_NAME", "contained")
    monkeypatch.setenv("GPU_MODE", "DISABLED")
    (tmp_path / "contained.py").write_text(
        "from fedpkg.analytics.v4.decorators import data, metadata\n\n\n"
        "@data(2)\n@metadata\ndef both(meta, visits, patients):\n"
        "    import os\n"
        "    return [meta.organization_id, list(visits.columns), len(patients), os.environ['GPU_MODE']]\n\n\n"
        "def fails():\n    raise ValueError('no data today')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("contained", None)


def test_the_program_of_a_container_reads_its_input_and_writes_its_result(container: Path) -> None:
    (container / "input").write_text('{"method": "both"}')
    wrap_algorithm()
    assert json.loads((container / "output").read_text()) == [5, ["y"], 1, "DISABLED"]


@pytest.mark.parametrize("log_traceback", [True, False])
def test_what_fails_in_a_container_is_printed_and_ends_it(
    container: Path, capsys: pytest.CaptureFixture[str], log_traceback: bool
) -> None:
    """Published: the message of a traceback was ``error > None``."""
    (container / "input").write_text('{"method": "fails"}')
    with pytest.raises(SystemExit) as end:
        wrap_algorithm(log_traceback)
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 1 and not (container / "output").exists()
    if log_traceback:
        assert lines[1].startswith("error > Traceback") and lines[-1] == "ValueError: no data today"
    else:
        assert lines[1:] == ["error > ValueError: no data today"]


def test_an_expired_token_and_one_that_is_none_are_refused() -> None:
    for token, message in (
        ("abc", "it has 1 parts instead of 3"),
        ("a.e30.b", "it has no subject"),
        ("a.!.b", "cannot be read"),
        (expired(), "has expired"),
    ):
        with pytest.raises(ClientError, match=message):
            tokens.identity_of(token)
    assert tokens.identity_of(tokens.make({"node_id": 3}))["node_id"] == 3


def expired() -> str:
    content = base64.urlsafe_b64encode(json.dumps({"sub": {}, "exp": 1}).encode()).decode()
    return f"e30.{content}.x"
