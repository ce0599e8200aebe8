"""Keeps a node's policy while a function of an algorithm answers: checks before it, and what leaves the node after it.

The function runs in a process apart (`fedpkg.analytics.enclosed`), which is forked once the checks have passed, so no
code of the algorithm runs in the process that checks and writes the reply.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpkg.analytics import calling, eras, serialise
from fedpkg.analytics.enclosed import AlgorithmFailed, run_enclosed
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.node import Node
from fedpkg.analytics.noted import WARNINGS, ignoring, noted, noting
from fedpkg.analytics.policy import Algorithm, NotAllowed, Policy, policy_of
from fedpkg.client.records import Records

LEAST = "least"  # in a reply: the number of organizations that must have a result (`minimum_organizations`)


def answered(
    records: Records, node: Node, method: str | None, answer: Callable[[Frames], Records], *, max_bytes: int = 1 << 32
) -> Records:
    """What ``answer`` replies to the records of a task, as far as the node's policy lets it out.

    Args:
        method: The name under which the session counts calls of the function.
        answer: Calls the function; run in another process if the node has a policy.

    Raises:
        NotAllowed: The policy does not allow the call, or its result.
        AlgorithmFailed: The function failed, in the other process.
        DataError: A database whose rows are counted cannot be read.
    """
    frames = Frames(node)
    if not node.is_guarded:
        return answer(frames)
    policy = policy_of(node.policy)
    about, input_ = records.data, records.sets["task"]["input"].tobytes()
    asked = asked_of(input_)
    if policy.maximum_calls_of(asked.method) is not None and method != asked.method:
        raise NotAllowed("maximum_calls", f"the call of {asked.method} was not counted")
    check_call(policy, node, asked, number=about.get("asked", 1), creator=about.get("creator", ()))
    said: list[str] = []
    for label in about["databases"]:
        database = node.databases.get(label)
        options = eras.database_options(input_, database)
        if database is not None:
            policy.check_query(label, options.get("query"), database.options.get("query"))
        if label in node.withheld or (policy.minimum_rows_of(label) is not None and database is not None):
            with noting(said.append) if node.shares_logs else ignoring():
                _read(frames, node, label, options)
    try:
        data = run_enclosed(
            lambda: _packed(answer(frames)), max_bytes=max_bytes, quiet=not node.shares_logs, show=calling.traceback_of
        )
    except AlgorithmFailed as error:
        raise AlgorithmFailed("; ".join((str(error), *(f"warning: {one}" for one in noted(said))))) from None
    return _released(policy, node, asked.method, _unpacked(data), said, is_old=eras.is_old(input_))


def _read(frames: Frames, node: Node, label: str, options: Mapping[str, Any]) -> None:
    try:
        frames(label, **options)
    except NotAllowed:
        raise
    except Exception as error:
        if node.shares_logs:
            raise
        raise AlgorithmFailed(f"database {label!r} cannot be read: {type(error).__name__}") from None


def asked_of(input_: bytes) -> calling.Input:
    """The function that an input asks for, under its name in the module, and its arguments.

    Raises:
        NotAllowed: The input is a pickle: reading it can run any program, before anything is checked.
    """
    if eras.is_pickle(input_):
        raise NotAllowed("input", "it is a pickle, which a node with a policy does not read")
    return eras.asked_of(input_)


def check_call(
    policy: Policy, node: Node, asked: calling.Input, *, number: int | None, creator: Sequence[str] = ()
) -> None:
    """Raises NotAllowed: the policy does not allow this call.

    Args:
        number: Of organizations that the same is asked of; None: the session calls its central function at the host.
            A task may call a function that takes a client, too: that does not exempt it from this rule.
        creator: Name and id of the organization whose function has created the task, if that is not the host.
    """
    known = node.algorithm
    policy.check_algorithm(
        Algorithm(str(known.get("name", "")), str(known.get("digest", "")), tuple(known.get("signers", ())))
    )
    policy.check_function(asked.method, asked.args, asked.kwargs)
    initiators = [node.initiator or ("an unknown organization",), *([creator] if creator else [])]
    policy.check_organizations(asked.method, initiators=initiators, number=number)


def released_result(policy: Policy, node: Node, method: str, result: bytes, *, is_old: bool) -> bytes:
    """A serialised result without small counts, where the function or the policy declares counts.

    Args:
        is_old: Whether the input was written by an algorithm of versions 1 to 3.

    Raises:
        NotAllowed: It is a pickle, or has no counts where they are declared.
        DeserialisationError: It is damaged.
    """
    what = f"result of {method}"
    form, _ = serialise.split(result, what=what) if is_old else ("json", None)
    if form in ("", "pickle"):
        raise NotAllowed("result", "it is a pickle, which a node with a policy does not send")
    counts = policy.counts_of(method, _function(node, method).get("doc"))
    if policy.minimum_count is None or not counts:
        return result
    if is_old:
        return serialise.write(policy.released(serialise.read(result, what=what), counts), form, what=what)
    return serialise.to_json(policy.released(serialise.from_json(result, what=what), counts), what=what)


def _released(policy: Policy, node: Node, method: str, reply: Records, said: Sequence[str], *, is_old: bool) -> Records:
    """What may leave the node of a reply, and warnings."""
    import numpy as np

    if _told(reply, "wants") is not None:
        if policy.minimum_count is not None and policy.counts_of(method, _function(node, method).get("doc")):
            raise NotAllowed("minimum_count", f"{method} creates tasks, whose inputs may have counts")
        return reply
    if "result" not in reply.sets.get("task", {}):
        raise AlgorithmFailed("its reply has no result")
    result = reply.sets["task"]["result"].tobytes()
    if node.policy:
        result = released_result(policy, node, method, result, is_old=is_old)
    told: dict[str, Any] = {}
    if (least := policy.minimum_organizations_of(method)) is not None:
        told[LEAST] = least
    if node.shares_logs and (said := noted([*said, *noted(_told(reply, WARNINGS))])):
        told[WARNINGS] = said
    return Records({"task": {"result": np.frombuffer(result, np.uint8)}}, told)


def _told(reply: Records, key: str) -> Any:
    return reply.data.get(key) if isinstance(reply.data, dict) else None


def _function(node: Node, name: str) -> Mapping[str, Any]:
    """What the runner knows of a function, from its source."""
    found: Mapping[str, Any] = node.algorithm.get("functions", {}).get(name, {})
    return found


# ---------------------------------------------------------------- a reply on its way through a pipe


def _packed(reply: Records) -> bytes:
    """Sets of arrays of bytes, and plain data: a line of JSON with the names and sizes, and then the bytes."""
    arrays = [(name, key, one.tobytes()) for name, inner in reply.sets.items() for key, one in inner.items()]
    head = {
        "data": reply.data,
        "sets": list(reply.sets),
        "arrays": [(name, key, len(one)) for name, key, one in arrays],
    }
    file = io.BytesIO()
    file.write(json.dumps(head).encode() + b"\n")
    for _, _, content in arrays:
        file.write(content)
    return file.getvalue()


def _unpacked(data: bytearray) -> Records:
    """The reply, of which nothing is trusted. AlgorithmFailed: it has another form."""
    import numpy as np

    try:
        head, _, _ = data.partition(b"\n")
        told = json.loads(head)
        sets: dict[str, dict[str, Any]] = {str(name): {} for name in told["sets"]}
        start = len(head) + 1
        for name, key, size in told["arrays"]:
            sets[name][str(key)] = np.frombuffer(data, np.uint8, size, start)
            start += size
        return Records(sets, told["data"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise AlgorithmFailed("its reply cannot be read") from None
