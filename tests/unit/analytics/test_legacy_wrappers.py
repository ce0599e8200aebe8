"""The programs of images of versions 1 to 3, with the files and variables that a node gives them."""

from __future__ import annotations

import json
import pickle
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedpkg.analytics import databases, serialise, tokens
from fedpkg.analytics.backend import Organization
from fedpkg.analytics.errors import UserInputError
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.legacy import wrappers
from fedpkg.analytics.legacy.wrappers import DataFormat

MODULE = """
def RPC_total(data, column="x"):
    return data[column].sum()


def RPC_places(data):
    return data


def RPC_fail(data):
    raise ValueError("no such patient")


def identity(client, data):
    return type(client).__name__, client.organization_id, client.collaboration_id


def ask(client, data):
    return client.get_results(client.create_new_task({"method": "total"}, [1])["id"])
"""


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a wrapper as the command of an image does; returns the result."""
    name = "v6-wrapped-py"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    backend = InProcess("-", [MockNode(Organization(5, "a"))], collaboration_id=3)
    (tmp_path / "token").write_text(tokens.of(backend) + "\n")
    for variable, file in (("INPUT_FILE", "input"), ("OUTPUT_FILE", "output"), ("TOKEN_FILE", "token")):
        monkeypatch.setenv(variable, str(tmp_path / file))
    monkeypatch.setenv("DATABASE_URI", str(tmp_path / "a.csv"))

    def run(wrapper: Any, input_: Any, *args: Any, **environment: str) -> Any:
        written = input_ if isinstance(input_, bytes) else b"json." + json.dumps(input_).encode()
        (tmp_path / "input").write_bytes(written)
        (tmp_path / "output").unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            wrapper(name, *args)
        return serialise.read((tmp_path / "output").read_bytes(), what="the output", allow_pickle=True)

    return run


def test_docker_wrapper_reads_a_csv_file(container: Callable[..., Any]) -> None:
    assert container(wrappers.docker_wrapper, {"method": "total"}) == 3
    assert container(wrappers.csv_wrapper, {"method": "total", "kwargs": {"column": "y"}}) == "ab"


def test_the_database_is_the_one_of_the_label(container: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x\n40\n")
    more = {"USER_REQUESTED_DATABASE_LABEL": "other", "OTHER_DATABASE_URI": str(tmp_path / "b.csv")}
    assert container(wrappers.docker_wrapper, {"method": "total"}, **more) == 40


def test_auto_wrapper_reads_the_type_of_the_node(
    container: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"x": [5, 6]}).to_excel(tmp_path / "a.xlsx", index=False)
    more = {"DATABASE_URI": str(tmp_path / "a.xlsx"), "DEFAULT_DATABASE_TYPE": "Excel"}
    assert container(wrappers.auto_wrapper, {"method": "total"}, **more) == 11
    with pytest.raises(SystemExit, match="1"):
        container(wrappers.auto_wrapper, {"method": "total"}, DEFAULT_DATABASE_TYPE="xml")
    assert "error > there is no database type 'xml'; there are: csv, excel" in capsys.readouterr().out


def test_excel_wrapper_reads_the_sheet_of_the_input(container: Callable[..., Any], tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as writer:
        for number, name in enumerate(("first", "second")):
            pd.DataFrame({"x": [number]}).to_excel(writer, sheet_name=name, index=False)
    uri = str(tmp_path / "a.xlsx")
    assert container(wrappers.excel_wrapper, {"method": "total"}, DATABASE_URI=uri) == 0
    assert container(wrappers.excel_wrapper, {"method": "total", "sheet_name": "second"}, DATABASE_URI=uri) == 1


def test_sql_wrapper_runs_the_query_of_the_input(
    container: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published one gives pandas the URI as the query, and always fails."""
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("create table patients (x integer)")
        database.executemany("insert into patients values (?)", [(1,), (2,), (40,)])
    input_ = {"method": "total", "query": "select x from patients where x < 10"}
    assert container(wrappers.sql_wrapper, input_, DATABASE_URI=str(tmp_path / "a.sqlite")) == 3
    with pytest.raises(SystemExit):
        container(wrappers.sql_wrapper, {"method": "total"}, DATABASE_URI=str(tmp_path / "a.sqlite"))
    assert "a database of type sql needs a query in the input" in capsys.readouterr().out


