"""What a node checks before a function is called: in the process that checks, so nothing of the algorithm runs."""

from __future__ import annotations

import json
import pickle
import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.analytics import node_program, serialise
from fedpkg.analytics.enclosed import AlgorithmFailed
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.guard import answered, asked_of, released_result
from fedpkg.analytics.node import Database, Node
from fedpkg.analytics.places import SerialisationError
from fedpkg.analytics.policy import NotAllowed, policy_of
from fedpkg.client.records import Records
from fedpkg.errors import DataError


def node_of(policy: dict[str, Any], *databases: Database, **more: Any) -> Node:
    return Node(
        organization="North",
        policy=policy,
        databases={one.label: one for one in databases},
        algorithm={"name": "nosy", "functions": {"partial": {"kind": "partial"}, "central": {"kind": "central"}}},
        initiator=("South", "2"),
        **more,
    )


def refusal(node: Node, method: str = "partial", *, counted: str | None = None, asked: int = 1, **kwargs: Any) -> str:
    """The rule by which a call is refused; an error if it is not."""
    input_ = json.dumps({"method": method, "kwargs": kwargs}).encode()
    records = Records(
        {"task": {"input": np.frombuffer(input_, np.uint8)}},
        {"databases": list(node.databases) or ["a"], "asked": asked},
    )
    with pytest.raises(NotAllowed) as caught:
        answered(records, node, counted, lambda frames: pytest.fail("the function was called"))
    return caught.value.rule


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    path = tmp_path / "patients.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE patients (id INTEGER, age INTEGER)")
        connection.executemany("INSERT INTO patients VALUES (?, ?)", [(number, 40 + number) for number in range(20)])
    return path


def test_a_call_that_breaks_a_rule_is_refused_before_the_function_is_called() -> None:
    assert refusal(node_of({"allowed_algorithms": ["other"]})) == "allowed_algorithms"
    assert refusal(node_of({"allowed_functions": ["other"]})) == "allowed_functions"
    assert refusal(node_of({"allowed_functions": {"partial": {"arguments": ["x"]}}}), y=1).endswith("arguments")
    assert refusal(node_of({"allowed_organizations": ["North"]})) == "allowed_organizations"
    assert refusal(node_of({"minimum_organizations": 3}), asked=2) == "minimum_organizations"
    assert refusal(node_of({"minimum_organizations": 3}), "central", asked=2) == "minimum_organizations"
    assert refusal(node_of({}, withheld={"a": "minimum_rows"})) == "minimum_rows"


def test_a_call_that_the_session_counted_under_another_name_is_refused() -> None:
    for counted in (None, "", "other"):
        assert refusal(node_of({"maximum_calls": 9}), counted=counted) == "maximum_calls"


def test_a_pickle_is_not_read_by_a_node_with_a_policy(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path / "was here").touch, ()

    for word in (b"", b"pickle."):
        with pytest.raises(NotAllowed, match="it is a pickle"):
            asked_of(word + pickle.dumps(Evil()))
    assert list(tmp_path.iterdir()) == []


def test_functions_of_versions_1_to_3_have_their_names_in_the_module() -> None:
    partial = serialise.write({"method": "mean", "kwargs": {"x": 1}}, what="the input")
    assert (asked_of(partial).method, asked_of(partial).kwargs) == ("RPC_mean", {"x": 1})
    assert asked_of(serialise.write({"method": "mean", "master": True}, what="the input")).method == "mean"


def test_rows_are_counted_after_the_query_and_the_preprocessing(patients: Path) -> None:
    def database(**options: Any) -> Database:
        return Database("a", str(patients), "sql", options)

    policy = {"minimum_rows": 10, "allowed_queries": ["SELECT .*"]}
    assert len(Frames(node_of(policy, database(query="SELECT * FROM patients")))("a")) == 20
    assert refusal(node_of(policy, database(query="SELECT * FROM patients WHERE age < 45"))) == "minimum_rows"
    step = {"function": "filter_range", "parameters": {"column": "age", "max_": 45}}
    assert refusal(node_of(policy, database(query="SELECT * FROM patients", preprocessing=[step]))) == "minimum_rows"


