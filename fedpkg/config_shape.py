"""Checks a tree of plain values against a msgspec schema, and finds the line of each value for the messages."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from msgspec import inspect

from fedpkg.errors import ConfigError, nearest
from fedpkg.shown import shown

COMMAND_LINE = 0  # in place of a line number


class Places:
    """Where keys were set: on a line of a file (``source`` or a further one) or on the command line."""

    def __init__(self, source: str, lines: Mapping[tuple[str, ...], int] | None = None) -> None:
        self.source = source
        self._lines = dict(lines or {})
        self._sources: dict[tuple[str, ...], str] = {}  # of keys that another file than ``source`` set

    def override(self, path: tuple[str, ...], value: Any) -> None:
        """Record that the command line set ``path``: a mapping is merged key by key, any other value replaces."""
        if isinstance(value, dict) and value:
            for key, part in value.items():
                self.override((*path, key), part)
        else:
            self.forget(path)
            self._lines[path] = COMMAND_LINE

    def merge_file(
        self, source: str, tree: Any, lines: Mapping[tuple[str, ...], int], section: tuple[str, ...]
    ) -> None:
        """Record that a further file set the values in ``tree``, merged key by key into ``section``."""

        def record(path: tuple[str, ...], value: Any) -> None:
            at = (*section, *path)
            if not isinstance(value, dict):
                self.forget(at)
            if path in lines:
                self._lines[at], self._sources[at] = lines[path], source
            for key, part in value.items() if isinstance(value, dict) else ():
                record((*path, key), part)
            for number, part in enumerate(value) if isinstance(value, list) else ():
                record((*path, str(number)), part)

        record((), tree)

    def forget(self, path: tuple[str, ...]) -> None:
        """Remove what is recorded of ``path`` and of all keys in it."""
        for below in [known for known in self._lines if known[: len(path)] == path]:
            del self._lines[below]
            self._sources.pop(below, None)

    def _known(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """The key whose record counts for ``path``.

        If it has none, that of a key in it (the command line set only this key of the section) or else that of the
        section around it (interpolation).
        """
        if path not in self._lines:
            below = [known for known in self._lines if path and known[: len(path)] == path]
            if below:
                return min(below, key=lambda known: self._lines[known])
        return next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self._lines), None)

    def line(self, path: tuple[str, ...]) -> int | None:
        """The line of ``path`` in its file; `COMMAND_LINE` if the command line set it."""
        known = self._known(path)
        return None if known is None else self._lines[known]

    def source_of(self, path: tuple[str, ...]) -> str:
        """The file that set ``path``."""
        known = self._known(path)
        return self.source if known is None else self._sources.get(known, self.source)

    def where(self, path: tuple[str, ...]) -> str:
        """For messages: ``run.yaml, line 7``."""
        line = self.line(path)
        if line is None:
            return self.source
        return "on the command line" if line == COMMAND_LINE else f"{self.source_of(path)}, line {line}"

    def origin(self, path: tuple[str, ...]) -> str:
        """For tables: ``run.yaml:7``."""
        line = self.line(path)
        if line is None:
            return "default"
        return "command line" if line == COMMAND_LINE else f"{self.source_of(path)}:{line}"


def check_shape(tree: Any, schema: type, places: Places, path: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for the first unknown key, missing key, wrong type or bound, at any depth below ``path``."""
    _check(tree, type_of(schema), path, places)


@functools.lru_cache(maxsize=1024)
def type_of(schema: type) -> inspect.Type:
    """A schema as `msgspec.inspect` describes it (which takes 10 ms for that of a run.yaml)."""
    return inspect.type_info(schema)


