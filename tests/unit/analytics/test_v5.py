"""Decorators and the mock network of version 5, and the published names of versions 4 and 5."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shapes import importable, module_of

from fedpkg.analytics import names, tokens
from fedpkg.analytics.current import Call, using
from fedpkg.analytics.errors import (
    AlgorithmRuntimeError,
    DataFrameNotFound,
    MethodNotFoundError,
    PrivacyThresholdViolation,
    SessionActionMismatchError,
    UserInputError,
    handle_data_errors,
)
from fedpkg.analytics.node import Node
from fedpkg.analytics.places import SerialisationError
from fedpkg.analytics.v4.client import AlgorithmClient
from fedpkg.analytics.v5 import decorators
from fedpkg.analytics.v5.network import MockNetwork
from fedpkg.analytics.words import AlgorithmStepType, RunStatus, TaskStatus, has_task_failed, has_task_finished

AGES = [pd.DataFrame({"age": [30, 40, 50]}), pd.DataFrame({"age": [60]})]
DATA = [{"default": one} for one in AGES]

MODULE = """
import pandas as pd
from vantage6.algorithm.data_extraction import read_csv
from vantage6.algorithm.decorator import algorithm_client, central, dataframe, dataframes, federated, metadata
from vantage6.algorithm.decorator.action import preprocessing


@federated
@dataframe("multiple", 1)
def columns(many, one):
    return [{name: list(frame.columns) for name, frame in many.items()}, list(one.columns)]


@federated
@dataframes
def spoil(many):
    for frame in many.values():
        frame["age"] += 1
    return {name: int(frame["age"].sum()) for name, frame in many.items()}


@federated
@metadata
def about(meta):
    return [meta.organization_id, meta.node_id, meta.task_id, meta.action, meta.token is None]


@central
@metadata
@algorithm_client
def about_all(client, meta):
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create("about", None, ids)
    return [[meta.action, meta.token is None], client.wait_for_results(task["id"])]


@preprocessing
@dataframe(1)
def select(df, query): ...


@federated
def fails():
    raise ValueError("no data today")


