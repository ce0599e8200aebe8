"""An executor that keeps those rules of nodes' policies that no task can keep itself: its number, time and memory.

Calls are counted in the home, by collaboration, organization and function, before a task runs: also those that fail,
and those of earlier sessions. A task that is repeated after a kill is the same call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from fedpkg.analytics.node import Node
from fedpkg.analytics.policy import NotAllowed, Policy, policy_of
from fedpkg.errors import StoreError
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order

FILE = "calls.sqlite"  # in the home
_WAIT_S = 5.0  # for another session that counts


class Calls:
    """Counts calls of functions at organizations, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, collaboration: str, organization: str, function: str, call: str, *, maximum: int) -> bool:
        """Whether a call is one of the first ``maximum``; it counts from now on. The same call counts once.

        Raises:
            StoreError: The file is locked or damaged, or cannot be written.
        """
        try:
            return self._take(collaboration, organization, function, call, maximum)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path}: calls of {function} cannot be counted: {error}",
                hint="close the program that has the file open, or restore a copy of it; then `fedpkg session resume`",
                path=str(self._path),
            ) from error

    def _take(self, collaboration: str, organization: str, function: str, call: str, maximum: int) -> bool:
        key = (collaboration, organization, function)
        connection = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS calls (collaboration TEXT, organization TEXT, function TEXT, call TEXT, "
                "PRIMARY KEY (collaboration, organization, function, call)) WITHOUT ROWID"
            )
            connection.execute("BEGIN IMMEDIATE")
            where = "FROM calls WHERE collaboration = ? AND organization = ? AND function = ?"
            [(known,)] = connection.execute(f"SELECT count(*) {where} AND call = ?", (*key, call))
            [(number,)] = connection.execute(f"SELECT count(*) {where}", key)
            if not known and number < maximum:
                connection.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", (*key, call))
            connection.execute("COMMIT")
            return bool(known) or number < maximum
        finally:
            connection.close()


class Policed:
    """An executor for one session, whose clients are nodes with policies."""

    def __init__(self, executor: Executor, nodes: Mapping[str, Node], calls: Calls) -> None:
        self._executor = executor
        self._nodes = nodes
        self._policies = {name: policy_of(node.policy) for name, node in nodes.items()}
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def submit(self, order: Order) -> Future[Answer]:
        policy = self._policies.get(order.client_id)
        if policy is None:
            return self._executor.submit(order)
        try:
            self._count(policy, self._nodes[order.client_id], order)
        except NotAllowed as error:
            refused: Future[Answer] = Future()
            refused.set_result(Answer(task_id=order.task_id, status="failed", failure=_failure(error)))
            return refused
        limited, rules = _limited(order, policy)
        running = self._executor.submit(limited)
        return _naming(rules, running) if rules else running

    def _count(self, policy: Policy, node: Node, order: Order) -> None:
        method = str(order.parameters.get("method", ""))
        maximum = policy.maximum_calls_of(method)
        if maximum is None:
            return
        call = f"{order.session_id}/{order.round_number}/{order.call}"
        if not self._calls.take(node.collaboration, node.organization, method, call, maximum=maximum):
            raise NotAllowed("maximum_calls", f"{method} was called {maximum} times, the most that is allowed")


def policed(executor: Executor, nodes: Mapping[str, Node], home: Path) -> Any:
    """The executor, if no node has a policy; otherwise one that keeps them. ``nodes``: by client."""
    if not any(node.policy for node in nodes.values()):
        return executor
    return Policed(executor, nodes, Calls(home / FILE))


def _limited(order: Order, policy: Policy) -> tuple[Order, Mapping[str, NotAllowed]]:
    """The order within the time and memory that the policy allows; and its rules by the failures that they cause."""
    rules = {}
    timeout_s, memory = order.timeout_s, order.limits.memory_bytes
    if policy.wall_time_s is not None and (timeout_s is None or policy.wall_time_s < timeout_s):
        timeout_s = policy.wall_time_s
        rules["timeout"] = NotAllowed("wall_time_s", f"the call took more than {timeout_s:g} s")
    if policy.memory_bytes is not None and (memory is None or policy.memory_bytes < memory):
        memory = policy.memory_bytes
        rules["memory"] = NotAllowed("memory_bytes", f"the call used more than {memory} bytes of memory")
    limits = msgspec.structs.replace(order.limits, memory_bytes=memory)
    return msgspec.structs.replace(order, timeout_s=timeout_s, limits=limits), rules


def _naming(rules: Mapping[str, NotAllowed], running: Future[Answer]) -> Future[Answer]:
    """The answer of a task, whose failure is the rule that has ended it."""
    named: Future[Answer] = Future()

    def tell(done: Future[Answer]) -> None:
        try:
            answer = done.result()
        except BaseException as error:  # of the one who waits
            named.set_exception(error)
            return
        if answer.failure is not None and answer.failure.kind in rules:
            answer = msgspec.structs.replace(answer, failure=_failure(rules[answer.failure.kind]))
        named.set_result(answer)

    running.add_done_callback(tell)
    return named


def _failure(error: NotAllowed) -> Failure:
    return Failure("not_allowed", str(error))
