"""Answers in the form of FEDn's API client, for `fedpkg.APIClient` with the address of a server."""

from __future__ import annotations

import inspect
import json
from typing import Any

from fedpkg.api.asking import Text, question
from fedpkg.api.opening import Opened
from fedpkg.api_answers import Answers
from fedpkg.api_reading import ReadingClient
from fedpkg.errors import ConfigError, NotFound, ServerOnly, nearest

MOST_ROWS = 20_000  # that one answer reads: its form has no way to send a list bit by bit
_FILES = ("download_model", "download_package", "get_client_config")  # these give files
METHODS = frozenset(
    name for name, one in inspect.getmembers(ReadingClient, inspect.isfunction) if name[0] != "_" and name not in _FILES
)
# The beginnings of the names of methods that read all rows of a table.
_ROWS = {
    "validations": ("get_validation", "list_validation"),
    "tasks": ("get_status", "list_status", "get_event"),
    "rounds": ("get_round", "list_round"),
}


class _OfHome(ReadingClient):
    """The reading methods on a home that is open for reading; nothing is created."""

    def __init__(self, at: Opened) -> None:
        self.home = at.home
        self._num_clients, self._data, self._changes = None, None, {}
        self._answers = Answers(at.home, at.running)
        self._uploads = self._answers.uploads


@question
def fedn_answer(at: Opened, method: Text, *, args: Text = "[]", kwargs: Text = "{}") -> Any:
    """What a method of FEDn's API client returns for this home; see docs/reference/fedn-api.md.

    Args:
        method: the name of a method that reads, such as `get_models`.
        args: its arguments by position, as a JSON array.
        kwargs: its arguments by name, as a JSON object.

    Raises:
        NotFound: there is no such method.
        ConfigError: the arguments do not fit, or the answer would be too long.
    """
    if method not in METHODS:
        raise NotFound(f"there is no method {method!r:.100}{nearest(method, METHODS)}")
    given, named = _json(args, list, "args"), _json(kwargs, dict, "kwargs")
    for table, beginnings in _ROWS.items():
        if method.startswith(beginnings) and (number := at.overview.count_all(table)) > MOST_ROWS:
            raise ConfigError(
                f"{method} would read {number} rows, and one answer reads at most {MOST_ROWS}",
                hint="/api/v1/sessions/<session>/validations and tasks send lists of any length",
                key="method",
            )
    try:
        answer = getattr(_OfHome(at), method)(*given, **named)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError, ServerOnly) as error:
        raise ConfigError(f"{method} cannot take these arguments: {at.told(str(error)):.300}", key="kwargs") from error
    if isinstance(answer, dict) and isinstance(answer.get("message"), str):
        answer = {**answer, "message": at.told(answer["message"])}
    return at.without_paths(answer)


def _json(text: str, kind: type, name: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {error}", key=name) from error
    if not isinstance(found, kind):
        raise ConfigError(f"{name} must be a JSON {'array' if kind is list else 'object'}", key=name)
    return found
