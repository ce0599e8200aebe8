"""The program of a task of a message app: it lets the ClientApp answer one message.

    python -m _fedpkg_client_app MODULE:OBJECT IN OUT [--node-config.NAME=VALUE …]

IN is a file with a message, OUT the file for the reply. The exit code tells the server how it failed: it is a code of
`fedpkg.apps.message.ErrorCode`, or of an error that the app has replied with.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

from fedpkg.apps import identity
from fedpkg.apps.client_app import ClientApp, LoadClientAppError
from fedpkg.apps.context import Context
from fedpkg.apps.identity import Identity, run_id_of
from fedpkg.apps.loading import find_object, is_installed
from fedpkg.apps.message import LAST_CODE, ErrorCode, Message
from fedpkg.apps.message_file import read_message, write_message
from fedpkg.client.models import write_json
from fedpkg.client.task import Task, task
from fedpkg.records import RecordDict
from fedpkg.records.files import read_content, write_content

NUM_EXAMPLES = ("num-examples", "num_examples")
_STATE = "message-app.npz"  # in the client's folder for its state
_OPTION = "--node-config."


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
    run_id = message.metadata.run_id or run_id_of(now.session_id)
    answer(reference, message, context_of(now, run_id, now.run_config, _node_config(more)), now.state_folder, save)


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
        code, note = reply.error.code, ""
        if not 0 < code <= LAST_CODE:
            note = f", which cannot be an exit code: use 1 to {LAST_CODE}"
        given = ErrorCode.CLIENT_APP_RAISED_EXCEPTION if note else code
        end(given, f"the ClientApp replied with an error (code {code}{note}): {reply.error.reason}")
    save(reply)
    if state_path is not None and (context.state or os.path.exists(state_path)):
        write_content(state_path, context.state)


def _load(reference: str) -> Any:
    """The ClientApp, or one of an installed flwr.

    Raises:
        ImportError: It does not exist.
        LoadClientAppError: It is something else.
    """
    found = find_object(reference, "ClientApp")
    if not isinstance(found, ClientApp) and not is_installed(found):
        raise LoadClientAppError(f"{reference} is a {type(found).__name__}, not a ClientApp")
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


def _answer(reference: str, message: Message, context: Context) -> Message:
    try:
        app = _load(reference)
    except BaseException:
        end(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, traceback.format_exc())
    try:
        if is_installed(app):
            from fedpkg.apps import installed

            return installed.answer(app, message, context)
        return cast("Message", app(message, context))
    except SystemExit as left:
        end(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"the ClientApp called sys.exit({left.code!r:.200})")
    except Exception:
        end(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, traceback.format_exc())


def context_of(now: Task, run_id: int, run_config: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Context:
    """The context of a task, without what its client has kept.

    The node's configuration has the attributes of the client's entity, and ``more``, which comes before them.
    """
    position = {"partition-id": now.partition_id, "num-partitions": now.num_partitions}
    return Context(
        run_id=run_id,
        node_id=now.partition_id + 1,
        node_config={**now.attributes, **position, **(more or {})},
        state=RecordDict(),
        run_config=dict(run_config),
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
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """The value of a word on the command line: JSON, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def end(code: int, text: str) -> NoReturn:
    """End without a reply."""
    print(text.rstrip(), file=sys.stderr)
    raise SystemExit(int(code))
