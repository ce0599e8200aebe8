"""Runs the central function of an algorithm as the coordinator of a session.

    python -m _fedpkg_algorithm_central MODULE

What it returns is written to a file in the working folder, which the session keeps, and what its tasks sent to another
one. A function that waits in a loop does not wait: a look at a task that has not ended, and `time.sleep`, run the tasks
first. In the mode ``in_process``, tasks are calls in this process, as in a mock: this program then has all data.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpkg.analytics import calling, eras, guard, serialise, task_files
from fedpkg.analytics.backend import COMPLETED, Organization
from fedpkg.analytics.coordinated import Coordinated, name_of
from fedpkg.analytics.current import Call
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.node import DEFAULT, Node, read_node
from fedpkg.analytics.noted import noting
from fedpkg.analytics.policy import NotAllowed, policy_of
from fedpkg.analytics.recorded import Recorded
from fedpkg.client import coordinator
from fedpkg.client.coordinator import SessionEnded, Step

RESULT, SENT = "result", "sent.json"  # files that are kept; the suffix of the first is the form of its content
FORMS = ("json", "typed", "pickle")
FAILURES = 5  # that an error names
_LAST_LINES = 14  # of a traceback, in the session's error
_PREVIEW = 300  # characters of a result


def main(module: str) -> None:
    """Run the function of this module that the session's parameters name; an error ends the session."""
    rounds = coordinator.rounds()
    step = next(rounds)
    asked = step.parameters
    nodes = _nodes(asked)
    there = [*nodes[0].databases, *nodes[0].withheld]
    labels = asked["databases"] or ([DEFAULT] if DEFAULT in there else there)
    everyone, clients = _organizations(step, asked["organizations"])
    session = Coordinated(
        rounds,
        step,
        nodes[0],
        everyone,
        clients,
        image=module,
        databases=labels,
        most_tasks=asked["most_tasks"],
        allow_pickle=asked["allow_pickle"],
        aggregates=asked["kind"] == "central",
    )
    sys.path.insert(0, os.getcwd())
    backend = _mock(module, nodes, everyone, labels, asked["most_tasks"]) if asked["in_process"] else session
    _never_wait(backend)
    is_quiet = not nodes[0].shares_logs
    if is_quiet:
        _drop_output()
    try:
        with noting(lambda text: None if is_quiet else session.log(f"warning: {text}")):
            result = _call(module, backend, nodes[0], asked, step.scratch)
    except SessionEnded:
        raise
    except NotAllowed as error:
        session.fail(f"not_allowed: {nodes[0].organization}, {asked['method']}: {error}{_failures(backend)}")
        sys.exit(1)
    except SystemExit as end:
        code = "" if is_quiet else f" with exit code {end.code!r:.80}"
        session.fail(f"{asked['method']} ended its process{code}{_failures(backend)}")
        raise
    except BaseException as error:
        text = calling.traceback_of(error)
        print(text, file=sys.stderr, flush=True)
        last = text.replace(f"{os.getcwd()}/", "").splitlines()[-_LAST_LINES:]
        if is_quiet:
            last = [f"{type(error).__name__}; {nodes[0].organization} does not share its text (share_algorithm_logs)"]
        session.fail("\n    ".join((f"{asked['method']} raised an exception{_failures(backend)}", *last)))
        sys.exit(1)
    try:
        _save(result, backend, asked)
    except OSError as error:
        why = f"{error.strerror} (limits.file_bytes is the size limit of a file)"
        session.fail(f"the result of {asked['method']}, {len(result)} bytes, cannot be written: {why}")
        sys.exit(1)
    session.finish()


def _save(result: bytes, backend: Recorded, asked: Mapping[str, Any]) -> None:
    """Write the files that are kept, in place of files of these names that the algorithm has written."""
    word, content = serialise.split(result, what="the result") if asked["era"] == eras.OLD else ("json", result)
    for form in FORMS:
        Path(f"{RESULT}.{form}").unlink(missing_ok=True)
    Path(f"{RESULT}.{word or 'pickle'}").write_bytes(content)
    Path(SENT).write_text(json.dumps(list(_sent(backend, asked)), indent=1))


