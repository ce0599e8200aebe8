"""Runs the central function of an algorithm as the coordinator of a session.

    python -m _fedpkg_algorithm_central MODULE

What it returns is written to a file in the working folder, which the session keeps. A function that waits in a loop
does not wait: a look at a task that has not ended, and `time.sleep`, run the tasks first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpkg.analytics import calling, eras, serialise, task_files
from fedpkg.analytics.backend import Organization
from fedpkg.analytics.coordinated import Coordinated
from fedpkg.analytics.current import Call
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.node import read_node
from fedpkg.client import coordinator
from fedpkg.client.coordinator import SessionEnded, Step

RESULT = "result"  # the file that is kept, with the form of its content as suffix
FAILURES = 5  # that an error names
_LAST_LINES = 14  # of a traceback, in the session's error


def main(module: str) -> None:
    """Run the function of this module that the session's parameters name; an error ends the session."""
    rounds = coordinator.rounds()
    step = next(rounds)
    asked = step.parameters
    node = read_node(os.environ["FEDN_DATA_PATH"])
    everyone, clients = _organizations(step, asked.get("organizations"))
    backend = Coordinated(
        rounds,
        step,
        node,
        everyone,
        clients,
        image=module,
        databases=asked["databases"],
        most_tasks=asked["most_tasks"],
        allow_pickle=asked["allow_pickle"],
    )
    sys.path.insert(0, os.getcwd())
    _never_wait(backend)
    try:
        result = _call(module, backend, Call(backend, node, backend.databases, Frames(node)), asked)
        word, content = serialise.split(result, what="the result") if asked["era"] == eras.OLD else ("json", result)
        Path(f"{RESULT}.{word or 'pickle'}").write_bytes(content)
    except SessionEnded:
        raise
    except SystemExit as end:
        backend.fail(f"{asked['method']} ended its process with exit code {end.code!r:.80}{_failed(backend)}")
        raise
    except BaseException as error:
        text = calling.traceback_of(error)
        print(text, file=sys.stderr, flush=True)
        last = "".join(text.splitlines(keepends=True)[-_LAST_LINES:])
        backend.fail(f"{asked['method']} raised an exception{_failed(backend)}\n{last}")
        sys.exit(1)
    backend.finish()


def _call(module: str, backend: Coordinated, call: Call, asked: Mapping[str, Any]) -> bytes:
    """The result of the central function; of a partial one, those of all organisations by name."""
    era, method, is_central = asked["era"], asked["method"], asked["kind"] == "central"
    allow_pickle = asked["allow_pickle"]
    data = eras.write_input(
        era, method, asked["args"], asked["kwargs"], is_central=is_central, allow_pickle=allow_pickle
    )
    if is_central:
        with task_files.written(call.node, backend, data) as ready:
            return eras.answer(module, data, replace(call, node=ready), allow_pickle=allow_pickle)
    task_id = backend.create(data, [one.organization_id for one in backend.organizations()], name=method)
    backend.run()
    names = {one.organization_id: one.name for one in backend.organizations()}
    found = {}
    for run in backend.runs(task_id):
        if run.result is not None:
            name = names[run.organization_id]
            found[name] = eras.read_result(era, run.result, what=f"result of {name}", allow_pickle=allow_pickle)
    if not found:
        raise RuntimeError(f"no organization has a result of {method}")
    if era != eras.OLD:
        return serialise.to_json(found, what=f"results of {method}")
    return serialise.write(found, what=f"results of {method}", allow_pickle=allow_pickle)


def _organizations(step: Step, named: list[str] | None) -> tuple[list[Organization], dict[int, str]]:
    """The organisations that take part, and the client of each."""
    chosen = [one for one in step.clients if named is None or one.client_id in named]
    chosen.sort(key=lambda one: one.position)
    everyone = [Organization(one.position + 1, one.client_id, dict(one.attributes)) for one in chosen]
    return everyone, {one.position + 1: one.client_id for one in chosen}


def _never_wait(backend: Coordinated) -> None:
    """Let `time.sleep` run the tasks that the function waits for, and then return at once."""
    really = time.sleep

    def sleep(seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        backend.run()
        really(0)

    time.sleep = sleep  # type: ignore[assignment]


def _failed(backend: Coordinated) -> str:
    """Which organisations have failed, as an addition to an error."""
    all_, said = backend.failures, backend.failures[:FAILURES]
    said += [f"and {len(all_) - FAILURES} more"] if len(all_) > FAILURES else []
    return "".join(["; partial results that are missing:", *(f"\n  {one}" for one in said)]) if said else ""
