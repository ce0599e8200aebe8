"""Sanitise answers from untrusted code: nothing in them can stop the session or reach a file.

The numbers, metrics and metadata of a reply are read from the reply itself, here; an answer's own are ignored.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec

from fedpkg.shown import shown
from fedpkg.waist.answer import Answer, Failure, Refused, Usage
from fedpkg.waist.order import Order, ReplySpec
from fedpkg.waist.place import place_of, session_folder

_KIND = re.compile(r"[a-z][a-z_]{0,39}")
_OF_THE_CONTROLLER = frozenset(("no_space", "dropout", "round_timeout"))  # failures that only the controller can detect
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_SUFFIXES = ("", ".json", ".npz", ".safetensors")
LONGEST_MESSAGE, LONGEST_COMMAND, LONGEST_TAIL, LONGEST_TOKEN, MOST_PHASES = 2_000, 10_000, 64_000, 200, 50


def vetted(order: Order, answer: Answer) -> Answer:
    """The sanitised answer; one that cannot be an answer to that order becomes a failure.

    Its folder is the order's folder on this side.
    """
    if answer.task_id != order.task_id:
        return _refused(order, "bad_answer", f"its answer is for another task, {answer.task_id!r:.100}")
    for what, token in (("state", answer.state or ""), ("checksum of its state", answer.state_checksum)):
        if len(token) > LONGEST_TOKEN or shown(token) != token:
            return _refused(order, "bad_state", f"the {what} has an invalid name: {token!r:.60}")
    return Answer(
        task_id=order.task_id,
        status=answer.status,
        failure=_failure(answer),
        reply=answer.reply if answer.status == "ok" else None,
        state=answer.state if answer.status == "ok" else None,
        state_checksum=answer.state_checksum if answer.status == "ok" else "",
        exit_code=_whole(answer.exit_code),
        signal=_whole(answer.signal),
        command=_text(answer.command[:LONGEST_COMMAND]),
        log_tail=_text(answer.log_tail[-LONGEST_TAIL:]),
        folder=_folder(order),
        started_at=_seconds(answer.started_at),
        wall_s=_seconds(answer.wall_s),
        phases=_phases(answer.phases),
        usage=_usage(answer.usage),
    )


def check_name(name: str, spec: ReplySpec) -> None:
    """Raises Refused: the name is not a valid name of a reply's file."""
    if not _PLAIN_NAME.fullmatch(name) or Path(name).suffix not in (*_SUFFIXES, spec.suffix):
        raise Refused("bad_file", f"its reply has the name {name!r:.60}, which is not valid for a reply's file")


def failed(answer: Answer, failure: Failure) -> Answer:
    """The answer as a failure."""
    nothing = Answer(task_id=answer.task_id, status="failed")
    taken_back = ("reply", "num_examples", "metadata", "metrics", "converted", "state", "state_checksum")
    facts = {name: getattr(nothing, name) for name in taken_back}
    return msgspec.structs.replace(answer, status="failed", failure=failure, **facts)


def folder_name(order: Order, folder: str) -> str:
    """The last part of the folder that an answer names, if it is a valid file name here."""
    name = Path(folder).name
    return name if _PLAIN_NAME.fullmatch(name) else order.call


def _refused(order: Order, kind: str, message: str) -> Answer:
    return Answer(task_id=order.task_id, status="failed", failure=Failure(kind, message), folder=_folder(order))


def _folder(order: Order) -> str:
    return str(place_of(session_folder(Path(), order.session_id), order).folder)


def _failure(answer: Answer) -> Failure | None:
    if answer.status != "failed":
        return None
    if answer.failure is None:
        return Failure("executor", "it failed, and its executor gave no reason")
    kind, message = answer.failure.kind, answer.failure.message[:LONGEST_MESSAGE]
    if not _KIND.fullmatch(kind) or kind in _OF_THE_CONTROLLER:
        return Failure("executor", f"at the executor: {message}")
    return Failure(kind, message)


def _text(text: str) -> str:
    """Text that a database accepts."""
    return text.encode(errors="replace").decode()


def _seconds(value: float) -> float:
    return value if 0 <= value < 1e15 else 0.0


def _whole(value: int | None) -> int | None:
    return value if value is not None and abs(value) < 1 << 31 else None


def _phases(phases: dict[str, float]) -> dict[str, float]:
    found = [(name, s) for name, s in list(phases.items())[:MOST_PHASES] if _KIND.fullmatch(name) and math.isfinite(s)]
    return dict(found)


def _usage(usage: Usage) -> Usage:
    cpu_s, peak = usage.cpu_s, usage.peak_memory_bytes
    return Usage(
        cpu_s=None if cpu_s is None or not 0 <= cpu_s < 1e15 else cpu_s,
        peak_memory_bytes=None if peak is None or not 0 <= peak < 1 << 60 else peak,
    )