def options_of(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The types of a union, or the one type, without their metadata."""
    kind = _bare(kind)
    return tuple(map(_bare, kind.types)) if isinstance(kind, inspect.UnionType) else (kind,)


def _bare(kind: inspect.Type) -> inspect.Type:
    return _bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _check(value: Any, kind: inspect.Type, path: tuple[str, ...], places: Places) -> None:
    kinds = options_of(kind)
    for option in kinds:
        if isinstance(value, dict) and isinstance(option, inspect.StructType):
            return _check_section(value, option, path, places)
        if isinstance(value, dict) and isinstance(option, inspect.DictType):
            for key, part in value.items():
                _check(part, option.value_type, (*path, key), places)
            return None
        if isinstance(value, list) and isinstance(option, inspect.ListType):
            for number, part in enumerate(value):
                _check(part, option.item_type, (*path, str(number)), places)
            return None
        if _fits(value, option):
            return None
    words = [str(word) for option in kinds if isinstance(option, inspect.LiteralType) for word in option.values]
    raise wrong_value(
        path,
        value,
        " or ".join(describe_kind(option) for option in kinds),
        places,
        hint_after=nearest(value, words) if isinstance(value, str) else "",
    )


def _check_section(value: dict[str, Any], kind: inspect.StructType, path: tuple[str, ...], places: Places) -> None:
    fields = {field.encode_name: field for field in kind.fields}
    section = f" in '{'.'.join(path)}'" if path else ""
    for key in value:
        if key not in fields:
            words = shown(key if len(key) <= 80 else f"{key[:79]}…")
            raise ConfigError(
                f"{places.where((*path, key))}: unknown key '{words}'{section}{nearest(words, fields)}",
                hint=f"known keys here: {', '.join(fields)}",
                key=".".join((*path, key)),
            )
    for key, field in fields.items():
        if key in value:
            _check(value[key], field.type, (*path, key), places)
        elif field.required:
            raise ConfigError(
                f"{places.where(path)}: missing key '{key}'{section}",
                hint=f"add '{key}:' with {describe_kind(field.type)}, or "
                f"{'.'.join((*path, key))}=… on the command line",
                key=".".join((*path, key)),
            )


def describe(kind: Any) -> str:
    """The allowed values of a type, in words."""
    return describe_kind(inspect.type_info(kind))


def wrong_value(
    path: tuple[str, ...], value: Any, allowed: str, places: Places, *, hint_after: str = ""
) -> ConfigError:
    """The error for a value that is not allowed; all such messages have the same form."""
    key = ".".join(path)
    place, hint = path, None
    if isinstance(value, str) and key in ("strategy", "sampler", "executor"):
        hint = f"write {key}: {{name: {value}}}, or {key}.name={value} on the command line"
    if key in ("clients.data.form", "form"):
        hint = "clients get arrays, also of tables; clients.folders gives each client files of any format"
    if isinstance(value, dict):  # perhaps it is a section only because the command line set a key in it
        place = next(((*path, name) for name in value if places.line((*path, name)) == COMMAND_LINE), path)
        if list(value.values()) == [None]:  # YAML reads {client_id} without quotes as a section
            quoted = f"'{{{next(iter(value))}}}'"
            hint = f'quote it: "{key}={quoted}"' if places.line(place) == COMMAND_LINE else f"quote it: {quoted}"
    return ConfigError(
        f"{places.where(place)}: '{key}' must be {allowed}, found {_found(value)}{hint_after}"
        if path
        else f"{places.source}: must be {allowed}, found {_found(value)}",
        hint=hint,
        key=key,
    )


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool) and _is_within(value, kind)
    if isinstance(kind, inspect.FloatType):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_within(value, kind)
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str)
    if isinstance(kind, inspect.NoneType):
        return value is None
    return isinstance(kind, inspect.AnyType)


def _is_within(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    """Within the type's bounds; a number with any bound must be finite."""
    bounds = [bound for bound in (kind.gt, kind.ge, kind.lt, kind.le) if bound is not None]
    return (
        not (bounds and math.isinf(value))
        and (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.lt is None or value < kind.lt)
        and (kind.le is None or value <= kind.le)
    )


def describe_kind(kind: inspect.Type) -> str:
    """The allowed values of a type, in words."""
    kind = _bare(kind)
    if isinstance(kind, (inspect.IntType, inspect.FloatType)):
        bounds = [
            f"{word} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for word, bound in (("above", kind.gt), ("from", kind.ge), ("below", kind.lt), ("at most", kind.le))
            if bound is not None
        ]
        return " ".join(
            ["a whole number" if isinstance(kind, inspect.IntType) else "a number", ", ".join(bounds)]
        ).strip()
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"'{value}'" for value in kind.values)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(describe_kind(option) for option in kind.types)
    if isinstance(kind, inspect.ListType):
        return f"a list of {describe_kind(kind.item_type)}"
    names: dict[type, str] = {
        inspect.BoolType: "true or false",
        inspect.StrType: "text",
        inspect.NoneType: "null",
        inspect.AnyType: "anything",
    }
    return names.get(type(kind), "a section of 'key: value' lines")


def _found(value: Any) -> str:
    if isinstance(value, str):
        return f"text '{value if len(value) <= 80 else value[:79] + '…'}'"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"a section with {', '.join(map(str, value))}" if value else "an empty section"
    return "a list" if isinstance(value, list) else str(value)
