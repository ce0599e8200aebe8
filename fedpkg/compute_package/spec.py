"""What a compute package offers: its fedn.yaml, or scaleout.yaml, read strictly, with the line of every mistake."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from fedpkg.compute_package.members import INVISIBLE
from fedpkg.errors import SpecError, nearest
from fedpkg.fedn.names import FORMER_ENTRY_POINTS
from fedpkg.files import read_bounded
from fedpkg.types import SPEC_FILE, SPEC_FILES
from fedpkg.waist.place import is_name_of_entry_point

_MAX_BYTES = 64 << 10  # the worst of that size takes PyYAML a second
_MAX_NESTING = 8
_HIDING_LINE_END = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_YAML_LINE_END = re.compile("\r\n?|[\n\x85\u2028\u2029]")
_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class EntryPoint:
    """One command of a package; ``command`` means what ``bash -c`` makes of it."""

    name: str
    command: str


@dataclass(frozen=True)
class PackageSpec:
    """The entry points of a package, and the file that describes its Python environment (if it names one)."""

    entry_points: Mapping[str, EntryPoint]
    python_env: str | None = None

    def entry_point(self, name: str) -> EntryPoint:
        """The entry point called ``name``.

        Raises:
            SpecError: there is none; the message lists what exists.
        """
        try:
            return self.entry_points[name]
        except KeyError:
            raise SpecError(
                f"the package has no entry point '{name}'{nearest(name, self.entry_points)} "
                f"(it has: {', '.join(self.entry_points)})",
                hint=f"add '{name}:' with its 'command:' to the entry_points of {SPEC_FILE}",
                entry_point=name,
            ) from None


def spec_path(folder: Path) -> Path:
    """The file in ``folder`` that says what its package offers; where there is none, what it should be called."""
    return next((path for path in (folder / name for name in SPEC_FILES) if path.exists()), folder / SPEC_FILE)


def read_spec(path: Path, *, where: str | None = None) -> PackageSpec:
    """Read the ``fedn.yaml`` at ``path``, called ``where`` (or its path) in messages.

    Raises:
        SpecError: says what is wrong, and in which line.
    """
    where = str(path) if where is None else where
    try:
        data = read_bounded(path, _MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _too_big(where) from None
        raise SpecError(f"{where}: cannot be read: {error.strerror}", path=where) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(where, line, "not UTF-8 text", hint="save the file as UTF-8") from None
    return parse_spec(text, where)


def parse_spec(text: str, where: str) -> PackageSpec:
    """Parse the text of a ``fedn.yaml``; ``where`` names it in messages."""
    if len(text.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        raise _too_big(where)
    if hidden := _HIDING_LINE_END.search(text):
        # YAML goes on as with any line end; a terminal writes over what stands before it, or shows nothing.
        line = len(_YAML_LINE_END.findall(text, 0, hidden.start())) + 1
        raise _error(where, line, f"the line ends with the character {hidden[0]!r}, which is not seen")
    root = _compose(text, where)
    if root is None:
        raise _error(where, 1, "the file is empty", hint="it needs 'entry_points:' with at least 'train:'")

    top = _mapping(where, root, "the file", ("entry_points", "python_env"))
    if "entry_points" not in top:
        raise _error(where, _line(root), "the key 'entry_points' is missing")
    commands = _mapping(where, top["entry_points"], "'entry_points'", None, noun="entry point")
    if not commands:
        raise _error(where, _line(top["entry_points"]), "'entry_points' is empty", hint="it needs at least 'train:'")

    entry_points = {}
    for written, node in commands.items():
        name = FORMER_ENTRY_POINTS.get(written, written)
        place = f"entry point '{written}'"
        if written != name and name in commands:
            problem = f"'{written}' is the former name of '{name}', which is there too"
            raise _error(where, _line(node), problem, hint="remove one of them", key=written)
        if isinstance(node, yaml.ScalarNode) and node.value.endswith(".py"):
            raise _error(
                where,
                _line(node),
                f"{place} is the file '{node.value}' for Scaleout's client to import, not a command",
                hint=f"give the entry points commands, as its dispatcher client has them: {written}: "
                f"{{command: python {node.value}}}, train: {{command: python train.py}} …",
                key=written,
            )
        keys = _mapping(where, node, place, ("command",), inside=f" in {place}")
        if "command" not in keys:
            raise _error(where, _line(node), f"the key 'command' is missing in {place}", key="command")
        # A block scalar (command: |) ends with a newline, which would cut the paths off that are appended later.
        entry_points[name] = EntryPoint(name, _string(where, keys["command"], f"'command' of {place}").strip())

    python_env = None
    if "python_env" in top:
        python_env = _string(where, top["python_env"], "'python_env'")
        parts = PurePosixPath(python_env).parts
        if python_env.startswith("/") or ".." in parts:
            raise _error(
                where,
                _line(top["python_env"]),
                f"'python_env' is {_quoted(python_env)}, which is outside the package",
                hint="name a file inside the package, relative to its folder",
                key="python_env",
            )
    return PackageSpec(entry_points, python_env)


class _StrictLoader(yaml.SafeLoader):
    """Nodes without anchors, aliases, tags or deep nesting: a spec needs none, and they make YAML bombs."""

    where = ""
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        rule = None
        if isinstance(event, yaml.AliasEvent):
            rule = "aliases (*name) are not allowed"
        elif getattr(event, "anchor", None) is not None:
            rule = "anchors (&name) are not allowed"
        elif getattr(event, "tag", None) is not None:
            rule = "tags (!name) are not allowed"
        elif self._depth >= _MAX_NESTING:
            rule = f"nested deeper than {_MAX_NESTING} levels"
        if rule is not None:
            raise _error(self.where, event.start_mark.line + 1, rule, hint="write the value out")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        loader = _StrictLoader(text)  # it looks at the characters at once
        loader.where = where
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise _error(where, mark.line + 1 if mark else 1, f"not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise _error(where, line, f"not valid YAML: {error.reason}") from None


def _mapping(
    where: str, node: yaml.Node, what: str, known: tuple[str, ...] | None, *, noun: str = "key", inside: str = ""
) -> dict[str, yaml.Node]:
    """The values of a mapping by key, each there once, and known; None: each is the name of an entry point."""
    if not isinstance(node, yaml.MappingNode):
        raise _error(where, _line(node), f"{what} must be a mapping (key: value), not {_describe(node)}")
    values: dict[str, yaml.Node] = {}
    for key_node, value in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(where, line, f"a key must be text, not {_describe(key_node)}")
        key = key_node.value
        if known is None and not is_name_of_entry_point(key):
            raise _error(
                where,
                line,
                f"{_quoted(key)} cannot be the name of an entry point",
                hint="it has up to 100 letters (a to z), digits, '_', '.' and '-', and begins with a letter or '_'; it "
                "is not 'all', and does not end in '-' and a number, or in '.reply': folders of tasks are called so",
                key=key,
            )
        if known is not None and key not in known:
            raise _error(
                where,
                line,
                f"unknown {noun} {_quoted(key)}{inside}{nearest(key[:80], known)}",
                hint=f"known: {', '.join(known)}",
                key=key,
            )
        if key in values:
            raise _error(where, line, f"{noun} '{key}'{inside} is there twice", hint="remove one of them", key=key)
        values[key] = value
    return values


def _string(where: str, node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != _STRING:
        quote = isinstance(node, yaml.ScalarNode) and node.tag != _NULL
        hint = "put the value into quotes" if quote else None
        raise _error(where, _line(node), f"{what} must be a string, not {_describe(node)}", hint=hint)
    if not node.value.strip():
        raise _error(where, _line(node), f"{what} is empty")
    for character in node.value:
        # In a terminal, and on the screen of who looks at the package, it would show something else than it is.
        if character in INVISIBLE or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"):
            named = "a NUL character" if character == "\0" else f"the character {character!r}, which is not seen"
            raise _error(where, _line(node), f"{what} contains {named}")
    return str(node.value)


def _describe(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "nothing" if node.tag == _NULL else _quoted(node.value)


def _quoted(text: str) -> str:
    """For a message: on one line, not too long, and nothing that a terminal would obey."""
    text = text if len(text) <= 80 else f"{text[:79]}…"
    return f"'{text}'" if text.isprintable() else repr(text)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _error(where: str, line: int, problem: str, *, hint: str | None = None, key: str | None = None) -> SpecError:
    return SpecError(f"{where}, line {line}: {problem}", hint=hint, path=where, line=line, key=key)


def _too_big(where: str) -> SpecError:
    return SpecError(f"{where}: larger than {_MAX_BYTES >> 10} KiB, this is no {SPEC_FILE}", path=where)
