"""The mock clients of versions 1 to 3, as public test scripts use them. Each of their defects has a test here."""

from __future__ import annotations

import operator
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedpkg.analytics.errors import UserInputError
from fedpkg.analytics.legacy.mock import ClientMockProtocol, MockAlgorithmClient

MODULE = """
import json
import os
import base64


def master(client, data, column):
    ids = [one["id"] for one in client.get_organizations_in_my_collaboration()]
    task = client.create_new_task({"method": "total", "kwargs": {"column": column}}, ids)
    while not client.request(f"task/{task['id']}").get("complete"):
        raise RuntimeError("it is complete")
    return sum(client.get_results(task["id"]))


def who(client, data):
    return client.organization_id, client.host_node_id, len(data)


def RPC_total(data, column):
    total = data[column].sum()
    data[column] = 0
    return total


def RPC_token(data):
    with open(os.environ["TOKEN_FILE"]) as file:
        content = file.read().split(".")[1]
    return json.loads(base64.urlsafe_b64decode(content + "=="))["identity"]["organization_id"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "v6-mocked-py"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.fixture
def frames() -> list[pd.DataFrame]:
    return [pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [10]}), pd.DataFrame({"x": [100, 200]})]


@pytest.fixture
def client(module: str, frames: list[pd.DataFrame]) -> ClientMockProtocol:
    return ClientMockProtocol(datasets=frames, module=module)


def test_ids_count_from_zero(client: ClientMockProtocol) -> None:
    organizations = client.get_organizations_in_my_collaboration()
    assert [(one["id"], one["name"], one["domain"]) for one in organizations] == [
        (number, f"mock-{number}", f"mock-{number}.org") for number in range(3)
    ]
    task = client.create_new_task({"method": "total", "args": ["x"]}, [2, 0])
    assert client.get_results(task_id=task.get("id")) == [300, 3]


def test_files_are_read_as_csv(module: str, tmp_path: Path) -> None:
    (tmp_path / "a ü.csv").write_text("x\n1\n2\n")
    client = ClientMockProtocol([str(tmp_path / "a ü.csv"), tmp_path / "a ü.csv"], module)
    assert (client.n, [len(one) for one in client.datasets]) == (2, [2, 2])
    assert client.lib.__name__ == module
    assert client.get_results(client.create_new_task({"method": "total", "args": ["x"]}, [0, 1])["id"]) == [3, 3]


def test_a_central_function_runs_as_a_task(client: ClientMockProtocol) -> None:
    task = client.create_new_task({"master": 1, "method": "master", "args": ["x"]}, [0])
    assert client.get_results(task["id"]) == [313]


def test_a_central_function_can_be_called_by_hand(client: ClientMockProtocol, module: str) -> None:
    """With a client that has `request`, which the published one lacks."""
    assert client.lib.master(client, client.datasets[0], "x") == 313


def test_nothing_is_printed(client: ClientMockProtocol, capsys: pytest.CaptureFixture[str]) -> None:
    client.get_results(client.create_new_task({"method": "total", "args": ["x"]}, [0])["id"])
    assert capsys.readouterr() == ("", "")


def test_complete_is_true_and_equals_the_text_of_the_published_mock(client: ClientMockProtocol) -> None:
    task = client.create_new_task({"method": "total", "args": ["x"]}, [0])
    for one in (task, client.get_task(task["id"]), client.request(f"task/{task['id']}"), client.tasks[0]):
        assert one["complete"]
        for equal in (True, "true"):
            assert operator.eq(one["complete"], equal) and not operator.ne(one["complete"], equal)
        for other in (False, "false", 1):
            assert operator.ne(one["complete"], other) and not operator.eq(one["complete"], other)


def test_results_of_a_task_are_pickles_as_in_the_published_mock(client: ClientMockProtocol) -> None:
    task = client.create_new_task({"method": "total", "args": ["x"]}, [0, 1])
    assert [pickle.loads(one["result"]) for one in task["results"]] == [3, 10]


def test_tasks_get_copies_of_the_data(client: ClientMockProtocol, frames: list[pd.DataFrame]) -> None:
    for _ in range(2):
        assert client.get_results(client.create_new_task({"method": "total", "args": ["x"]}, [0])["id"]) == [3]
    assert list(frames[0].x) == [1, 2]


def test_an_exception_of_a_function_is_raised_where_its_task_is_created(client: ClientMockProtocol) -> None:
    with pytest.raises(KeyError, match="y"):
        client.create_new_task({"method": "total", "args": ["y"]}, [0])


def test_functions_have_the_token_of_their_organization(client: ClientMockProtocol) -> None:
    assert client.get_results(client.create_new_task({"method": "token"}, [2, 1])["id"]) == [2, 1]


def test_mock_of_version_3_has_the_ids_that_it_was_given(module: str, frames: list[pd.DataFrame]) -> None:
    datasets = [{"database": one} for one in frames]
    client = MockAlgorithmClient(datasets, module, collaboration_id=4, organization_ids=[7, 5, 9], node_ids=[3, 2, 1])
    assert (client.organization_id, client.host_node_id, client.collaboration_id) == (7, 3, 4)
    assert [one["id"] for one in client.organization.list()] == [7, 5, 9]
    task = client.task.create(input_={"master": True, "method": "who"}, organization_ids=[9, 5])
    assert task["complete"] is True
    assert client.task.get(task["id"])["id"] == task["id"]
    assert client.result.get(task_id=task["id"]) == [(9, 1, 2), (5, 2, 1)]
    assert client.organization.get(5)["name"] == "mock-5"
    assert client.collaboration.get()["id"] == 4
    assert client.node.get()["id"] == 3
    assert client.datasets[9].equals(frames[2])


def test_mock_of_version_3_reads_databases(module: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    client = MockAlgorithmClient([{"database": str(tmp_path / "a.csv"), "type": "csv"}], module)
    assert client.result.get(client.task.create({"method": "total", "args": ["x"]}, [0])["id"]) == [3]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [({}, "no dict with the key 'database'"), ([1], "no dict"), ({"database": 1, "typ": "csv"}, "the key 'typ'")],
)
def test_wrong_datasets_are_errors(dataset: Any, message: str, module: str) -> None:
    with pytest.raises(UserInputError, match=message):
        MockAlgorithmClient([dataset], module)


def test_the_number_of_ids_must_be_that_of_the_datasets(module: str, frames: list[pd.DataFrame]) -> None:
    """The published mock warns and takes others."""
    with pytest.raises(ValueError, match="organization_ids has 2 ids, but there are datasets of 3 organizations"):
        MockAlgorithmClient([{"database": one} for one in frames], module, organization_ids=[1, 2])


def test_a_loop_of_a_public_script_does_not_sleep(client: ClientMockProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("the task is complete")

    monkeypatch.setattr(time, "sleep", sleep)
    task = client.create_new_task({"method": "total", "args": ["x"]}, [0])
    while client.get_task(task.get("id")).get("complete") != "true":
        time.sleep(1)
