"""Reads a package's fedn.yaml, scaleout.yaml, or a message app's pyproject.toml, strictly; errors have the line."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from fedpkg.compute_package import algorithm
from fedpkg.compute_package.app import APP_FILE, MODEL_RUNNER, RUNNER, SERVED, App, commands_of, is_app, read_app
from fedpkg.compute_package.arguments import problem_of_placeholders, problem_of_style
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

_MAX_BYTES = 64 << 10  # PyYAML needs at most a second for this size
_HIDING_LINE_END = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_SERVED = {RUNNER: SERVED, MODEL_RUNNER: SERVED, algorithm.RUNNER: algorithm.SERVED}
_YAML_LINE_END = re.compile("\r\n?|[\n\x85\u2028\u2029]")


@dataclass(frozen=True)
class EntryPoint:
    """One command of a package; ``command`` is interpreted as by ``bash -c`` after its placeholders are filled in.

    ``argument_style``: see `fedpkg.compute_package.arguments`; empty: the package does not define it.
    """

    name: str
    command: str
    argument_style: str = ""


@dataclass(frozen=True)
class PackageSpec:
    """The entry points of a package, and the file that describes its Python environment, if any.

    ``app``: the message app that the package is; its entry points are the categories of messages.
    """

    entry_points: Mapping[str, EntryPoint]
    python_env: str | None = None
    app: App | None = None

    @property
    def served(self) -> tuple[str, ...]:
        """The distributions whose modules fedpkg provides to what the commands call, an app or an algorithm."""
        commands = [one.command for one in self.entry_points.values()]
        called = [runner for runner in _SERVED if any(f" -m {runner} " in command for command in commands)]
        return tuple(dict.fromkeys(name for runner in called for name in _SERVED[runner]))

    def entry_point(self, name: str) -> EntryPoint:
        """The entry point called ``name``.

        Raises:
            SpecError: If it does not exist; the message lists those that do.
        """
        try:
            return self.entry_points[name]
        except KeyError:
            hint = f"add '{name}:' with its 'command:' to the entry_points of {SPEC_FILE}"
            if self.app is not None:
                hint = (
                    "this is a message app, which its own ServerApp runs: set strategy={name: server_app}; for another "
                    "strategy, make a package of it: fedpkg package from-app APP -o package.tar.gz"
                )
            elif name == "train" and set(SPLIT) <= self.entry_points.keys():
                hint = "for split learning, set the strategy and its labels: strategy={name: split, labels: FILE}"
            raise SpecError(
                f"the package has no entry point '{name}'{nearest(name, self.entry_points)} "
                f"(it has: {', '.join(self.entry_points)})",
                hint=hint,
                entry_point=name,
            ) from None


def spec_path(folder: Path) -> Path:
    """The path of the fedn.yaml (or scaleout.yaml) in ``folder``, or of a message app's pyproject.toml.

    If none of them exists, the path of a fedn.yaml.
    """
    found = next((path for path in (folder / name for name in SPEC_FILES) if path.exists()), None)
    return found or folder / (APP_FILE if is_app(folder) else SPEC_FILE)


def read_spec(path: Path, *, where: str | None = None) -> PackageSpec:
    """Read the ``fedn.yaml`` or a message app's pyproject.toml at ``path``, called ``where`` (or its path) in messages.

    Raises:
        SpecError: If the file is wrong; the message has the line.
    """
    where = str(path) if where is None else where
    if path.name == APP_FILE:
        app = read_app(path, where=where)
        entry_points = {name: EntryPoint(name, command) for name, command in commands_of(app.client).items()}
        return PackageSpec(entry_points, APP_FILE, app)
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
        # YAML takes these as line ends; a terminal overwrites the text before them, or does not show them.
        line = len(_YAML_LINE_END.findall(text, 0, hidden.start())) + 1
        raise _error(where, line, f"the line ends with the invisible character {hidden[0]!r}")
    file, places = read_package_yaml(text, _SpecFile, where)
    if not file.entry_points:
        raise refused(places, ("entry_points",), "'entry_points' is empty", hint="it needs at least 'train:'")
    _check_client(file, places)
    names = {written: FORMER_ENTRY_POINTS.get(written, written) for written in file.entry_points}
    for written, name in names.items():
        _check_name(written, name, file, places)
    # A block scalar (command: |) ends with a newline, which would cut off the paths that are appended later.
    _check_style(file.argument_style, (), places)
    entry_points: dict[str, EntryPoint] = {}
    for written, one in file.entry_points.items():
        style = _style(written, one, file, places)
        for name, command in _commands(names[written], written, one, file, places).items():
            if problem := problem_of_placeholders(name, command):
                raise refused(places, ("entry_points", written, "command"), f"entry point '{name}': {problem}")
            entry_points[name] = EntryPoint(name, command, style)
    if file.python_env is None:
        return PackageSpec(entry_points)
    python_env = _text(file.python_env, ("python_env",), places)
    if python_env.startswith("/") or ".." in PurePosixPath(python_env).parts:
        problem = f"'python_env' is {_quoted(python_env)}, which is outside the package"
        raise refused(places, ("python_env",), problem, hint="use a file inside the package, relative to its folder")
    return PackageSpec(entry_points, python_env)


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    argument_style: str | None = None


class _SpecFile(msgspec.Struct, forbid_unknown_fields=True):
    entry_points: dict[str, _Command | str]
    python_env: str | None = None
    argument_style: str | None = None


def _check_name(written: str, name: str, file: _SpecFile, places: Places) -> None:
    path = ("entry_points", written)
    if not is_name_of_entry_point(written):
        hint = (
            "use up to 100 letters (a to z), digits, '_', '.' and '-', and begin with a letter or '_'; the name must "
            "not be 'all', and not end in '-' and a number, or in '.reply', which are names of task folders"
        )
        raise refused(places, path, f"{_quoted(written)} cannot be the name of an entry point", hint=hint)
    if written != name and name in file.entry_points:
        problem = f"'{written}' is the former name of '{name}', which is defined too"
        raise refused(places, path, problem, hint="remove one of them")


def _commands(name: str, written: str, given: _Command | str, file: _SpecFile, places: Places) -> Mapping[str, str]:
    """The command of an entry point or, for a client with callbacks, the commands of all its callbacks."""
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
        hint = f"write {written}: {{command: python {text}}}; only Scaleout's 'startup' and 'build' can be files"
        raise refused(places, path, problem, hint=hint)
    if found is None:
        raise refused(places, path, f"entry point '{written}' is {_quoted(text)}; write {written}: {{command: …}}")
    return found


def _style(written: str, given: _Command | str, file: _SpecFile, places: Places) -> str:
    own = given.argument_style if isinstance(given, _Command) else None
    _check_style(own, ("entry_points", written), places)
    return own or file.argument_style or ""


def _check_style(style: str | None, path: tuple[str, ...], places: Places) -> None:
    if style is None:
        return
    path = (*path, "argument_style")
    if problem := problem_of_style(_text(style, path, places)):
        raise refused(places, path, f"'{'.'.join(path)}': {problem}")


def _is_of_callbacks(written: str, file: _SpecFile) -> bool:
    return written == CLIENT and "train" not in file.entry_points


def _check_client(file: _SpecFile, places: Places) -> None:
    """Refuse other entry points train, validate or predict in a package whose client has callbacks of these names."""
    for written, given in file.entry_points.items():
        if not (isinstance(given, str) and written in (CLIENT, "startup")) and not _is_of_callbacks(written, file):
            continue
        if other := next((one for one in file.entry_points if FORMER_ENTRY_POINTS.get(one, one) in CALLBACKS), None):
            problem = f"'{written}' has the callbacks {', '.join(CALLBACKS)}, but '{other}' is also an entry point"
            raise refused(places, ("entry_points", other), problem, hint="remove one of them")


def _text(value: str, path: tuple[str, ...], places: Places) -> str:
    """The text, which must not be empty or contain characters that a terminal does not show as they are."""
    what = f"'{'.'.join(path)}'"
    if not value.strip():
        raise refused(places, path, f"{what} is empty")
    for character in value:
        # A terminal or editor would display the command as something that it is not.
        if character in INVISIBLE or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"):
            named = "a NUL character" if character == "\0" else f"the invisible character {character!r}"
            raise refused(places, path, f"{what} contains {named}")
    return value


def _quoted(text: str) -> str:
    """A text for a message: on one line, shortened, and without control characters."""
    text = text if len(text) <= 80 else f"{text[:79]}…"
    return f"'{text}'" if text.isprintable() else repr(text)


def _error(where: str, line: int, problem: str, *, hint: str | None = None) -> SpecError:
    return SpecError(f"{where}, line {line}: {problem}", hint=hint, path=where, line=line)


def _too_big(where: str) -> SpecError:
    return SpecError(f"{where}: larger than {_MAX_BYTES >> 10} KiB, so this is not a {SPEC_FILE}", path=where)
