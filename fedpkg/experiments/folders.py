"""The files of an experiment: its root, its groups of options, and the search path that it shares with others."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config_reading import EXPERIMENT, MAX_FILE_BYTES, is_environment, is_section
from fedpkg.errors import ConfigError, nearest
from fedpkg.fedn.names import SPEC_FILES
from fedpkg.files import read_bounded
from fedpkg.session.app_run import is_app_folder
from fedpkg.yaml_places import KeyPath, read_yaml

if TYPE_CHECKING:
    from fedpkg.types import Json

ROOTS = (EXPERIMENT, "run.yaml")
SEARCH_PATH_VARIABLE = "FEDPKG_SEARCH_PATH"
SUFFIX = ".yaml"
MAX_DEPTH = 4  # of groups in groups
_HEADER = re.compile(r"#\s*@(\S*)\s*(.*)")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*)")
# Groups of this name had files for several sections before there was a section `data`. A header can still name it.
_DATA = "data"


@dataclass(frozen=True)
class OptionFile:
    """One file of an experiment.

    Args:
        path: Where it lies.
        tree: Its keys and values, without ``defaults`` and ``search_path``.
        lines: The line of each key.
        defaults: The list ``defaults``; None if there is none.
        package: The section that its keys belong to, as ``# @package`` says it or as follows from its group; None: the
            group's own path, as in hydra.
    """

    path: Path
    tree: dict[str, Json]
    lines: Mapping[KeyPath, int]
    defaults: list[Any] | None
    package: str | None

    def place(self, *path: str) -> str:
        """For messages: the file, and the line of a key."""
        for end in range(len(path), 0, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return f"{self.path}, line {line}"
        return str(self.path)


class ExperimentFolder:
    """A root file and the folders in which its groups are looked up: its own, then those of the search path."""

    def __init__(self, what: Path | str, search_path: Sequence[Path | str] = ()) -> None:
        """Find and read the root.

        Args:
            what: A folder with an experiment.yaml (or else a run.yaml), or such a file.
            search_path: Further folders, after those in the root's ``search_path``. Then come those of the variable
                FEDPKG_SEARCH_PATH.

        Raises:
            ConfigError: There is no root, it cannot be read, or a folder of the search path does not exist.
        """
        self.root_path = root_of(Path(what))
        self.own = self.root_path.parent
        self._read: dict[str, OptionFile | None] = {}
        text = _text_of(self.root_path)
        tree, lines = _tree_of(text, self.root_path)
        self.folders = [self.own, *self._search_path(tree, lines), *_given_folders(search_path)]
        self.root = _option_file(self.root_path, text, tree, lines, group="")
        self._read[self.root_path.stem] = self.root

    @property
    def root_name(self) -> str:
        """The root's name without its suffix, as hydra calls it."""
        return self.root_path.stem

    def file(self, name: str) -> OptionFile | None:
        """The file ``method/scaffold`` (without its suffix) from the first folder that has it.

        Raises:
            ConfigError: The file cannot be read.
        """
        if name not in self._read:
            path = next((path for path in self._paths(name + SUFFIX) if path.is_file()), None)
            self._read[name] = None if path is None else read_option(path, group=name.rpartition("/")[0])
        return self._read[name]

    def has_group(self, group: str) -> bool:
        """Whether a folder has this group."""
        return bool(self.options(group)) if group else False

    def options(self, group: str) -> list[str]:
        """The names of the options in a group."""
        return sorted({name for path in self._paths(group) for name in _options_in(path)})

    @functools.cached_property
    def groups(self) -> list[str]:
        """The groups with at least one option."""
        return sorted({group for folder in self.folders for group in _groups_in(folder, "")})

    def looked_in(self, group: str = "") -> str:
        """For messages: the folders in which a group, or an option of it, was looked up."""
        return ", ".join(str(folder / group) for folder in self.folders)

    def found(self, value: str) -> str | None:
        """A file of the search path that a relative path means, when the folder of its own file has none."""
        return next((str(path) for path in self._paths(value, own=False) if path.exists()), None)

    def _paths(self, name: str, *, own: bool = True) -> Iterator[Path]:
        parts = name.split("/") if name else []
        if all(parts) and ".." not in parts and "\0" not in name and not name.startswith("/"):
            yield from (folder / name for folder in self.folders[not own :])

    def _search_path(self, tree: dict[str, Any], lines: Mapping[KeyPath, int]) -> Iterator[Path]:
        given = tree.get("search_path") or []
        place = f"{self.root_path}, line {lines.get(('search_path',), 1)}"
        if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
            raise ConfigError(
                f"{place}: 'search_path' must be a list of folders",
                hint="for example search_path: [../shared]",
                key="search_path",
            )
        for one in given:
            yield _folder(self.own / os.path.expanduser(one), place)


def root_of(what: Path) -> Path:
    """The root file of an experiment. Raises ConfigError if there is none."""
    if what.is_dir():
        found = next((what / name for name in ROOTS if (what / name).is_file()), None)
        if found is None:
            raise ConfigError(
                f"{what}: the folder has neither {ROOTS[0]} nor {ROOTS[1]}",
                hint=f"fedpkg init {shlex.quote(str(what))} writes a run.yaml for this message app"
                if is_app_folder(what)
                else f"an experiment is a folder with an {ROOTS[0]} that has a `defaults:` list; its groups of options "
                "are the folders beside it",
            )
        return found
    if not what.is_file():
        near = nearest(what.name, [path.name for path in what.parent.iterdir()] if what.parent.is_dir() else [])
        raise ConfigError(f"{what}: there is no such experiment{near}", hint="give the folder of an experiment.yaml")
    return what


