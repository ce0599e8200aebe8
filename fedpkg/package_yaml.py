"""Reads a small YAML file of a package, which may be untrusted: strictly, and checked against a schema."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from fedpkg.config_shape import Places, check_shape
from fedpkg.errors import ConfigError, SpecError
from fedpkg.yaml_places import read_yaml

_Schema = TypeVar("_Schema", bound=msgspec.Struct)


def read_package_yaml(
    text: str, schema: type[_Schema], where: str, *, verbatim: bool = False
) -> tuple[_Schema, Places]:
    """The content of a file, which messages call ``where``, and the place of each key.

    Args:
        verbatim: Scalars stay text as written: ``1.10`` is ``"1.10"``.

    Raises:
        SpecError: If it is not YAML, or does not match the schema; the message has the line.
    """
    places = Places(where)
    try:
        tree, lines = read_yaml(text, source=where, verbatim=lambda _path: verbatim, plain=True)
        if tree is None:
            raise ConfigError(f"{where}, line 1: the file is empty", line=1)
        places = Places(where, lines)
        check_shape(tree, schema, places)
    except ConfigError as error:
        key: str | None = error.fields.get("key")
        line = error.fields.get("line") or (places.line(tuple(key.split("."))) if key else None)
        raise SpecError(error.message, hint=error.hint, path=where, line=line, key=key) from error
    return msgspec.convert(tree, schema), places


def refused(places: Places, path: tuple[str, ...], problem: str, *, hint: str | None = None) -> SpecError:
    """The error for a rule about the key at ``path`` that a schema cannot express."""
    fields: dict[str, Any] = {"path": places.source, "line": places.line(path), "key": ".".join(path)}
    return SpecError(f"{places.where(path)}: {problem}", hint=hint, **fields)