def helper(): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    names.serve()
    (tmp_path / "of_version_5.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_version_5"
    sys.modules.pop("of_version_5", None)


def asked(network: MockNetwork, method: str, databases: Any = None, **arguments: Any) -> Any:
    client = network.user_client
    task = client.task.create(network.organization_ids, method, arguments=arguments, databases=databases)
    return client.wait_for_results(task["id"])


@pytest.mark.parametrize("wrapped", [True, False], ids=["as the code reads them", "as the documentation has them"])
def test_a_network_takes_frames_as_they_are_and_in_dicts(wrapped: bool) -> None:
    """Published: a frame that was given as it is, as in the documentation, was an error."""
    datasets = [{"default": {"database": one} if wrapped else one} for one in AGES]
    with importable("v5-average"):
        network = MockNetwork("average_v5", datasets)
        assert network.organization_ids == network.node_ids == [1, 2]
        for databases in ([{"label": "default"}], [{"type": "dataframe", "dataframe_id": 1}]):
            task = network.user_client.task.create(
                [1], "central_average", arguments={"column_name": "age"}, databases=databases
            )
            assert network.user_client.result.from_task(task["id"]) == [{"average": 45.0}]
        assert network.user_client.result.get(1) == {"average": 45.0}  # published: an AttributeError
        assert network.user_client.collaboration.get()["id"] == 1  # published: an AttributeError
        runs = network.user_client.run.from_task(1)
        assert [one["organization"]["id"] for one in runs] == [1]  # published: always 0
        assert len(network.hq.tasks) == len(network.hq.runs) == len(network.hq.results) == 2


def test_a_path_is_read_by_the_network(tmp_path: Path) -> None:
    AGES[0].to_csv(tmp_path / "a.csv", index=False)
    with importable("v5-average"):
        network = MockNetwork("average_v5", [{"a": {"database": str(tmp_path / "a.csv"), "db_type": "csv"}}])
        [found] = asked(network, "partial_average", [{"label": "a"}], column_name="age")
        assert found == {"sum": 120.0, "count": 3}
        [frame] = network.user_client.dataframe.list()
        assert (frame["name"], frame["id"], [one["name"] for one in frame["columns"]]) == ("a", 1, ["age"])
        with pytest.raises(NotImplementedError, match=r"dataframe.create: there are no sessions.* reads its datasets"):
            network.user_client.dataframe.create("a", "read_csv")
        with pytest.raises(AttributeError, match=r"user_client.session: there is no server, and there are no sessions"):
            network.user_client.session.create("a")


def test_groups_of_frames_are_dicts_by_label(module: str) -> None:
    frame = {"database": AGES[0]}
    network = MockNetwork(module, [{"a": frame, "b": {"database": pd.DataFrame({"b": [1]})}, "c": frame}])
    group = [[{"label": "a"}, {"label": "b"}], [{"label": "c"}]]
    assert asked(network, "columns", group) == [[{"a": ["age"], "b": ["b"]}, ["age"]]]
    alone = [{"label": label} for label in "abc"]  # which the function's only group takes, but for the last one
    assert asked(network, "columns", alone) == [[{"a": ["age"], "b": ["b"]}, ["age"]]]
    with pytest.raises(UserInputError, match="needs one database, but the task names a group of them: a,b"):
        asked(network, "columns", [[{"label": "c"}], [{"label": "a"}, {"label": "b"}]])


def test_frames_of_a_group_are_copied_for_each_task(module: str) -> None:
    """Published: a change of such a frame was seen by all later tasks."""
    network = MockNetwork(module, [{"a": {"database": AGES[1].copy()}}])
    for _ in range(2):
        assert asked(network, "spoil", [[{"label": "a"}]]) == [{"a": 61}]


def test_metadata_are_numbers_and_the_kind_of_the_function(module: str) -> None:
    network = MockNetwork(module, DATA)
    assert asked(network, "about") == [
        [1, 1, 1, "federated_compute", True],
        [2, 2, 1, "federated_compute", True],
    ]
    task = network.user_client.task.create([2], "about_all")
    [[own, others]] = network.user_client.wait_for_results(task["id"])
    assert own == ["central_compute", False] and [one[:2] for one in others] == [[1, 1], [2, 2]]
    assert "FUNCTION_ACTION" not in os.environ


def test_what_a_function_raises_is_raised_or_recorded(module: str) -> None:
    with pytest.raises(ValueError, match="no data today") as error:
        asked(MockNetwork(module, DATA), "fails")
    assert error.traceback[-1].name == "fails"
    network = MockNetwork(module, DATA, on_failure="record")
    assert asked(network, "fails") == []
    assert [one["status"] for one in network.hq.runs] == ["crashed", "crashed"]
    with pytest.raises(ValueError, match="on_failure is 'ignore'; it must be 'raise' or 'record'"):
        MockNetwork(module, DATA, on_failure="ignore")


def test_functions_that_no_task_can_call_are_refused_with_the_reason(module: str) -> None:
    network = MockNetwork(module, DATA)
    with pytest.raises(MethodNotFoundError, match=r"helper of module .* is not decorated with @federated or @central"):
        asked(network, "helper")
    with pytest.raises(NotImplementedError, match=r"select: there are no sessions, and no extraction or preprocessing"):
        asked(network, "select", [{"label": "default"}], query="a")
    with pytest.raises(NotImplementedError, match=r"read_csv: there are no sessions"):
        asked(network, "read_csv")
    with pytest.raises(SessionActionMismatchError, match=r"about of .* is declared as federated_compute, and not as"):
        network.user_client.task.create([1], "about", action="central_compute")


@pytest.mark.parametrize(
    ("databases", "error", "message"),
    [
        (None, UserInputError, "needs 1 database, but the task names none"),
        ([{"label": "labs"}], DataFrameNotFound, "no database 'labs'; it has: default"),
        ([{"dataframe_id": 2}], DataFrameNotFound, r"no data frame with id 2; there are: 1 \(default\)"),
        (["default"], UserInputError, r"databases has 'default'; write \[\{'label': 'my_label'\}\]"),
    ],
)
def test_databases_that_are_not_there_are_named(databases: Any, error: type[Exception], message: str) -> None:
    with importable("v5-average"), pytest.raises(error, match=message):
        asked(MockNetwork("average_v5", DATA), "partial_average", databases, column_name="age")


def test_datasets_and_arguments_of_another_form_are_refused() -> None:
    with importable("v5-average"):
        with pytest.raises(UserInputError, match="datasets of organization 1: 'default' is a list; give a DataFrame"):
            MockNetwork("average_v5", [{"default": [1, 2]}])
        network = MockNetwork("average_v5", DATA)
        with pytest.raises(TypeError, match="arguments of partial_average is a list; it must be a dict"):
            network.user_client.task.create([1], "partial_average", arguments=["age"])  # type: ignore[arg-type]
        with pytest.raises(SerialisationError, match="arguments of partial_average"):
            network.user_client.task.create([1], "partial_average", arguments={"column_name": {1}})
        with pytest.raises(ValueError, match="at least one organization"):
            network.user_client.task.create([], "partial_average")


def test_a_function_of_the_other_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    function = decorators.central(lambda: 1)
    assert function() == 1
    monkeypatch.setenv("FUNCTION_ACTION", "federated_compute")
    with pytest.raises(SessionActionMismatchError, match="declared as central_compute, but its task is a federated_c"):
        function()


def test_wrong_decorators_are_errors_where_they_are_written() -> None:
    with pytest.raises(TypeError, match=r"with parentheses: @dataframe\(1\)"):
        decorators.dataframe(print)  # type: ignore[arg-type]
    with pytest.raises(UserInputError, match=r"@dataframe\('many'\): a source is a number of frames or 'multiple'"):
        decorators.dataframe("many")
    with pytest.raises(TypeError, match="two @dataframe"):
        decorators.dataframe(1)(decorators.dataframe(1)(lambda a, b: None))


def test_a_client_that_a_decorator_of_the_algorithm_makes_is_that_of_its_version(module: str) -> None:
    network = MockNetwork(module, DATA)
    call = Call(network.backend, Node(), [], DATA[0].__getitem__)
    token = tokens.of(network.backend)
    with using(call):
        later, former = AlgorithmClient(token, hq_url="http://proxy:80/api"), AlgorithmClient(token, "http://proxy", 80)
        assert later.wait_for_results(later.task.create("about", {}, [2])["id"])[0][0] == 2
        assert former.wait_for_results(former.task.create({"method": "about"}, [1])["id"])[0][0] == 1


def test_errors_that_may_have_data_are_replaced() -> None:
    def function(error: Exception) -> None:
        raise error

    with pytest.raises(AlgorithmRuntimeError, match="function raised a KeyError; its message may have data") as hidden:
        handle_data_errors(function)(KeyError("Jane Doe"))
    assert hidden.value.__suppress_context__
    with pytest.raises(PrivacyThresholdViolation, match="too few"):
        handle_data_errors(function)(PrivacyThresholdViolation("too few"))


def test_statuses_have_ended_or_failed() -> None:
    assert [has_task_finished(one) for one in ("pending", "active", "initializing", "awaiting")] == [False] * 4
    assert [has_task_failed(one) for one in ("completed", "failed", "crashed", "not allowed")] == [False, *[True] * 3]
    assert RunStatus.has_finished("completed") and TaskStatus.has_failed("killed by user")
    assert f"{AlgorithmStepType.CENTRAL_COMPUTE}" == "central_compute" in AlgorithmStepType.list()


# ---------------------------------------------------------------- names


def test_all_names_of_the_tables_are_there() -> None:
    names.serve()
    vantage6: Any = importlib.import_module("vantage6")
    for module, table in vantage6.MODULES.items():
        for name in table:
            assert getattr(importlib.import_module(module), name) is not None, f"{module}.{name}"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("from vantage6.algorithm.tools.decorators import dta", "decorators has: .*algorithm_client, data,"),
        ("import vantage6.server", "a server, a node or a user's client is not needed here"),
        ("from vantage6.algorithm.data_extraction.mock_extract import load_mock_data", "there are no sessions"),
    ],
)
def test_a_name_that_is_not_there_says_why_or_what_is(statement: str, message: str) -> None:
    names.serve()
    with pytest.raises(ImportError, match=message):
        exec(statement)