def read_option(path: Path, *, group: str) -> OptionFile:
    """Read one file of a group.

    Raises:
        ConfigError: It cannot be read, is no mapping, or its header or its list ``defaults`` is malformed.
    """
    text = _text_of(path)
    tree, lines = _tree_of(text, path)
    if "search_path" in tree:
        raise ConfigError(
            f"{path}, line {lines.get(('search_path',), 1)}: only the root of an experiment can have 'search_path'",
            key="search_path",
        )
    return _option_file(path, text, tree, lines, group=group)


def _option_file(
    path: Path, text: str, tree: dict[str, Any], lines: Mapping[KeyPath, int], *, group: str
) -> OptionFile:
    defaults = tree.pop("defaults", None) if "defaults" in tree else None
    if defaults is None and ("defaults",) in lines:
        defaults = []
    tree.pop("search_path", None)
    package = _package_of(text, path)
    if package is None and (group == _DATA or not is_section(tuple(group.split("/")))):
        package = "_global_"  # the keys of a run.yaml as they are
    one = OptionFile(path, tree, lines, defaults, package)
    if defaults is not None:
        _check_defaults(one, defaults)
    return one


def _text_of(path: Path) -> str:
    try:
        return read_bounded(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error


def _tree_of(text: str, path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    tree, lines = read_yaml(text, source=str(path), verbatim=is_environment)
    if tree is None:
        tree = {}  # an option may change nothing
    if not isinstance(tree, dict):
        kind = "a list" if isinstance(tree, list) else "one value"
        raise ConfigError(
            f"{path}: expected 'key: value' lines, found {kind}",
            hint="a file of a group has keys of a run.yaml, such as `strategy: {name: fedavg}`",
        )
    return tree, lines


def _package_of(text: str, path: Path) -> str | None:
    """The section that ``# @package NAME`` in the first lines of a file names."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            return None
        if (found := _HEADER.fullmatch(stripped)) is None:
            continue
        key, value = found[1], found[2].strip()
        if key != "package" or not re.fullmatch(r"(_global_|_group_)?\.?[A-Za-z0-9_.-]*", value) or not value:
            raise ConfigError(
                f"{path}, line {number}: '{stripped}' is not a header that is known",
                hint="write `# @package SECTION` (for example arguments.train), or `# @package _global_`",
                line=number,
            )
        return value
    return None


def _check_defaults(one: OptionFile, defaults: Any) -> None:
    hint = "for example defaults: [data: iid, method: fedavg, _self_]"
    if not isinstance(defaults, list):
        raise ConfigError(f"{one.place('defaults')}: 'defaults' must be a list", hint=hint, key="defaults")
    seen_self = False
    for number, item in enumerate(defaults):
        place = one.place("defaults", str(number))
        if isinstance(item, str) and item:
            if item == "_self_" and seen_self:
                raise ConfigError(f"{place}: '_self_' stands twice in 'defaults'", key="defaults")
            seen_self = seen_self or item == "_self_"
        elif isinstance(item, dict) and len(item) == 1:
            value = next(iter(item.values()))
            names = value if isinstance(value, list) else [value]
            if value is not None and not all(isinstance(name, str) and name for name in names):
                group = next(iter(item))
                raise ConfigError(
                    f"{place}: the option of '{group}' must be the name of a file without {SUFFIX}, found {value!r}",
                    hint="quote a name that reads as a number; null chooses no option",
                    key="defaults",
                )
        else:
            raise ConfigError(f"{place}: each item of 'defaults' is one GROUP: OPTION, or a file", hint=hint)


def _given_folders(search_path: Sequence[Path | str]) -> Iterator[Path]:
    for one in search_path:
        yield _folder(Path(os.path.expanduser(one)), "the search path")
    for text in os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep):
        if text:
            yield _folder(Path(os.path.expanduser(text)), f"the variable {SEARCH_PATH_VARIABLE}")


def _folder(path: Path, place: str) -> Path:
    if not path.is_dir():
        raise ConfigError(f"{place}: the folder {path} does not exist", hint="a search path has folders with groups")
    return Path(os.path.normpath(path))


def _options_in(folder: Path) -> Iterator[str]:
    if folder.is_dir() and not any((folder / spec).is_file() for spec in SPEC_FILES):  # a compute package is no group
        for path in folder.iterdir():
            if path.suffix == SUFFIX and _NAME.fullmatch(path.stem) and path.is_file():
                yield path.stem


def _groups_in(folder: Path, name: str) -> Iterator[str]:
    """Folders with .yaml files, and those in them."""
    if name and any(True for _ in _options_in(folder)):
        yield name
    if name.count("/") < MAX_DEPTH:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir() and _NAME.fullmatch(path.name) and path.name != "__pycache__":
                yield from _groups_in(path, f"{name}/{path.name}" if name else path.name)
