"""The program of a task: it calls a function of an algorithm with the data of one node.

    python -m _fedpkg_algorithm_node MODULE IN OUT

IN are records with the serialised input of the function, OUT those with its serialised result, or with the tasks that
it wants (`fedpkg.analytics.nested`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fedpkg.analytics import calling, eras, guard, task_files
from fedpkg.analytics.backend import Organization
from fedpkg.analytics.current import Call
from fedpkg.analytics.enclosed import AlgorithmFailed, remove_planted
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.nested import Nested, Wants, without_waiting
from fedpkg.analytics.node import Node, read_node
from fedpkg.analytics.noted import WARNINGS, noted, noting, reason_of
from fedpkg.analytics.policy import NotAllowed
from fedpkg.client.records import Records, load_records, write_records
from fedpkg.client.task import task

FAILED_CODE, NOT_ALLOWED_CODE = 1, 77  # `fedpkg/compute_package/algorithm.py` has the same
SAID = "fedpkg: "  # begins the last line of standard error, which is the reason


def main(words: Sequence[str]) -> None:
    """Answer one input.

    Raises:
        SystemExit: If there is no reply.
    """
    module, given, out, *_more = words
    now = task()
    if now.data_path is None:
        _end("the node has no data")
    try:
        records, node = load_records(given), read_node(now.data_path)
        method = now.parameters.get("method")
        reply = guard.answered(records, node, method, lambda frames: answer(module, records, node, frames, out))
    except NotAllowed as error:
        _end(str(error), NOT_ALLOWED_CODE)
    except AlgorithmFailed as error:
        _end(str(error))
    except SystemExit as error:
        _end(f"the function ended its process with exit code {error.code!r:.80}")
    except BaseException as error:
        print(calling.traceback_of(error), file=sys.stderr)
        _end(reason_of(error))
    if node.is_guarded:
        remove_planted(out, f"{out}-metadata")
    write_records(out, reply)


def answer(module: str, records: Records, node: Node, frames: Frames, out: str | None = None) -> Records:
    """The reply to the records of a task, which will be written to ``out``. Raises whatever the function does."""
    sys.path.insert(0, os.getcwd())  # not before: the process that checks runs no code of the algorithm
    about, data = records.data, records.sets["task"]["input"].tobytes()
    backend, said = _backend(node, about, records.sets.get("answers", {})), list[str]()
    try:
        place = None if out is None else os.path.dirname(os.path.abspath(out))
        with task_files.written(node, backend, data, place=place) as ready, without_waiting(), noting(said.append):
            call = Call(backend, ready, backend.databases, frames)
            allow_pickle = about["allow_pickle"] and not node.policy
            result = eras.answer(module, data, call, allow_pickle=allow_pickle)
    except Wants:
        wants, inputs = backend.wanted()
        return Records({"inputs": {name: _array(one) for name, one in inputs.items()}}, {"wants": wants})
    return Records({"task": {"result": _array(result)}}, {WARNINGS: noted(said)} if said else {})


def _backend(node: Node, about: Mapping[str, Any], results: Mapping[str, Any]) -> Nested:
    backend = Nested(
        node,
        [Organization(**one) for one in about["organizations"]],
        image=about["image"],
        databases=about["databases"],
        task_id=about["task_id"],
        now=about["created_at"],
        most_tasks=about["most_tasks"],
    )
    backend.answers = [
        [
            (
                one["status"],
                None if (found := results.get(f"{number}-{place}")) is None else found.tobytes(),
                one["log"],
            )
            for place, one in enumerate(each)
        ]
        for number, each in enumerate(about["answers"])
    ]
    return backend


def _array(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, np.uint8)


def _end(reason: str, code: int = FAILED_CODE) -> NoReturn:
    """End without a reply; the last line of the log is the reason."""
    sys.stdout.flush()
    reason = re.sub(r"\n +(?:try|hint) {2,}", "; try: ", reason)
    sys.stderr.write(f"{SAID}{' '.join(reason.split())}\n")
    raise SystemExit(code)