def _call(module: str, backend: Recorded, node: Node, asked: Mapping[str, Any], scratch: str) -> bytes:
    """The result of the central function; of a partial one, those of all organizations by name."""
    era, method, is_central = asked["era"], asked["method"], asked["kind"] == "central"
    allow_pickle = asked["allow_pickle"] and not (is_central and node.policy)
    data = eras.write_input(
        era,
        method,
        asked["args"],
        asked["kwargs"],
        more=asked.get("input", {}),
        is_central=is_central,
        allow_pickle=allow_pickle,
    )
    if is_central:
        policy = policy_of(node.policy)
        if node.policy:  # before a line of the algorithm runs
            asked_for = guard.asked_of(data)
            guard.check_call(policy, node, asked_for, number=None)
        with task_files.written(node, backend, data, place=scratch) as ready:
            call = Call(backend, ready, backend.databases, Frames(node))
            result = eras.answer(module, data, call, allow_pickle=allow_pickle)
        if node.policy:
            result = guard.released_result(policy, node, asked_for.method, result, is_old=era == eras.OLD)
        return result
    task_id = backend.create(data, [one.organization_id for one in backend.organizations()], name=method)
    backend.run()
    names = {one.organization_id: one.name for one in backend.organizations()}
    found = {
        names[run.organization_id]: eras.read_result(
            era, run.result, what=f"result of {names[run.organization_id]}", allow_pickle=allow_pickle
        )
        for run in backend.runs(task_id)
        if run.result is not None
    }
    if not found:
        raise RuntimeError(f"no organization has a result of {method}")
    if era != eras.OLD:
        return serialise.to_json(found, what=f"results of {method}")
    return serialise.write(found, what=f"results of {method}", allow_pickle=allow_pickle)


def _organizations(step: Step, named: list[str] | None) -> tuple[list[Organization], dict[int, str]]:
    """The organizations that take part, and the client of each."""
    chosen = [one for one in step.clients if named is None or one.client_id in named]
    chosen.sort(key=lambda one: one.position)
    everyone = [Organization(one.position + 1, one.client_id, dict(one.attributes)) for one in chosen]
    return everyone, {one.position + 1: one.client_id for one in chosen}


def _nodes(asked: Mapping[str, Any]) -> list[Node]:
    """The node of the host; in the mode ``in_process`` also all others, after it."""
    folder = os.environ["FEDN_DATA_PATH"]
    if not asked["in_process"]:
        return [read_node(folder)]
    found = [read_node(os.path.join(folder, name)) for name in sorted(os.listdir(folder), key=int)]
    host = asked["host"] or (asked["organizations"] or [found[0].organization])[0]
    return sorted(found, key=lambda node: node.organization != host)


def _mock(
    module: str, nodes: list[Node], everyone: list[Organization], labels: Sequence[str], most_tasks: int
) -> InProcess:
    by_id = {node.organization_id: node for node in nodes}
    host = nodes[0].organization_id
    taking_part = sorted(everyone, key=lambda one: (one.organization_id != host, one.organization_id))
    mocked = []
    for one in taking_part:
        read = Frames(by_id[one.organization_id])
        mocked.append(MockNode(one, {label: read(label) for label in labels}))
    return InProcess(module, mocked, image=module, most_tasks=most_tasks)


def _never_wait(backend: Recorded) -> None:
    """Let `time.sleep` run the tasks that the function waits for, and then return at once."""
    really = time.sleep

    def sleep(seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        backend.run()
        really(0)

    time.sleep = sleep  # type: ignore[assignment]


def _drop_output() -> None:
    """Nothing that the algorithm prints is kept from here on."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _failures(backend: Recorded) -> str:
    """Which organizations have failed, as an addition to an error."""
    if isinstance(backend, Coordinated):
        found = backend.failures
    else:
        names = {one.organization_id: one.name for one in backend.organizations()}
        runs = [run for task in backend.tasks() for run in backend.runs(task.task_id) if run.log]
        found = [f"{names[run.organization_id]}, task {run.task_id}: {run.log}" for run in runs]
    said = found[:FAILURES] + ([f"and {len(found) - FAILURES} more"] if len(found) > FAILURES else [])
    return "".join(["; partial results that are missing:", *(f"\n  {one}" for one in said)]) if said else ""


def _sent(backend: Recorded, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What each organization sent: the size and digest of each result, and its beginning."""
    names = {one.organization_id: one.name for one in backend.organizations()}
    for task in backend.tasks():
        for run in backend.runs(task.task_id):
            told: dict[str, Any] = {
                "task": task.task_id,
                "name": name_of(task.name, task.input_),
                "organization": names[run.organization_id],
                "status": run.status,
                "bytes": 0,
            }
            if run.status == COMPLETED and run.result is not None:
                told["bytes"] = len(run.result)
                told["sha256"] = hashlib.sha256(run.result).hexdigest()
                told["preview"] = _preview(run.result, asked)
            else:
                told["log"] = run.log
            yield told


def _preview(result: bytes, asked: Mapping[str, Any]) -> str:
    if asked["era"] != eras.OLD:
        text = result[: 4 * _PREVIEW].decode(errors="replace")
    else:
        try:
            text = repr(eras.read_result(eras.OLD, result, what="it", allow_pickle=asked["allow_pickle"]))
        except Exception as error:  # the central function has not read it, and its objects can raise anything
            text = f"{error}"
    return text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…"
