"""What the clients of all eras rely on, whatever runs the tasks; and how a session's coordinator runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from backends import NAMES, backend_of, coordinated

from fedpkg.analytics import central_program
from fedpkg.analytics.backend import COMPLETED, FAILED, PENDING, Backend
from fedpkg.analytics.coordinated import _AT_ONCE
from fedpkg.analytics.eras import OLD
from fedpkg.client.records import Records

MODULE = """
from fedpkg.analytics.v4.decorators import algorithm_client, data


@data(1)
def total(df, fail=False):
    if fail and len(df) == 1:
        raise ValueError("too few rows")
    return int(df["x"].sum())


@algorithm_client
def inner(client, depth):
    if depth:
        here = [{"method": "inner", "kwargs": {"depth": depth - 1}}] * 2
        tasks = [client.task.create(input_=one, organizations=[1 + depth])["id"] for one in here]
        return [client.wait_for_results(one)[0] for one in tasks]
    task = client.task.create(input_={"method": "total"}, organizations=[3, 1])
    return client.wait_for_results(task["id"])


@algorithm_client
def many(client, number):
    tasks = [client.task.create(input_={"method": "total"}, organizations=[1])["id"] for _ in range(number)]
    return [client.wait_for_results(one)[0] for one in tasks]
"""
TOTAL = b'{"method": "total"}'


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "algorithm_of_a_test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.fixture(params=["coordinated", "in_process"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, module: str) -> Backend:
    return backend_of(request.param, tmp_path, module)


def results(backend: Backend, task_id: int) -> list[object]:
    return [None if one.result is None else json.loads(one.result) for one in backend.runs(task_id)]


def test_the_caller_is_the_first_organization_and_all_have_ids_from_1(backend: Backend) -> None:
    assert (backend.organization_id, backend.node_id, backend.collaboration_id) == (1, 1, 1)
    assert [(one.organization_id, one.name) for one in backend.organizations()] == list(enumerate(NAMES, 1))
    assert list(backend.databases) == ["default"]


def test_a_task_runs_when_it_is_needed_and_answers_in_the_order_in_which_it_was_asked(backend: Backend) -> None:
    first, second = backend.create(TOTAL, [3, 1], name="a", description="b"), backend.create(TOTAL, [2])
    assert (first, second) == (1, 2) and not backend.has_ended(first)
    assert [one.status for one in backend.runs(first)] == [PENDING, PENDING]
    assert results(backend, first) == [None, None]
    backend.run()
    assert backend.has_ended(first) and backend.has_ended(second)
    assert [(one.organization_id, one.status) for one in backend.runs(first)] == [(3, COMPLETED), (1, COMPLETED)]
    assert (results(backend, first), results(backend, second)) == ([15, 3], [3])
    ids = [one.run_id for task in (first, second) for one in backend.runs(task)]
    assert ids == [1, 2, 3]
    about = backend.about(first)
    assert (about["name"], about["description"], about["organizations"]) == ("a", "b", [3, 1])
    assert about["databases"] == ["default"] and about["parent"] is None


def test_a_run_that_fails_has_no_result_and_says_why(backend: Backend) -> None:
    task = backend.create(b'{"method": "total", "kwargs": {"fail": true}}', [1, 2, 3])
    backend.run()
    assert backend.has_ended(task) and results(backend, task) == [3, None, 15]
    failed = backend.runs(task)[1]
    assert failed.status in ("failed", "crashed") and "ValueError: too few rows" in failed.log


def test_tasks_for_nobody_have_ended_without_results(backend: Backend) -> None:
    task = backend.create(TOTAL, [])
    assert backend.has_ended(task) and list(backend.runs(task)) == []


@pytest.mark.parametrize(("ids", "message"), [([4], "no organi[sz]ation 4"), ([2, 2], "2 .*named twice")])
def test_wrong_organizations_are_errors_when_the_task_is_created(
    backend: Backend, ids: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        backend.create(TOTAL, ids)


def test_tasks_that_do_not_exist_are_key_errors(backend: Backend) -> None:
    backend.create(TOTAL, [1])
    for look in (backend.has_ended, backend.runs, backend.about):
        for wrong in (0, 2, -1):
            with pytest.raises(KeyError):
                look(wrong)


def test_a_function_at_an_organization_can_create_tasks(backend: Backend) -> None:
    task = backend.create(b'{"method": "inner", "kwargs": {"depth": 2}}', [1])
    backend.run()
    assert results(backend, task) == [[[[15, 3]] * 2] * 2]


@pytest.mark.parametrize("kind", ["coordinated", "in_process"])
def test_a_function_at_an_organization_can_create_as_many_tasks_as_the_session_allows(
    tmp_path: Path, module: str, kind: str
) -> None:
    backend = backend_of(kind, tmp_path, module, most_tasks=3)
    allowed, refused = (
        backend.create(b'{"method": "many", "kwargs": {"number": %d}}' % number, [1]) for number in (3, 4)
    )
    backend.run()
    assert results(backend, allowed) == [[3, 3, 3]] and results(backend, refused) == [None]
    assert "more than 3 tasks; strategy.most_tasks (--most-tasks) is the limit" in backend.runs(refused)[0].log


# ---------------------------------------------------------------- rounds of a session


def test_all_tasks_that_wait_are_one_round_with_the_fewest_requests(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    for ids in ([1], [2, 3], [1, 2, 3]):
        backend.create(TOTAL, ids)
    backend.run()
    backend.run()
    [requests] = session.asked
    assert [sorted(one.clients or ()) for one in requests] == [sorted(NAMES)] * 2
    backend.create(TOTAL, [1, 2, 3])
    backend.run()
    assert len(session.asked) == 2
    [request] = session.asked[1]
    assert request.payload is not None and not request.payloads  # one for all
    backend.finish()
    assert session.finished == "ended"


def test_nested_tasks_take_a_round_for_each_level_and_back(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    backend.create(b'{"method": "inner", "kwargs": {"depth": 1}}', [1])
    backend.run()
    assert [sum(len(one.clients or ()) for one in each) for each in session.asked] == [1, 2, 4, 2, 1]


def test_thousands_of_tasks_are_sent_in_messages_of_a_bounded_size(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    sizes: list[int] = []
    ask = session.ask
    session.ask = lambda *requests: sizes.append(len(requests)) or ask(*requests)  # type: ignore[method-assign,func-returns-value]
    tasks = [backend.create(TOTAL, [2]) for _ in range(_AT_ONCE + 1)]
    backend.run()
    assert sizes == [_AT_ONCE, 1] and results(backend, tasks[-1]) == [3]


@pytest.mark.parametrize(
    "wants",
    [
        [],
        {},
        5,
        None,
        [None],
        [{}],
        [{"organizations": [1], "name": "", "databases": [], "input": "not there"}],
        [{"organizations": [[1]], "name": "", "databases": []}],
        [{"organizations": 1, "name": "", "databases": []}],
        [{"organizations": [1], "name": "", "databases": 5}],
    ],
)
def test_a_reply_that_wants_nothing_that_can_be_run_is_a_failure_of_its_organization(
    tmp_path: Path, module: str, wants: object
) -> None:
    backend, session = coordinated(tmp_path, module)
    session.forged = {"South": Records({}, {"wants": wants})}
    task = backend.create(TOTAL, [1, 2])
    backend.run()
    assert [one.status for one in backend.runs(task)] == [COMPLETED, FAILED]
    assert session.lines == ["no result of South, task 1 (total): the reply wants tasks in a form that cannot be read"]


def test_a_reply_cannot_want_one_organization_several_times_in_place_of_several(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    wants = [{"organizations": [3, 3, 3], "name": [], "databases": [["default"]]}]
    session.forged = {"South": Records({"inputs": {"0": np.frombuffer(TOTAL, np.uint8)}}, {"wants": wants})}
    backend.create(TOTAL, [2])
    backend.run()
    [[west]] = [one.clients for one in session.asked[1]]
    assert west == "West" and session.asked[1][0].payload.data["asked"] == 1  # type: ignore[union-attr]


def test_a_result_that_the_central_function_has_not_read_may_be_damaged(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    session.forged = {"South": Records({"task": {"result": np.frombuffer(b"typed.\1damaged", np.uint8)}}, {})}
    backend.create(TOTAL, [2])
    backend.run()
    [told] = central_program._sent(backend, {"era": OLD, "allow_pickle": False})
    assert (told["bytes"], told["preview"][:14]) == (14, "it: it is dama")


def test_what_failed_is_logged_with_its_organization(tmp_path: Path, module: str) -> None:
    backend, session = coordinated(tmp_path, module)
    backend.create(b'{"method": "total", "kwargs": {"fail": true}}', [1, 2], name="sums")
    backend.run()
    assert session.lines == ["no result of South, task 1 (total): exit_code: ValueError: too few rows"]