def test_a_decorator_with_the_name_of_its_module_is_the_decorator() -> None:
    names.serve()
    module = importlib.import_module("vantage6.algorithm.decorator.metadata")
    package = importlib.import_module("vantage6.algorithm.decorator")
    assert package.metadata is module.metadata is decorators.metadata
    assert package.algorithm_client is decorators.algorithm_client


def test_installed_wheels_take_precedence(tmp_path: Path) -> None:
    """They are folders of one namespace, without ``vantage6/__init__.py``."""
    (tmp_path / "vantage6/algorithm").mkdir(parents=True)
    (tmp_path / "vantage6/algorithm/__init__.py").write_text("WHOSE = 'theirs'\n")
    (tmp_path / "other/vantage6").mkdir(parents=True)  # a folder of that name, with a Dockerfile, say
    code = (
        "from fedpkg.analytics import names; names.serve(); import vantage6.algorithm as a; print(vars(a).get('WHOSE'))"
    )
    root = str(Path(names.__file__).parents[2])
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(path), root))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for path in (tmp_path, tmp_path / "other")
    ]
    assert found == ["theirs", "None"]


def test_json_is_all_that_a_network_sends() -> None:
    with importable("v5-glm"):
        network = MockNetwork(module_of("v5-glm"), [{"a": pd.DataFrame({"y": [1, 2, 4], "x": [0.0, 1.0, 2.0]})}])
        task = network.user_client.task.create(
            [1], "glm", arguments={"outcome": "y", "predictors": ["x"]}, databases=[{"label": "a"}]
        )
        [found] = network.user_client.wait_for_results(task["id"])
    assert json.loads(json.dumps(found)) == found and list(found["beta"]) == ["intercept", "x"]
