"""Backends over the same three nodes: functions that are called in this process, and the rounds of a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedpkg.analytics import calling, node_program
from fedpkg.analytics.backend import Backend, Organization
from fedpkg.analytics.coordinated import Coordinated
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.node import Database, Node
from fedpkg.client.coordinator import Replies, Reply, Request
from fedpkg.client.records import Records, load_records, write_records

NAMES = ("North", "South", "West")
CSV = ("x\n1\n2\n", "x\n3\n", "x\n4\n5\n6\n")


@dataclass
class Session:
    """The rounds of a session whose tasks are run by this process; ``asked`` are the requests of each round.

    ``forged`` are replies that clients give once, whatever they are asked.
    """

    folder: Path
    module: str
    nodes: Mapping[str, Node]
    asked: list[list[Request]] = field(default_factory=list)
    created_at: float = 7.0
    lines: list[str] = field(default_factory=list)
    finished: str | None = None
    forged: dict[str, Records] = field(default_factory=dict)

    def rounds(self) -> Iterator[Any]:
        while True:
            self.asked.append([])
            yield self

    def ask(self, *requests: Request) -> list[Replies]:
        self.asked[-1] += requests
        return [self._answered(one) for one in requests]

    def commit(self, finished: str | None = None) -> None:
        self.finished = finished

    def log(self, text: str) -> None:
        self.lines.append(text)

    def _answered(self, request: Request) -> Replies:
        assert request.clients is not None
        replies, failures = [], {}
        for client_id in request.clients:
            path = str(self.folder / "in.npz")
            write_records(path, request.payloads.get(client_id, request.payload))  # type: ignore[arg-type]
            out = str(self.folder / f"{len(self.asked)}-{client_id}.npz")
            try:
                node = self.nodes[client_id]
                given = load_records(path)
                reply = self.forged.pop(client_id, None)
                if reply is None:
                    reply = node_program.answer(self.module, given, node, Frames(node))
            except Exception as error:
                failures[client_id] = {"word": "exit_code", "text": f"{type(error).__name__}: {error}"}
                continue
            write_records(out, reply)
            replies.append(Reply(client_id, 1.0, {}, None, {"": out}))
        missing = list(failures)
        told = {"id": "1", "round": 1, "asked": request.clients, "missing": missing, "failures": failures}
        return Replies(replies, told)


def nodes_in(folder: Path) -> dict[str, Node]:
    found = {}
    for number, (name, text) in enumerate(zip(NAMES, CSV, strict=True), 1):
        path = folder / f"{name}.csv"
        path.write_text(text)
        found[name] = Node(number, name, databases={"default": Database("default", str(path))})
    return found


def coordinated(folder: Path, module: str, *, most_tasks: int | None = None) -> tuple[Coordinated, Session]:
    session = Session(folder, module, nodes_in(folder))
    rounds = session.rounds()
    everyone = [Organization(number, name) for number, name in enumerate(NAMES, 1)]
    clients = {one.organization_id: one.name for one in everyone}
    node = next(iter(session.nodes.values()))
    first, labels = next(rounds), ["default"]
    made = Coordinated(rounds, first, node, everyone, clients, databases=labels, most_tasks=most_tasks)
    return made, session


def backend_of(kind: str, folder: Path, module: str, *, most_tasks: int | None = None) -> Backend:
    if kind == "coordinated":
        return coordinated(folder, module, most_tasks=most_tasks)[0]
    nodes = nodes_in(folder)
    frames = [{"default": pd.read_csv(one.databases["default"].uri)} for one in nodes.values()]
    return InProcess(
        module,
        [MockNode(Organization(k, name), one) for k, (name, one) in enumerate(zip(NAMES, frames, strict=True), 1)],
        answer=calling.answer,
        most_tasks=most_tasks,
    )
