"""App objects of an installed flwr: their messages are converted from and to those of `fedpkg.apps`.

Where flwr is installed, ``from flwr.clientapp import ClientApp`` gives its own class. Such an app runs all the same,
with its own strategies and records.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedpkg.apps.client_app import checked_reply
from fedpkg.apps.message import FIELDS, Error, Message, Metadata
from fedpkg.records import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

if TYPE_CHECKING:
    from fedpkg.apps.context import Context
    from fedpkg.apps.grid import Grid


def answer(app: Any, message: Message, context: Context) -> Message:
    """Let a ClientApp of flwr answer a message; its changes of the state are put into the context.

    Raises:
        WrongReply: If the reply is no message.
    """
    theirs = _context(context)
    reply = app(_their_message(message), theirs)
    if not isinstance(reply, _flwr().Message):
        return checked_reply(reply, message)
    context.state = _content(theirs.state)
    return checked_reply(_our_message(reply), message)


def serve(app: Any, grid: Grid, context: Context) -> None:
    """Run a ServerApp of flwr."""
    app(_grid(grid), _context(context))


def _flwr() -> Any:
    return importlib.import_module("flwr.app")


def _context(context: Context) -> Any:
    _identify(context)
    return _flwr().Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config=dict(context.node_config),
        state=_their_content(context.state),
        run_config=dict(context.run_config),
    )


def _identify(context: Context) -> None:
    """Later versions build messages only in a process that has an identity."""
    try:
        module = importlib.import_module("flwr.supercore.task_identity")
    except ImportError:
        return
    module.TaskIdentity.run_id = context.run_id
    module.TaskIdentity.node_id = context.node_id
    module.TaskIdentity.task_id = context.node_id + 1


def _grid(grid: Grid) -> Any:
    base = importlib.import_module("flwr.serverapp").Grid

    class InstalledGrid(base):  # type: ignore[misc, valid-type]
        """Passes messages on."""

        def set_run(self, run_id: int) -> None:
            grid.set_run(run_id)

        @property
        def run(self) -> Any:
            return grid.run

        def create_message(self, *args: Any, **kwargs: Any) -> Any:
            return _flwr().Message(*args, **kwargs)

        def get_node_ids(self) -> list[int]:
            return grid.get_node_ids()

        def get_nodes(self) -> list[Any]:
            return list(grid.get_nodes())

        def push_messages(self, messages: Iterable[Any]) -> list[str]:
            return grid.push_messages([_our_message(one) for one in messages])

        def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
            return [_their_message(one) for one in grid.pull_messages(message_ids)]

        def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
            sent = [_our_message(one) for one in messages]
            return [_their_message(one) for one in grid.send_and_receive(sent, timeout=timeout)]

    return InstalledGrid()


# ---------------------------------------------------------------- messages


def _their_message(message: Message) -> Any:
    flwr = _flwr()
    about = message.metadata.as_dict()
    wanted = inspect.signature(flwr.Metadata).parameters
    given = {name: about.get(name, _default(one)) for name, one in wanted.items()}
    metadata = flwr.Metadata(**given)
    if message.has_error():
        return flwr.Message(metadata=metadata, error=flwr.Error(int(message.error.code), message.error.reason))
    return flwr.Message(metadata=metadata, content=_their_content(message.content))


def _default(parameter: inspect.Parameter) -> Any:
    """The value of a field that only some versions have."""
    return 0 if parameter.default is inspect.Parameter.empty else parameter.default


def _our_message(message: Any) -> Message:
    metadata = Metadata(**{name: getattr(message.metadata, name) for name in FIELDS})
    if message.has_error():
        return Message(Error(message.error.code, message.error.reason), metadata=metadata)
    return Message(_content(message.content), metadata=metadata)


def _their_content(content: RecordDict) -> Any:
    flwr, found = _flwr(), _flwr().RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            found[name] = flwr.ArrayRecord({key: flwr.Array(array.numpy()) for key, array in record.items()})
        else:
            kind = flwr.MetricRecord if isinstance(record, MetricRecord) else flwr.ConfigRecord
            found[name] = kind(dict(record))
    return found


def _content(content: Any) -> RecordDict:
    flwr, found = _flwr(), RecordDict()
    for name, record in content.items():
        if isinstance(record, flwr.ArrayRecord):
            found[name] = ArrayRecord({key: Array(array.numpy()) for key, array in record.items()})
        else:
            found[name] = (MetricRecord if isinstance(record, flwr.MetricRecord) else ConfigRecord)(dict(record))
    return found
