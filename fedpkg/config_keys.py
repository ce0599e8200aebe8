"""The keys of a run.yaml, explained: for ``fedpkg config explain``, the documentation, completion, and editors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import inspect

from fedpkg.config import RunConfig
from fedpkg.config_shape import describe_kind, options_of
from fedpkg.config_topology import TopologyConfig
from fedpkg.errors import ConfigError, nearest

# Sections whose keys a registry defines, and the commands that explain them.
_BY_NAME = {
    "strategy": "`fedpkg strategy list` and `fedpkg strategy show NAME` explain them",
    "sampler": "`fedpkg sampler list` and `fedpkg sampler show NAME` explain them",
    "clients.data.dataset": "`fedpkg data list` and `fedpkg data explain NAME` explain them",
    "clients.data.partition": "`fedpkg data list` and `fedpkg data explain NAME` explain them",
}
# Sections whose values stay plain, as they contain sections of a registry or themselves; their schemas.
_PLAIN = {"topology": TopologyConfig}
_SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Key:
    """One key of a run.yaml.

    Args:
        name: Its name with its sections: ``round.required``.
        allowed: The allowed values, in words.
        default: The default as JSON; for a section, the defaults of its keys.
        kind: The type, for programs.
        keys: The keys of a section; empty for other keys.
    """

    name: str
    about: str
    allowed: str
    is_required: bool
    default: Any
    kind: inspect.Type
    examples: tuple[Any, ...] = ()
    keys: tuple[Key, ...] = field(default=())

    @property
    def leaves(self) -> Iterator[Key]:
        """The keys in a section and in its sections, or the key itself."""
        if not self.keys:
            yield self
        for key in self.keys:
            yield from key.leaves


def run_keys() -> tuple[Key, ...]:
    """All keys of a run.yaml, in the order of the schema."""
    return _keys(inspect.type_info(RunConfig), "")


def all_keys() -> Iterator[Key]:
    """Sections and keys, each section before its keys."""
    pending = list(run_keys())
    while pending:
        key = pending.pop(0)
        yield key
        pending[:0] = key.keys


def find_key(name: str) -> Key:
    """A key or section by its name. Raises ConfigError if it does not exist."""
    known = {key.name: key for key in all_keys()}
    if name not in known:
        if section := next((each for each in _BY_NAME if name.startswith(f"{each}.")), None):
            raise ConfigError(f"the keys of '{section}' depend on {section}.name", hint=_BY_NAME[section])
        near = nearest(name, known) or nearest(name.rpartition(".")[2], known)
        raise ConfigError(f"a run.yaml has no key '{name}'{near}", hint="`fedpkg config explain` lists all keys")
    return known[name]


def json_schema() -> dict[str, Any]:
    """A JSON Schema of run.yaml files, with which editors complete and check them."""
    (schema, *plain), defined = msgspec.json.schema_components(
        [RunConfig, *_PLAIN.values()], ref_template="#/$defs/{name}"
    )
    sections = defined["RunConfig"]["properties"]
    for name, ref in zip(_PLAIN, plain, strict=True):
        sections[name]["anyOf"] = [ref if one == {"type": "object"} else one for one in sections[name]["anyOf"]]
    return {"$schema": _SCHEMA_URI, "title": "fedpkg run.yaml", **schema, "$defs": defined}


def _keys(kind: inspect.Type, section: str) -> tuple[Key, ...]:
    assert isinstance(kind, inspect.StructType)
    return tuple(_key(each, section) for each in kind.fields)


def _key(each: inspect.Field, section: str) -> Key:
    name = f"{section}{each.encode_name}"
    told = each.type.extra_json_schema or {} if isinstance(each.type, inspect.Metadata) else {}
    inner = next((one for one in options_of(each.type) if isinstance(one, inspect.StructType)), None)
    if name in _PLAIN:
        inner = inspect.type_info(_PLAIN[name])  # type: ignore[assignment]
    default = each.default if each.default is not msgspec.NODEFAULT else None
    if each.default_factory is not msgspec.NODEFAULT:
        default = each.default_factory()
    return Key(
        name,
        about=told.get("description", ""),
        allowed=describe_kind(each.type),
        is_required=each.required,
        default=msgspec.to_builtins(default),
        kind=each.type,
        examples=tuple(told.get("examples", ())),
        keys=() if inner is None else _keys(inner, f"{name}."),
    )