def test_a_quiet_node_does_not_tell_why_a_database_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2,Patient 7\n")
    database = Database("a", str(tmp_path / "a.csv"))
    given = Records({"task": {"input": np.frombuffer(b'{"method": "partial"}', np.uint8)}}, {"databases": ["a"]})
    with pytest.raises(AlgorithmFailed, match=r"^database 'a' cannot be read: DataError$"):
        answered(given, node_of({"minimum_rows": 1}, database, shares_logs=False), None, lambda _: given)
    with pytest.raises(DataError, match="line 3"):
        answered(given, node_of({"minimum_rows": 1}, database), None, lambda _: given)


def test_a_query_of_a_task_must_be_allowed_where_rows_are_counted(patients: Path) -> None:
    one = Database("a", str(patients), "sql", {"query": "SELECT * FROM patients"})
    twice = "SELECT a.* FROM patients a, patients b WHERE a.id = 17"
    assert len(Frames(node_of({}, one))("a", query=twice)) == 20
    with pytest.raises(NotAllowed, match="allowed_queries"):
        Frames(node_of({"minimum_rows": 10}, one))("a", query=twice)


def test_a_query_that_is_not_allowed_is_refused_before_the_function_is_called(patients: Path) -> None:
    node = node_of({"allowed_queries": ["SELECT age .*"]}, Database("a", str(patients), "sql"))
    input_ = serialise.write({"method": "partial", "query": "SELECT id FROM patients"}, what="the input")
    given = Records({"task": {"input": np.frombuffer(input_, np.uint8)}}, {"databases": ["a"]})
    with pytest.raises(NotAllowed, match="allowed_queries: the query is not in the list"):
        answered(given, node, None, lambda frames: pytest.fail("the function was called"))


def test_small_counts_of_every_form_of_result_are_suppressed() -> None:
    policy, node = policy_of({"minimum_count": 5, "allowed_functions": {"f": {"counts": ["n"]}}}), node_of({})
    assert json.loads(released_result(policy, node, "f", b'{"n": 3, "m": 3}', is_old=False)) == {"n": None, "m": 3}
    each = policy_of({"minimum_count": 5, "allowed_functions": {"f": {"counts": ["*.n"]}}})
    assert json.loads(released_result(each, node, "f", b'[{"n": 3}, {"n": 9}]', is_old=False)) == [
        {"n": None},
        {"n": 9},
    ]
    for form in ("json", "typed"):
        result = serialise.write({"n": 3, "m": 3}, form, what="it")
        found = released_result(policy, node, "f", result, is_old=True)
        assert found.startswith(f"{form}.".encode()) and serialise.read(found, what="it") == {"n": None, "m": 3}
    assert released_result(policy, node, "g", b"anything", is_old=False) == b"anything"


def test_a_node_with_a_policy_sends_no_pickle() -> None:
    """Whoever reads it would run what the algorithm has put into it."""
    for word in (b"", b"pickle."):
        with pytest.raises(NotAllowed, match="result: it is a pickle"):
            released_result(policy_of({"minimum_rows": 1}), node_of({}), "f", word + pickle.dumps(3), is_old=True)


def test_a_value_that_only_a_pickle_has_is_an_error_at_a_node_with_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fits.py").write_text("def RPC_fit(data):\n    return {'model': object()}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    about = {"databases": [], "organizations": [], "image": "", "task_id": 1, "created_at": 0.0, "answers": []}
    asked = Records(
        {"task": {"input": np.frombuffer(b'json.{"method": "fit"}', np.uint8)}},
        {**about, "allow_pickle": True, "most_tasks": None},
    )
    for node, is_written in ((node_of({}), True), (node_of({"minimum_rows": 1}), False)):
        with (
            nullcontext()
            if is_written
            else pytest.raises(SerialisationError, match=r"\['model'\] is of the type object")
        ):
            node_program.answer("fits", asked, node, Frames(node))
