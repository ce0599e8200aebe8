"""The program of a task of a message app: it lets the ClientApp answer one message.

    python -m _fedpkg_client_app MODULE:OBJECT IN OUT [--node-config.NAME=VALUE …]

IN is a file with a message, OUT the file for the reply. The exit code tells the server how it failed: see `fedpkg.apps.
message.ErrorCode`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from fedpkg.apps import identity
from fedpkg.apps.client_app import ClientApp, LoadClientAppError
from fedpkg.apps.context import Context
from fedpkg.apps.identity import Identity
from fedpkg.apps.message import ErrorCode, Message
from fedpkg.apps.message_file import read_message, write_message
from fedpkg.client.models import write_json
from fedpkg.client.task import Task, task
from fedpkg.records import RecordDict
from fedpkg.records.files import read_content, write_content

NUM_EXAMPLES = ("num-examples", "num_examples")
_STATE = "message-app.npz"  # in the client's folder for its state
_OPTION = "--node-config."
_LAST_CODE = 63  # of an error whose code is given as an exit code; larger ones are shells' and signals'


def main(words: Sequence[str]) -> None:
    """Answer one message.

    Raises:
        SystemExit: If there is no reply; its code is an `ErrorCode`.
    """
    reference, given, out, *more = words
    now = task()

    def save(reply: Message) -> None:
        write_message(out, reply)
        metrics = metrics_of(reply.content)
        if metrics:
            write_json(f"{out}-metadata", metrics)

    message = read_message(given)
    message.metadata.dst_node_id = now.partition_id + 1  # a file that several nodes get names none
    answer(reference, message, _context(now, message, _node_config(more)), now.state_folder, save)


def answer(
    reference: str, message: Message, context: Context, state_folder: str | None, save: Callable[[Message], None]
) -> None:
    """Let an app answer a message, save its reply, and keep the state that its context has then.

    Raises:
        SystemExit: If there is no reply; its code is an `ErrorCode`.
    """
    identity.use(
        Identity(
            run_id=context.run_id,
            node_id=context.node_id,
            prefix=f"{message.metadata.message_id}-",
            now=lambda: message.metadata.created_at,
        )
    )
    state_path = None if state_folder is None else os.path.join(state_folder, _STATE)
    if state_path is not None and os.path.exists(state_path):
        context.state = read_content(state_path)[0]
    reply = _answer(reference, message, context)
    if reply.has_error():
        code = reply.error.code if 0 < reply.error.code <= _LAST_CODE else ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        end(code, f"the ClientApp replied with an error (code {reply.error.code}): {reply.error.reason}")
    save(reply)
    if state_path is not None and (context.state or os.path.exists(state_path)):
        write_content(state_path, context.state)


def load_app(reference: str, kind: type) -> Any:
    """The object ``module:name`` of an app in the current folder.

    Raises:
        LoadClientAppError: It cannot be imported, does not exist, or is something else.
    """
    module, _, name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise LoadClientAppError(f"{reference}: the module {module} has no '{part}'")
        found = getattr(found, part)
    if not isinstance(found, kind) and not is_installed(found):
        raise LoadClientAppError(f"{reference} is a {type(found).__name__}, not a {kind.__name__}")
    return found


def metrics_of(content: RecordDict) -> dict[str, float]:
    """The numbers of a reply's metric records that a session shows, and its number of examples as ``num_examples``."""
    found: dict[str, float] = {}
    for record in content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.setdefault("num_examples" if name in NUM_EXAMPLES else name, value)
    if not found.get("num_examples", 1) > 0:
        del found["num_examples"]
    return found


def run_id_of(session_id: str) -> int:
    """A session's number for apps: the first 63 bits of a digest of its id."""
    return int.from_bytes(hashlib.sha256(session_id.encode()).digest()[:8], "big") >> 1


def is_installed(app: object) -> bool:
    """Whether an object's class is one of an installed flwr, which runs its own."""
    return type(app).__module__.partition(".")[0] == "flwr"


def _answer(reference: str, message: Message, context: Context) -> Message:
    try:
        app = load_app(reference, ClientApp)
    except BaseException:
        end(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, traceback.format_exc())
    try:
        if is_installed(app):
            from fedpkg.apps import installed

            return installed.answer(app, message, context)
        return cast("Message", app(message, context))
    except Exception:
        end(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, traceback.format_exc())


def _context(now: Task, message: Message, more: dict[str, Any]) -> Context:
    return Context(
        run_id=message.metadata.run_id or run_id_of(now.session_id),
        node_id=now.partition_id + 1,
        node_config={"partition-id": now.partition_id, "num-partitions": now.num_partitions, **more},
        state=RecordDict(),
        run_config=dict(now.run_config),
    )


def _node_config(words: Sequence[str]) -> dict[str, Any]:
    """Further entries of node_config, from ``--node-config.NAME=VALUE``; a value is JSON, or else text."""
    found = {}
    for word in words:
        name, is_set, value = word.removeprefix(_OPTION).partition("=")
        if not word.startswith(_OPTION) or not is_set:
            end(
                ErrorCode.LOAD_CLIENT_APP_EXCEPTION,
                f"{word}: a message app has no arguments on its command line; set its values in run_config, or what is "
                f"particular to a client as {_OPTION}NAME=VALUE",
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def end(code: int, text: str) -> NoReturn:
    """End without a reply."""
    print(text.rstrip(), file=sys.stderr)
    raise SystemExit(int(code))