def test_parquet_wrapper_gives_the_data(container: Callable[..., Any]) -> None:
    """The published one passes its arguments one place too early, so that functions get no data."""
    path = Path(__file__).parent / "parquet" / "plain.parquet"
    frame = databases.read(str(path), "parquet").select_dtypes("number")
    column = frame.columns[0]
    input_ = {"method": "total", "kwargs": {"column": column}}
    assert container(wrappers.parquet_wrapper, input_, DATABASE_URI=str(path)) == frame[column].sum()


@pytest.mark.parametrize("new_client", [False, True])
def test_multidb_wrapper_gives_the_places_of_all_databases(new_client: bool, container: Callable[..., Any]) -> None:
    more = {"DB_LABELS": '["one", "two"]', "ONE_DATABASE_URI": "/data/1.csv", "TWO_DATABASE_URI": "/data/2"}
    places = container(wrappers.multidb_wrapper, {"method": "places"}, new_client, **more)
    assert places == {"one": "/data/1.csv", "two": "/data/2"}


@pytest.mark.parametrize(
    ("wrapper", "needs"), [(wrappers.sparql_wrapper, "SPARQLWrapper"), (wrappers.omop_wrapper, "OHDSI")]
)
def test_other_databases_are_errors_that_say_what_they_need(
    wrapper: Any, needs: str, container: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        container(wrapper, {"method": "total", "query": "select"})
    assert needs in capsys.readouterr().out


def test_a_central_function_gets_the_client_that_is_asked_for(container: Callable[..., Any]) -> None:
    input_ = {"master": 1, "method": "identity"}
    assert container(wrappers.docker_wrapper, input_) == ("ContainerClient", 5, 3)
    assert container(wrappers.docker_wrapper, input_, True, True) == ("AlgorithmClient", 5, 3)


def test_subtasks_need_the_runner(container: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        container(wrappers.docker_wrapper, {"master": 1, "method": "ask"})
    assert "fedpkg algorithm run" in capsys.readouterr().out


def test_functions_can_do_without_data(container: Callable[..., Any]) -> None:
    more = {"DATABASE_URI": "/nowhere"}
    assert container(wrappers.docker_wrapper, {"method": "places"}, False, **more) is None


def test_an_exception_ends_the_program_with_code_1(
    container: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        container(wrappers.docker_wrapper, {"method": "fail"})
    assert capsys.readouterr().out.endswith("error > ValueError: no such patient\n")
    with pytest.raises(SystemExit, match="1"):
        container(wrappers.docker_wrapper, {"method": "fail"}, True, False, True)
    out = capsys.readouterr().out
    assert "Traceback" in out and "in RPC_fail" in out  # the published one logs "None"


def test_pickles_are_read_only_where_they_are_allowed(
    container: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    written = pickle.dumps({"method": "total"})
    with pytest.raises(SystemExit):
        container(wrappers.docker_wrapper, written)
    assert "it is a pickle, which is not read" in capsys.readouterr().out
    assert container(wrappers.docker_wrapper, written, FEDPKG_ALLOW_PICKLE="1") == 3


def test_a_missing_variable_is_named(
    container: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INPUT_FILE")
    with pytest.raises(SystemExit):
        wrappers.docker_wrapper("v6-wrapped-py")
    assert "environment variable INPUT_FILE is not set" in capsys.readouterr().out


def test_a_wrapper_may_read_the_data_in_its_own_way(container: Callable[..., Any]) -> None:
    class Mine(wrappers.WrapperBase):
        @classmethod
        def load_data(cls, database_uri: str, input_data: Any) -> Any:
            return {"x": pd.Series([len(input_data)]), "uri": database_uri}

    assert container(Mine().wrap_algorithm, {"method": "total", "args": ["x"]}) == 2


def test_parts_for_programs_of_their_own(tmp_path: Path, container: Callable[..., Any]) -> None:
    container(wrappers.docker_wrapper, {"method": "total"})
    input_ = wrappers.load_input(str(tmp_path / "input"))
    token = (tmp_path / "token").read_text()
    data = pd.DataFrame({"x": [7]})
    assert wrappers.dispact_rpc(data, input_, "v6-wrapped-py", token) == 7
    wrappers.write_output("json", {"a": 1}, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b'json.{"a": 1}'
    for form in DataFormat:
        (tmp_path / "value").write_bytes(wrappers.serialize({"a": 1}, form))
        with (tmp_path / "value").open("rb") as file:
            assert wrappers.deserialize(file, form) == {"a": 1}
    with pytest.raises(UserInputError, match="no database type 'xml'"):
        wrappers.select_wrapper("xml")
    with pytest.raises(SystemExit):
        wrappers.dispatch_rpc(data, {"method": "totl"}, "v6-wrapped-py", token)
