"""An executor that keeps those rules of nodes' policies that no single task can: how often a function was called.

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
            refused.set_result(
                Answer(task_id=order.task_id, status="failed", failure=Failure("not_allowed", str(error)))
            )
            return refused
        return self._executor.submit(_limited(order, policy))

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


def _limited(order: Order, policy: Policy) -> Order:
    """The order within the time and memory that the policy allows."""
    timeout_s, memory = order.timeout_s, order.limits.memory_bytes
    if policy.wall_time_s is not None:
        timeout_s = policy.wall_time_s if timeout_s is None else min(timeout_s, policy.wall_time_s)
    if policy.memory_bytes is not None:
        memory = policy.memory_bytes if memory is None else min(memory, policy.memory_bytes)
    limits = msgspec.structs.replace(order.limits, memory_bytes=memory)
    return msgspec.structs.replace(order, timeout_s=timeout_s, limits=limits)
