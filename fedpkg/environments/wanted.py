"""What a package requires of its Python: reads the file with the requirements strictly; errors name the line.

Only the first of these that exists is read: the file that ``python_env`` of fedn.yaml names, ``python_env.yaml``, the
inline metadata of the scripts that entry points name (PEP 723), ``requirements.txt``, ``pyproject.toml``.

A package may come from a stranger. It defines *what* is installed; the user who runs it defines *where* from. Options,
URLs, editable installs and files outside the package are therefore not allowed, and of the package's own files only
wheels are installed, as their installation runs no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from fedpkg.errors import SpecError
from fedpkg.fedn.names import SERVED
from fedpkg.files import read_bounded
from fedpkg.package_yaml import read_package_yaml, refused
from fedpkg.toml_places import NotToml, read_toml

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

ENV_FILE = "python_env.yaml"
WHEEL = ".whl"

_MAX_BYTES = 1 << 20
_MAX_FILES = 20
_MAX_LINE = 64 << 10  # with hashes; without them:
_MAX_REQUIREMENT = 1000
_MAX_VERSION = 200  # characters of the Python version
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_DIGEST = re.compile(r"sha(256|384|512):[0-9a-f]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[^\s;@]*@[^\s;:]*:")  # with a scheme, or an address of ssh
_VERSION = re.compile(r"\d+(\.\d+){0,2}")
_SCRIPT_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_RETIRED = {"sklearn": "scikit-learn"}  # names on PyPI that only refer to another one
_ELSEWHERE = (
    "the user who runs the package chooses where distributions come from: set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL "
    "(with uv: UV_DEFAULT_INDEX, UV_INDEX), or use `--env current`"
)


@dataclass(frozen=True)
class Item:
    """A requirement: versions of a distribution, or a wheel inside the package."""

    requirement: Requirement
    where: str  # the file and line of the requirement
    wheel: Path | None = None
    hashes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        from packaging.utils import canonicalize_name

        return canonicalize_name(self.requirement.name)

    def __str__(self) -> str:
        return str(self.requirement) if self.wheel is None else f"{self.requirement} ({self.wheel.name})"


@dataclass(frozen=True)
class PythonWish:
    """The required Python versions: ``text`` as written at ``where``."""

    text: str
    specifier: SpecifierSet
    where: str

    def allows(self, version: str) -> bool:
        return self.specifier.contains(version, prereleases=True)


@dataclass(frozen=True)
class Wanted:
    """The requirements of a package, read from the file ``source``."""

    source: str
    items: tuple[Item, ...] = ()
    build_items: tuple[Item, ...] = ()  # that building the others may need
    python: PythonWish | None = None


def read_wanted(
    folder: Path, *, python_env: str | None = None, scripts: Sequence[str] = (), served: Sequence[str] = ()
) -> Wanted | None:
    """The requirements of the package in ``folder``; None if it has no file with requirements.

    Args:
        python_env: the file that its fedn.yaml names.
        scripts: the files that its entry points run, relative to ``folder``.
        served: distributions that are left out, because fedpkg provides their modules.

    Raises:
        SpecError: a file is invalid; the message has its line.
    """
    wanted = _read_wanted(_Reader(folder), folder, python_env, scripts)
    if wanted is None or not served:
        return wanted
    return replace(wanted, items=tuple(item for item in wanted.items if item.name not in served))


def _read_wanted(reader: _Reader, folder: Path, python_env: str | None, scripts: Sequence[str]) -> Wanted | None:
    if python_env is not None:
        return reader.read(python_env)
    if (folder / ENV_FILE).is_file():
        return reader.read_env_file(ENV_FILE)
    if (wanted := reader.read_scripts(scripts)) is not None:
        return wanted
    if (folder / "requirements.txt").is_file():
        return reader.read_requirements("requirements.txt")
    if (folder / "pyproject.toml").is_file():
        return reader.read_pyproject("pyproject.toml")
    return None


class _EnvFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None  # not used: environments are shared, and named by a digest of their content
    python: str | None = None
    python_version: str | None = None
    build_dependencies: list[str] | None = None
    dependencies: list[str] | None = None


class _Reader:
    """Reads the files of one package; paths are relative to ``folder``, with ``/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0

    def read(self, path: str) -> Wanted:
        """Read the file that fedn.yaml names; its suffix determines the format."""
        path = self._inside(path, "", "fedn.yaml")
        if path.endswith(".toml"):
            return self.read_pyproject(path) or Wanted(path)
        return self.read_requirements(path) if path.endswith(".txt") else self.read_env_file(path)

    def read_env_file(self, path: str) -> Wanted:
        file, places = read_package_yaml(self._text(path), _EnvFile, path, verbatim=True)
        if file.python is not None and file.python_version is not None:
            problem = "'python' and 'python_version' are the same key"
            raise refused(places, ("python_version",), problem, hint="keep one")
        python, key = (
            (file.python, "python") if file.python_version is None else (file.python_version, "python_version")
        )
        wish = None if python is None else _python_wish(python, places.where((key,)))
        items = [
            tuple(
                item
                for number, one in enumerate(getattr(file, key) or ())
                for item in self._line(one, path, places.line((key, str(number))), ())
            )
            for key in ("dependencies", "build_dependencies")
        ]
        return Wanted(path, items[0], items[1], wish)

    def read_requirements(self, path: str) -> Wanted:
        return Wanted(path, tuple(self._requirements(path, ())))

    def _requirements(self, path: str, inside: tuple[str, ...]) -> Iterator[Item]:
        if path in inside:
            raise _error(inside[-1], None, f"'-r {path}' includes itself")
        text, joined, first = self._text(path), "", 0
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
            first = first if joined else number
            if line.endswith("\\") and not line.lstrip().startswith("#"):
                joined += line[:-1] + " "
                continue
            yield from self._line(joined + line, path, first, (*inside, path))
            joined = ""
        yield from self._line(joined, path, first, (*inside, path))

    def _line(self, text: str, path: str, line: int | None, inside: tuple[str, ...]) -> Iterator[Item]:
        """The requirements in one line of a list; ``inside``: the chain of requirements files that it is in."""
        text = re.sub(r"(^|\s)#.*$", "", text).strip()
        if not text:
            return
        if option := re.fullmatch(r"(?:-r\s*|--requirement(?:\s+|=))(\S.*)", text):
            target = self._inside(option[1], path, _at(path, line))
            self._files += 1
            if self._files > _MAX_FILES:
                raise _error(path, line, f"more than {_MAX_FILES} requirements files")
            yield from self._requirements(target, inside)
        elif text.startswith("-"):
            option_name = re.split(r"[\s=]", text)[0]
            raise _error(path, line, f"the option '{option_name}' is not allowed; only '-r FILE' is", hint=_ELSEWHERE)
        else:
            item = self._item(text, path, line)
            if item is not None:
                yield item

    def _item(self, text: str, path: str, line: int | None) -> Item | None:
        """One requirement; None for a URL of a distribution that the compatibility modules replace."""
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name

        hashes = tuple(_HASH.findall(text)) if len(text) <= _MAX_LINE else ()
        text = _HASH.sub("", text).strip() if hashes else text
        if "$" in text or not text.isprintable() or len(text) > _MAX_REQUIREMENT:
            raise _error(path, line, f"{text[:60]!r} is too long, or has characters that a requirement cannot have")
        if bad := [one for one in hashes if not _DIGEST.fullmatch(one)]:
            raise _error(path, line, f"'--hash={bad[0]}' is not sha256:, sha384: or sha512: followed by hex digits")
        named, _, marker = text.partition(";")
        if _is_path(named.strip()):
            return replace(self._wheel(named.strip(), marker.strip(), path, line), hashes=hashes)
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, RecursionError) as error:
            if _URL.match(text):
                egg = re.search(r"#(?:.*&)?egg=([A-Za-z0-9._-]+)", unquote(named))
                if egg and canonicalize_name(egg[1]) in SERVED:
                    return None
                problem = f"'{named.strip()}' is a URL, which is not allowed"
                raise _error(path, line, problem, hint=_ELSEWHERE) from None
            reason = (str(error).splitlines() or [""])[0] if isinstance(error, InvalidRequirement) else "nested"
            hint = "write NAME, NAME==1.2, NAME>=1.2,<2 or ./wheels/NAME-1.2-py3-none-any.whl"
            raise _error(path, line, f"'{text}' is not a requirement: {reason}", hint=hint) from error
        if requirement.url is None:
            return Item(_of_today(requirement) if not hashes else requirement, _at(path, line), hashes=hashes)
        if canonicalize_name(requirement.name) in SERVED:
            return None
        raise _error(path, line, f"'{requirement.name}' comes from a URL, which is not allowed", hint=_ELSEWHERE)

    def _wheel(self, name: str, marker: str, path: str, line: int | None) -> Item:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

        where = _at(path, line)
        if not name.endswith(WHEEL):
            hint = "only wheels are installed from a package's own files: `pip wheel --no-deps FOLDER` makes one"
            raise _error(path, line, f"'{name}' is a file or folder that is not a wheel ({WHEEL})", hint=hint)
        wheel = self._folder / self._inside(name, path, where)
        if not wheel.is_file():
            raise _error(path, line, f"'{name}' does not exist", hint="the path is relative to the file that names it")
        try:
            distribution, version, _build, _tags = parse_wheel_filename(wheel.name)
            requirement = Requirement(f"{distribution}=={version}" + (f"; {marker}" if marker else ""))
        except (InvalidWheelFilename, InvalidRequirement) as error:
            raise _error(path, line, f"'{name}': {str(error).splitlines()[0]}") from error
        return Item(requirement, where, wheel=wheel)

    def read_scripts(self, scripts: Sequence[str]) -> Wanted | None:
        """The requirements in comments ``# /// script`` (PEP 723) of all scripts together."""
        items: dict[str, Item] = {}
        wishes: list[PythonWish] = []
        sources: list[str] = []
        for script in dict.fromkeys(scripts):
            path = self._folder / script
            if not path.is_file() or path.stat().st_size > _MAX_BYTES or not path.resolve().is_relative_to(self._real):
                continue
            text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            blocks = list(_SCRIPT_BLOCK.finditer(text))
            if not blocks:
                continue
            if len(blocks) > 1:
                line = text.count("\n", 0, blocks[1].start()) + 1
                raise _error(script, line, "a second block '# /// script'", hint="keep one")
            first = text.count("\n", 0, blocks[0].start("content"))
            lines = blocks[0]["content"].splitlines()
            toml = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
            wanted = self._project(_parse_toml(toml, script, first), toml, script, first)
            items.update((f"{item} {item.hashes}", item) for item in wanted.items)
            wishes += [wanted.python] if wanted.python else []
            sources.append(script)
        if not sources:
            return None
        wish = None
        if wishes:
            text = ",".join(dict.fromkeys(wish.text for wish in wishes))
            wish = _python_wish(text, ", ".join(dict.fromkeys(wish.where for wish in wishes)))
        return Wanted(", ".join(sources), tuple(items.values()), (), wish)

    def read_pyproject(self, path: str) -> Wanted | None:
        """The requirements in ``[project]``; None if the file has no such table."""
        text = self._text(path)
        project = _parse_toml(text, path, 0).get("project")
        if project is None:
            return None
        if not isinstance(project, dict):
            raise _error(path, None, "'project' must be a table")
        if "dependencies" in project.get("dynamic", ()):
            hint = "list them under [project], or in a python_env.yaml"
            raise _error(path, _find(text, "dynamic", 0), "its dependencies are dynamic: they need a build", hint=hint)
        return self._project(project, text, path, 0)

    def _project(self, table: Mapping[str, Any], text: str, path: str, offset: int) -> Wanted:
        """``dependencies`` and ``requires-python`` of a TOML table, whose text begins after line ``offset``."""
        dependencies, python = table.get("dependencies", []), table.get("requires-python")
        if not isinstance(dependencies, list) or not all(isinstance(one, str) for one in dependencies):
            raise _error(path, _find(text, "dependencies", offset), "'dependencies' must be a list of strings")
        if python is not None and not isinstance(python, str):
            raise _error(path, _find(text, "requires-python", offset), "'requires-python' must be a string")
        wish = None if python is None else _python_wish(python, _at(path, _find(text, "requires-python", offset)))
        items = (self._item(one.strip(), path, _find(text, one, offset)) for one in dependencies if one.strip())
        return Wanted(path, tuple(item for item in items if item is not None), (), wish)

    @property
    def _real(self) -> Path:
        return self._folder.resolve()

    def _inside(self, name: str, path: str, where: str) -> str:
        """A path that is named in the file ``path``, relative to the package's folder.

        Raises:
            SpecError: it is outside the package.
        """
        name = name.strip().strip("'\"")
        inside = os.path.normpath(os.path.join(os.path.dirname(path), name))
        outside = name.startswith(("/", "~")) or _URL.match(name) or inside.split(os.sep)[0] == os.pardir
        if outside or not (self._folder / inside).resolve().is_relative_to(self._real):
            hint = "name a file inside the package, relative to the file that names it"
            raise SpecError(f"{where}: '{name}' is outside the package", hint=hint, path=where)
        return inside

    def _text(self, path: str) -> str:
        self._inside(path, "", path)  # if it is a link, checks its target
        try:
            data = read_bounded(self._folder / path, _MAX_BYTES)
        except OSError as error:
            raise _error(path, None, f"cannot be read: {error.strerror}") from error
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _error(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8 text") from None


def _of_today(requirement: Requirement) -> Requirement:
    """Replace a retired name, whose own versions (0.0) are ignored, by the current one."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    name = _RETIRED.get(requirement.name.lower())
    if name is None:
        return requirement
    today = Requirement(str(requirement))
    today.name = name
    kept = (str(one) for one in requirement.specifier if not re.match(r"0(\.0|$)", one.version))
    today.specifier = SpecifierSet(",".join(kept))
    return today


def _is_path(text: str) -> bool:
    """Whether a requirement without its marker is a path; otherwise it is a name, or has a URL."""
    return text.startswith((".", "/", "~")) or ("@" not in text and ":" not in text and ("/" in text or WHEEL in text))


def _python_wish(text: str, where: str) -> PythonWish:
    """``3.11`` and ``3.11.4`` mean any 3.11; other texts are specifiers such as ``>=3.10,<3.13``."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    plain = text.strip()
    if len(plain) > _MAX_VERSION:
        problem = f"a Python version of {len(plain)} characters; at most {_MAX_VERSION} are allowed"
        raise SpecError(f"{where}: {problem}", hint="write a version such as 3.11", path=where)
    if _VERSION.fullmatch(plain):
        return PythonWish(plain, SpecifierSet(f"=={'.'.join(plain.split('.')[:2])}.*"), where)
    try:
        return PythonWish(plain, SpecifierSet(plain), where)
    except InvalidSpecifier as error:
        hint = "write a version such as 3.11, or a range such as >=3.10,<3.13"
        raise SpecError(f"{where}: '{plain}' is not a version of Python", hint=hint, path=where) from error


def _parse_toml(text: str, path: str, offset: int) -> dict[str, Any]:
    try:
        return read_toml(text)
    except NotToml as error:
        raise _error(path, None if error.line is None else error.line + offset, error.problem) from None


def _find(text: str, words: str, offset: int) -> int | None:
    """The number of the first line that contains ``words``."""
    at = text.find(words)
    return None if at < 0 else text.count("\n", 0, at) + 1 + offset


def _at(path: str, line: int | None) -> str:
    return path if line is None else f"{path}, line {line}"


def _error(path: str, line: int | None, problem: str, *, hint: str | None = None) -> SpecError:
    return SpecError(f"{_at(path, line)}: {problem}", hint=hint, path=path, line=line)
