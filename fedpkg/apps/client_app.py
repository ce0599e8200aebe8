"""The client's side of a message app: functions that answer messages, registered by the type of the message.

from fedpkg.apps import ClientApp, Message

app = ClientApp()

@app.train()
def train(message, context):
    ...
    return Message(content, reply_to=message)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fedpkg.apps.message import Message

if TYPE_CHECKING:
    from typing import TypeAlias

    from fedpkg.apps.context import Context

    Function: TypeAlias = Callable[[Message, Context], Message]
    Mod: TypeAlias = Callable[[Message, Context, Function], Message]

CATEGORIES = ("train", "evaluate", "query")
DEFAULT_ACTION = "default"
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class LoadClientAppError(Exception):
    """The module or object of a ClientApp cannot be imported."""


class ClientAppException(Exception):
    """A ClientApp raised an exception while it answered a message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"\nException {type(self).__name__} occurred. Message: {message}")


class WrongReply(TypeError):
    """A function of a ClientApp returned something else than a reply to its message."""


class ClientApp:
    """Functions that answer messages.

    Args:
        client_fn: The older form: a function that makes a `Client` or `NumPyClient` from the context. It excludes
            functions registered by the decorators.
        mods: Functions around each answer, the outermost first. Those of a decorator run inside these.
    """

    def __init__(self, client_fn: Callable[[Context], Any] | None = None, mods: Sequence[Mod] | None = None) -> None:
        self._functions: dict[str, Function] = {}
        self._mods = list(mods or ())
        self._lifespan: Callable[[Context], Iterator[None]] = _no_lifespan
        self._client_fn = client_fn

    def train(
        self, action: str = DEFAULT_ACTION, *, mods: Sequence[Mod] | None = None
    ) -> Callable[[_Decorated], _Decorated]:
        """Register the function that answers messages of type ``train``, or ``train.ACTION``.

        Args:
            action: The name after the dot, an identifier.
            mods: Functions around this one, the outermost first.

        Raises:
            ValueError: If the action is no identifier, or has a function.
        """
        return self._register("train", action, mods)

    def evaluate(
        self, action: str = DEFAULT_ACTION, *, mods: Sequence[Mod] | None = None
    ) -> Callable[[_Decorated], _Decorated]:
        """Register the function that answers messages of type ``evaluate``; see `train`."""
        return self._register("evaluate", action, mods)

    def query(
        self, action: str = DEFAULT_ACTION, *, mods: Sequence[Mod] | None = None
    ) -> Callable[[_Decorated], _Decorated]:
        """Register the function that answers messages of type ``query``; see `train`."""
        return self._register("query", action, mods)

    def lifespan(self) -> Callable[[_Decorated], _Decorated]:
        """Register a generator of one ``yield``: it runs around each message, its end also after an error."""

        def register(function: _Decorated) -> _Decorated:
            if self._lifespan is not _no_lifespan:
                raise ValueError("a lifespan function is registered already")
            self._lifespan = function
            return function

        return register

    @property
    def message_types(self) -> list[str]:
        """The types of the messages for which there is a function."""
        return [name.removesuffix(f".{DEFAULT_ACTION}") for name in self._functions]

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message.

        Raises:
            ValueError: If no function is registered for its type.
            WrongReply: If the function returned something else than a reply to it.
        """
        with _around(self._lifespan, context):
            reply = _wrapped(self._function(message.metadata.message_type), self._mods)(message, context)
        return checked_reply(reply, message)

    def _function(self, message_type: str) -> Function:
        if self._client_fn is not None:
            from fedpkg.apps.numpy_client import answering

            return answering(self._client_fn)
        category, _, action = message_type.partition(".")
        action = action or DEFAULT_ACTION
        found = self._functions.get(f"{category}.{action}")
        if found is None:
            there = f"it has {', '.join(self.message_types)}" if self._functions else "it has none"
            raise ValueError(
                f"No {category} function registered with name '{action}': the ClientApp has no function for messages "
                f"of type '{message_type}' ({there})"
            )
        return found

    def _register(self, category: str, action: str, mods: Sequence[Mod] | None) -> Callable[[_Decorated], _Decorated]:
        if callable(action):
            raise TypeError(f"@app.{category} needs parentheses: write @app.{category}()")
        if self._client_fn is not None:
            raise ValueError(f"@app.{category}() cannot be used in a ClientApp that was made with client_fn=")
        if not (isinstance(action, str) and action.isidentifier()):
            raise ValueError(
                f"Invalid action name {action!r}: it must be an identifier, such as {_identifier(action)!r}"
            )
        name = f"{category}.{action}"
        if name in self._functions:
            raise ValueError(f"The action '{action}' of {category} is already registered")

        def register(function: _Decorated) -> _Decorated:
            self._functions[name] = _wrapped(function, list(mods or ()))
            return function

        return register


def checked_reply(reply: object, message: Message) -> Message:
    """Raises WrongReply: ``reply`` is not a Message that answers ``message``."""
    kind = message.metadata.message_type
    expected = "Message(content=RecordDict(...), reply_to=message)"
    if not isinstance(reply, Message):
        came = "None" if reply is None else f"a {type(reply).__name__}"
        if isinstance(reply, Mapping):
            came = f"a {type(reply).__name__} with the keys {', '.join(map(repr, list(reply)[:5]))}"
        raise WrongReply(f"the function for '{kind}' returned {came}; it must return {expected}")
    if reply is message:
        raise WrongReply(f"the function for '{kind}' returned the message that it got; it must return {expected}")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise WrongReply(
            f"the function for '{kind}' returned a Message that does not answer the one it got (it answers "
            f"{reply.metadata.reply_to_message_id or 'none'!r}); it must return {expected}"
        )
    return reply


def _wrapped(function: Function, mods: Sequence[Mod]) -> Function:
    """The function inside its mods, the first of which is the outermost."""

    def around(mod: Mod, inner: Function) -> Function:
        return lambda message, context: mod(message, context, inner)

    for mod in reversed(mods):
        function = around(mod, function)
    return function


def _no_lifespan(_context: Context) -> Iterator[None]:
    yield


@contextmanager
def _around(lifespan: Callable[[Context], Iterator[None]], context: Context) -> Iterator[None]:
    running = lifespan(context)
    if not inspect.isgenerator(running):
        raise RuntimeError("the lifespan function must be a generator: it needs one 'yield'")
    if next(running, _ended) is _ended:
        raise RuntimeError("the lifespan function did not reach its 'yield'")
    try:
        yield
    finally:
        if next(running, _ended) is not _ended:
            running.close()
            raise RuntimeError("the lifespan function has more than one 'yield'")


_ended = object()


def _identifier(text: object) -> str:
    found = "".join(each if each.isalnum() else "_" for each in str(text))
    return found if found.isidentifier() else f"_{found}"
