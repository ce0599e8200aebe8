"""Parses YAML text into plain JSON values, and remembers the line of every key.

Scalars follow YAML 1.2: only ``true`` and ``false`` are booleans (``on``, ``no`` and dates stay text), ``1e-3`` is a
number, ``1:30`` and ``010`` are text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import yaml

from fedpkg.errors import ConfigError
from fedpkg.types import Json

KeyPath: TypeAlias = tuple[str, ...]

MAX_NESTING, MAX_PLAIN_NESTING = 30, 8
MAX_TREE_NESTING = 500  # with the combiners of a tree, each of which is an item of a list `children`
_DEEP_CALLS = 6000  # that OmegaConf needs for so many levels, with some to spare
MAX_VALUES = 100_000  # of one document; an alias counts as all the values that it repeats
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - a class attribute, declared as PyYAML does
    source = ""
    max_nesting, max_tree_nesting = MAX_NESTING, MAX_TREE_NESTING
    _depth = _of_trees = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        has_combiners = isinstance(index, yaml.ScalarNode) and index.value == "children"
        if self._depth >= self.max_tree_nesting or self._depth - self._of_trees >= self.max_nesting:
            is_tree = self._of_trees > 0 and self.max_tree_nesting > self.max_nesting
            most = self.max_tree_nesting if is_tree else self.max_nesting
            hint = f"a tree may have about {most // 2 - 10} levels of combiners" if is_tree else "use fewer levels"
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise self.refused(f"nested too deeply (more than {most} levels)", event, hint)
        if self._depth == MAX_NESTING:
            allow_deep_calls()
        self._depth, self._of_trees = self._depth + 1, self._of_trees + 2 * has_combiners
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth, self._of_trees = self._depth - 1, self._of_trees - 2 * has_combiners
        return node

    def refused(self, problem: str, event: Any, hint: str) -> ConfigError:
        line = event.start_mark.line + 1
        return ConfigError(f"{self.source}, line {line}: {problem}", hint=hint, line=line)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _INT.pattern, list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


class _PlainLoader(_Loader):
    """For untrusted files: refuses anchors, aliases and tags (which can expand without limit) and deep nesting.

    ``<<`` is an ordinary key.
    """

    yaml_implicit_resolvers = {key: found for key, found in _Loader.yaml_implicit_resolvers.items() if key != "<"}  # noqa: RUF012
    max_nesting = max_tree_nesting = MAX_PLAIN_NESTING

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise self.refused("anchors, aliases and tags (&, *, !) are not allowed", event, "write the value in full")
        return super().compose_node(parent, index)


def allow_deep_calls() -> None:
    """Raise Python's limit for nested calls, so that deep trees can be read. It stays: other threads may need it."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEP_CALLS))


def _int(text: str) -> int:
    number = int(text.replace("_", ""), 0)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("does not fit in 64 bits")
    return number


def _float(text: str) -> float:
    text = text.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: Mapping[str, Callable[[str], Json]] = {
    _TAG + "str": str,
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _int,
    _TAG + "float": _float,
}


def read_yaml(
    text: str, *, source: str, verbatim: Callable[[KeyPath], bool] = lambda path: False, plain: bool = False
) -> tuple[Json, dict[KeyPath, int]]:
    """Return the value of one YAML document, and the line (from 1) of every key and list item in it.

    Keys are text as written. Where ``verbatim(path)`` is true, so are scalar values: ``1.10`` stays ``"1.10"``.
    ``plain``: the text may be untrusted; anchors, aliases, tags and deep nesting are refused.

    Raises:
        ConfigError: If it is not YAML, or has a duplicate key, a value that contains itself, or an unsupported tag.
    """
    try:
        loader = (_PlainLoader if plain else _Loader)(text)
        try:
            loader.source = source
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}" if mark else source
        raise ConfigError(
            f"{place}: not valid YAML: {error.problem or error.context}",
            hint="check the indentation, colons and quotes on this line and the one before",
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise ConfigError(f"{source}, line {line}: not valid YAML: {error.reason}", line=line) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    lines: dict[KeyPath, int] = {}
    if node is None:
        return None, lines
    return _Reader(source, verbatim, lines).value(node, (), ()), lines


class _Reader:
    """Converts nodes to values. ``inside`` has the containers around a node: an alias to one of them would not end."""

    def __init__(self, source: str, verbatim: Callable[[KeyPath], bool], lines: dict[KeyPath, int]) -> None:
        self.source = source
        self.verbatim = verbatim
        self.lines = lines
        self.num_values = 0

    def value(self, node: yaml.Node, path: KeyPath, inside: tuple[yaml.Node, ...]) -> Json:
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            error = self.error(node, f"more than {MAX_VALUES} values, counting what aliases (*) repeat")
            error.hint = "a long list of entities can be a CSV file (clients.entities), which is read much faster"
            raise error
        if any(node is outer for outer in inside):
            raise self.error(node, f"'{'.'.join(path)}' contains itself through an alias (*)")
        if len(inside) >= MAX_NESTING:
            self.check_nesting(node, path, len(inside))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path, (*inside, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for i, item in enumerate(node.value):
                item_path = (*path, str(i))
                self.lines[item_path] = item.start_mark.line + 1
            return [self.value(item, (*path, str(i)), (*inside, node)) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            raise self.error(node, f"the tag {node.tag.replace(_TAG, '!!')} is not supported")
        if self.verbatim(path) and node.tag != _TAG + "null":
            return str(node.value)
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError as error:
            text = node.value if len(node.value) <= 60 else f"{node.value[:59]}…"
            if node.tag == _TAG + "int" and _INT.fullmatch(node.value):
                raise self.error(
                    node, f"{text} does not fit in 64 bits; if it is meant as text, put it in quotes"
                ) from error
            raise self.error(node, f"{text!r} is not of type {node.tag.replace(_TAG, '!!')}") from error

    def mapping(self, node: yaml.MappingNode, path: KeyPath, inside: tuple[yaml.Node, ...]) -> dict[str, Json]:
        merged: dict[str, Json] = {}
        own: dict[str, yaml.Node] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for other in reversed(sources):  # the first of several has priority
                    part = self.value(other, path, inside)
                    if not isinstance(part, dict):
                        raise self.error(key_node, "'<<' needs a mapping, or a list of mappings")
                    merged.update(part)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, "a key must be plain text")
            key = str(key_node.value)
            if key in own:
                raise self.error(key_node, f"duplicate key '{key}' (first on line {first_line[key]})")
            own[key], first_line[key] = value_node, line
        for key, value_node in own.items():
            key_path = (*path, key)
            self.lines[key_path] = first_line[key]
            merged[key] = self.value(value_node, key_path, inside)
        return merged

    def check_nesting(self, node: yaml.Node, path: KeyPath, levels: int) -> None:
        """Raises ConfigError: too many levels. An alias may have more of them than its text."""
        of_trees = 2 * path.count("children")
        if levels >= MAX_TREE_NESTING or levels - of_trees >= MAX_NESTING:
            most = MAX_TREE_NESTING if of_trees else MAX_NESTING
            raise self.error(node, f"nested too deeply (more than {most} levels)")
        allow_deep_calls()

    def error(self, node: yaml.Node, problem: str) -> ConfigError:
        line = node.start_mark.line + 1
        return ConfigError(f"{self.source}, line {line}: {problem}", line=line)
