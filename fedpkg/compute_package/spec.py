"""What a compute package offers: its fedn.yaml, or scaleout.yaml, read strictly, with the line of every mistake."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from fedpkg.compute_package.members import INVISIBLE
from fedpkg.config_shape import Places
from fedpkg.errors import SpecError, nearest
from fedpkg.fedn.callbacks import (
    CALLBACKS,
    CLIENT,
    SPLIT,
    command_of_split,
    commands_of_client,
    commands_of_import,
)
from fedpkg.fedn.names import FORMER_ENTRY_POINTS, SPEC_FILE, SPEC_FILES
from fedpkg.files import read_bounded
from fedpkg.package_yaml import read_package_yaml, refused
from fedpkg.waist.place import is_name_of_entry_point

_MAX_BYTES = 64 << 10  # the worst of that size takes PyYAML a second
_HIDING_LINE_END = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_YAML_LINE_END = re.compile("\r\n?|[\n\x85\u2028\u2029]")


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
            hint = f"add '{name}:' with its 'command:' to the entry_points of {SPEC_FILE}"
            if name == "train" and set(SPLIT) <= self.entry_points.keys():
                hint = "for split learning, name the strategy and its labels: strategy={name: split, labels: FILE}"
            raise SpecError(
                f"the package has no entry point '{name}'{nearest(name, self.entry_points)} "
                f"(it has: {', '.join(self.entry_points)})",
                hint=hint,
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
    file, places = read_package_yaml(text, _SpecFile, where)
    if not file.entry_points:
        raise refused(places, ("entry_points",), "'entry_points' is empty", hint="it needs at least 'train:'")
    _check_client(file, places)
    names = {written: FORMER_ENTRY_POINTS.get(written, written) for written in file.entry_points}
    for written, name in names.items():
        _check_name(written, name, file, places)
    # A block scalar (command: |) ends with a newline, which would cut the paths off that are appended later.
    commands: dict[str, str] = {}
    for written, one in file.entry_points.items():
        commands.update(_commands(names[written], written, one, file, places))
    entry_points = {name: EntryPoint(name, command) for name, command in commands.items()}
    if file.python_env is None:
        return PackageSpec(entry_points)
    python_env = _text(file.python_env, ("python_env",), places)
    if python_env.startswith("/") or ".." in PurePosixPath(python_env).parts:
        problem = f"'python_env' is {_quoted(python_env)}, which is outside the package"
        raise refused(places, ("python_env",), problem, hint="name a file inside the package, relative to its folder")
    return PackageSpec(entry_points, python_env)


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    command: str


class _SpecFile(msgspec.Struct, forbid_unknown_fields=True):
    entry_points: dict[str, _Command | str]
    python_env: str | None = None


def _check_name(written: str, name: str, file: _SpecFile, places: Places) -> None:
    path = ("entry_points", written)
    if not is_name_of_entry_point(written):
        hint = (
            "it has up to 100 letters (a to z), digits, '_', '.' and '-', and begins with a letter or '_'; it is not "
            "'all', and does not end in '-' and a number, or in '.reply': folders of tasks are called so"
        )
        raise refused(places, path, f"{_quoted(written)} cannot be the name of an entry point", hint=hint)
    if written != name and name in file.entry_points:
        problem = f"'{written}' is the former name of '{name}', which is there too"
        raise refused(places, path, problem, hint="remove one of them")


def _commands(name: str, written: str, given: _Command | str, file: _SpecFile, places: Places) -> Mapping[str, str]:
    """The command of an entry point; of a client with callbacks, those of all its callbacks."""
    path = ("entry_points", written)
    if isinstance(given, _Command):
        command = _text(given.command, (*path, "command"), places).strip()
        of_callbacks = commands_of_client(command) if _is_of_callbacks(written, file) else None
        if name in SPLIT and set(SPLIT) <= file.entry_points.keys():
            command = command_of_split(name, command)
        return of_callbacks or {name: command}
    text = _text(given, path, places).strip()
    found = commands_of_client(text) if written == CLIENT else commands_of_import(written, text)
    if found is None and text.endswith(".py"):
        problem = f"entry point '{written}' is the file {_quoted(text)}, not a command"
        hint = f"write {written}: {{command: python {text}}}; only 'startup' and 'build' of Scaleout are files"
        raise refused(places, path, problem, hint=hint)
    if found is None:
        raise refused(places, path, f"entry point '{written}' is {_quoted(text)}; write {written}: {{command: …}}")
    return found


def _is_of_callbacks(written: str, file: _SpecFile) -> bool:
    return written == CLIENT and "train" not in file.entry_points


def _check_client(file: _SpecFile, places: Places) -> None:
    """Callbacks are the entry points train, validate and predict, which nothing else can be then."""
    for written, given in file.entry_points.items():
        if not (isinstance(given, str) and written in (CLIENT, "startup")) and not _is_of_callbacks(written, file):
            continue
        if other := next((one for one in file.entry_points if FORMER_ENTRY_POINTS.get(one, one) in CALLBACKS), None):
            problem = f"'{written}' has the callbacks of {', '.join(CALLBACKS)}, and there is '{other}' too"
            raise refused(places, ("entry_points", other), problem, hint="remove one of them")


def _text(value: str, path: tuple[str, ...], places: Places) -> str:
    """Text that is not empty, and that a terminal shows as it is."""
    what = f"'{'.'.join(path)}'"
    if not value.strip():
        raise refused(places, path, f"{what} is empty")
    for character in value:
        # In a terminal, and on the screen of who looks at the package, it would show something else than it is.
        if character in INVISIBLE or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"):
            named = "a NUL character" if character == "\0" else f"the character {character!r}, which is not seen"
            raise refused(places, path, f"{what} contains {named}")
    return value


def _quoted(text: str) -> str:
    """For a message: on one line, not too long, and nothing that a terminal would obey."""
    text = text if len(text) <= 80 else f"{text[:79]}…"
    return f"'{text}'" if text.isprintable() else repr(text)


def _error(where: str, line: int, problem: str, *, hint: str | None = None) -> SpecError:
    return SpecError(f"{where}, line {line}: {problem}", hint=hint, path=where, line=line)


def _too_big(where: str) -> SpecError:
    return SpecError(f"{where}: larger than {_MAX_BYTES >> 10} KiB, this is no {SPEC_FILE}", path=where)
