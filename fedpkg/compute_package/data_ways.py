"""Detects how a package's programs read the data of their client, and expresses it as keys of a configuration.

The files are only read; no program of the package is run. The result decides where a client's data path is put, in
addition to ``FEDN_DATA_PATH``, which always has it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.script_paths import Named, Sources
from fedpkg.compute_package.unpack import UnpackedPackage
from fedpkg.fedn.callbacks import RUNNER
from fedpkg.fedn.names import (
    CLIENT_SETTINGS_FILE,
    CLIENT_SETTINGS_OPTION,
    CLIENT_SETTINGS_PATHS,
    CONTAINER_FOLDERS,
    DATA_PATHS,
    NUMBER_VARIABLES,
)
from fedpkg.formats.base import SEED_SUFFIXES
from fedpkg.waist.place import STARTUP

CLIENT_ENTRY_POINTS = ("train", "validate", "predict")
SETTINGS_FILES = ("client.yaml", CLIENT_SETTINGS_FILE, "settings.yaml")
_COMMON_LINK = ".fedpkg-client_settings.yaml"
HIGHEST = 2  # levels above the folder of fedn.yaml at which each client has its own folder: see `Place`
_OPTIONS_VARIABLE = re.compile(r"\$\{?ENTRYPOINT_OPTS\b")
_DOWNLOADS = re.compile(
    r"\bdownload\s*=\s*True|\burlretrieve\b|\burlopen\b|\brequests\.get\b|\bload_dataset\(|\bdatasets\.\w+\.load_data\b|\bwget\b|\bcurl\b"
)
_PLAIN_PATH = re.compile(r"[\w@%+,./:=-]+", re.ASCII)  # characters that bash does not change


@dataclass(frozen=True)
class Way:
    """One way in which a package's programs find the data.

    Args:
        section, name, value: The key of the configuration for it, such as ``links``, ``data``, ``.``.
        words: Its text in the line `data` of a run.
        because: The reason: what was read, and where.
    """

    section: str
    name: str
    value: str
    words: str
    because: str


@dataclass(frozen=True)
class DataWays:
    """Where a package looks for a client's data.

    Args:
        missed: Paths that it opens and that cannot be provided, each with a hint.
        prepares: Evidence that its ``startup`` makes the given data: a download, or an opened path that cannot be
            provided.
    """

    ways: Sequence[Way] = ()
    missed: Sequence[str] = ()
    prepares: str | None = None

    def section(self, name: str) -> dict[str, str]:
        return {way.name: way.value for way in self.ways if way.section == name}

    def arguments(self) -> dict[str, dict[str, str]]:
        names = (way.section.removeprefix("arguments.") for way in self.ways if way.section.startswith("arguments."))
        return {name: self.section(f"arguments.{name}") for name in names}


def data_ways(
    package: UnpackedPackage, paths: Sequence[Path], *, beside: Path | None = None, isolated: bool = False
) -> DataWays:
    """How a package reads the data of clients whose data is at ``paths``.

    Args:
        beside: the folder in which the package was found. A client_settings.yaml there is for all clients whose data
            has none.
        isolated: its tasks have their own view of the file system, in which data can be anywhere.
    """
    return _Finding(package, paths, beside=beside, isolated=isolated).found()


class _Finding:
    def __init__(self, package: UnpackedPackage, paths: Sequence[Path], *, beside: Path | None, isolated: bool) -> None:
        self._sources = Sources(package.folder)
        self._spec = package.spec
        self._highest = HIGHEST + len(package.folder.relative_to(package.root).parts)
        self._paths = paths
        common = None if beside is None else beside.absolute() / CLIENT_SETTINGS_FILE
        self._common_settings = str(common) if common is not None and common.is_file() else None
        self._isolated = isolated
        self._named = [(one, _normal(one)) for one in self._sources.named()]
        self._missed: dict[str, None] = {}

    def found(self) -> DataWays:
        ways = [*self._by_variable(), *self._by_options()]
        settings = [*self._by_settings()]
        ways = ways or [*self._by_flags("data_path", "{data_path}")]
        ways = ways or [*self._by_links()]
        if not ways and not settings and not self._missed:
            ways += [*self._in_package()]
        more = [*self._by_numbers(), *self._by_what_is_downloaded()]
        return DataWays([*ways, *settings, *more], list(self._missed), self._prepares(ways))

    def _prepares(self, ways: Sequence[Way]) -> str | None:
        startup = self._spec.entry_points.get(STARTUP)
        script = None if startup is None else script_of(startup.command)
        if script is None:
            return None
        if place := self._sources.place_of(script, _DOWNLOADS):
            return f"{place} downloads"
        if any(way.section == "links" for way in ways):
            return None
        opened = (one for one in self._named if one[0].place.rpartition(":")[0] == script)
        beside = ((one, path) for one, path in opened if path.startswith(("../", *CONTAINER_FOLDERS)))
        found = next((each for each in beside if _is_of_data(each[1].split("/"))), None)
        return None if found is None else f"{found[0].place} opens {found[1]}"

    def _by_variable(self) -> Iterator[Way]:
        for variable in DATA_PATHS:
            if not (place := self._sources.mention(variable)):
                continue
            because = f"{place} reads this variable"
            file = posixpath.basename(self._sources.default_of(variable) or "")
            if posixpath.splitext(file)[1] and all((path / file).is_file() for path in self._paths):
                value = f"{{data_path}}/{file}"
                yield Way("environment", variable, value, f"{variable}={value}", f"{because}, or {file}")
            else:
                yield Way("", variable, "{data_path}", variable, because)

    def _by_options(self) -> Iterator[Way]:
        """``$ENTRYPOINT_OPTS`` in a command."""
        entry = next((one for one in self._spec.entry_points.values() if _OPTIONS_VARIABLE.search(one.command)), None)
        if entry is None:
            return
        value = "{data_path}"
        if not all(_PLAIN_PATH.fullmatch(str(path)) for path in self._paths):  # the shell would split or expand it
            suffixes = {path.suffix for path in self._paths}
            value = f".fedpkg-data{suffixes.pop() if len(suffixes) == 1 else ''}"
            yield Way("links", value, ".", "", "the shell would split or expand the path itself")
        options = f"--data_path={value}"
        because = f"the command of '{entry.name}' has $ENTRYPOINT_OPTS"
        yield Way("environment", "ENTRYPOINT_OPTS", options, f"ENTRYPOINT_OPTS={options}", because)

    def _by_numbers(self) -> Iterator[Way]:
        """Variables with the number of a client's part of common data."""
        for variable in NUMBER_VARIABLES:
            if place := self._sources.mention(variable):
                yield Way("environment", variable, "{partition_id}", "", f"{place} reads this variable")

    def _by_what_is_downloaded(self) -> Iterator[Way]:
        """Files in the package that its scripts download if they do not exist, as in Scaleout's `prepare_data`."""
        for one in self._sources.asked_for() if self._is_imported() else ():
            path, (script, _, _) = _normal(one), one.place.partition(":")
            if self._sources.place_of(script, _DOWNLOADS) and path.split("/")[0] == "data" and path != "data":
                name = posixpath.basename(path)
                within = name if all((data / name).exists() for data in self._paths) else "."
                yield Way("links", path, within, "", f"{one.place} downloads it if it does not exist")

    def _is_imported(self) -> bool:
        words = self._spec.entry_points["train"].command.split() if "train" in self._spec.entry_points else []
        return words[2:5] == [RUNNER, "train", STARTUP]

    def _by_flags(self, option: str, value: str) -> Iterator[Way]:
        for name in CLIENT_ENTRY_POINTS:
            if name not in self._spec.entry_points:
                continue
            try:
                words = shlex.split(self._spec.entry_points[name].command)
            except ValueError:
                continue
            if found := self._sources.option(words, name, option):
                flag, place = found
                because = f"{place} takes this option from the command line"
                yield Way(f"arguments.{name}", flag, value, f"{name} --{flag}={value}", because)

    def _by_settings(self) -> Iterator[Way]:
        for name in SETTINGS_FILES:
            within = self._settings(name)
            if within is None:
                continue
            places = {
                path: one.place
                for one, path in self._named
                if posixpath.basename(path) == name and self._can_be_linked(one, path)
            }
            if not places and not self._missed and (place := self._sources.mention(name)):
                places = {name: place}
            for path, place in places.items():
                where = f"{name} beside fedn.yaml" if path == name else f"{name} as {path}"
                whose = "the common" if within.startswith("/") else "its own"
                yield Way("links", path, within, f"{whose} {where}", f"{place} opens it")
        inner = self._settings(CLIENT_SETTINGS_FILE)
        if inner is None:
            return
        is_common = inner.startswith("/")  # an isolated task sees only links of such files
        value = _COMMON_LINK if is_common else posixpath.normpath(f"{{data_path}}/{inner}")
        found = [
            Way("environment", variable, value, variable, f"{place} reads this variable")
            for variable in CLIENT_SETTINGS_PATHS
            if (place := self._sources.mention(variable))
        ]
        found += self._by_flags(CLIENT_SETTINGS_OPTION, value)
        yield from found
        if found and is_common:
            yield Way("links", _COMMON_LINK, inner, "", found[0].because)

    def _settings(self, name: str) -> str | None:
        """Where a settings file is: in each client's data, or the absolute path of one for all clients."""
        within = _in_all(self._paths, name)
        return self._common_settings if within is None and name == CLIENT_SETTINGS_FILE else within

    def _by_links(self) -> Iterator[Way]:
        """Paths outside the package that its scripts read."""
        found: dict[str, Way] = {}
        for one, path in self._named:
            if not path.startswith(("../", *CONTAINER_FOLDERS)) or posixpath.basename(path) in SETTINGS_FILES:
                continue
            whole = path if one.whole or one.path.endswith("/") else posixpath.dirname(path)
            link = self._link(whole)
            if link is not None and self._can_be_linked(one, link[0]):
                place, within = link
                found.setdefault(place, Way("links", place, within, f"as {place}", f"{one.place} opens {path}"))
        yield from found.values()

    def _can_be_linked(self, named: Named, place: str) -> bool:
        """Whether a link can be at this path; otherwise a message with a hint is added."""
        about = ""
        if place.startswith("/") and not self._isolated:
            about = (
                f"{named.place} opens {place}, which all clients would share: use --isolate, so that each finds its "
                "own data there, or change the path"
            )
        elif place.split("/").count("..") > self._highest:
            about = f"{named.place} opens {place}, which all clients would share: change the path"
        if about:
            self._missed[about] = None
        return not about

    def _link(self, path: str) -> tuple[str, str] | None:
        """The link for a script that opens ``path`` to find the clients' data; None if that does not look like data."""
        parts = [part for part in path.split("/") if part not in ("..", "")]
        if not parts or (path.endswith(SEED_SUFFIXES) and not _is_of_data(parts)):
            return None
        above = "../" * path.split("/").count("..") if path.startswith("..") else "/"
        if not all(map(Path.is_dir, self._paths)):
            is_one = {data.suffix for data in self._paths} == {posixpath.splitext(path)[1]} and _is_of_data(parts)
            is_one = is_one or all(data.name == parts[-1] for data in self._paths)
            return (above + "/".join(parts), ".") if is_one else None
        if above == "/" and len(parts) > 1:  # in /app/data/x.csv, /app itself is not data
            above, parts = f"/{parts[0]}/", parts[1:]
        if len(parts) > 1 or _is_of_data(parts):
            for number in range(1, len(parts) + 1):
                if all((data / "/".join(parts[number:])).exists() for data in self._paths):
                    return above + "/".join(parts[:number]), "."
        if all((data / "/".join(parts)).exists() for data in self._paths):
            return above + parts[0], parts[0]
        return (above + parts[0], ".") if _is_of_data(parts[:1]) else None

    def _in_package(self) -> Iterator[Way]:
        """A link beside fedn.yaml with the data's own name or, for folders, `data`."""
        named = {path: one.place for one, path in reversed(self._named)}
        named = {**{text.removeprefix("./"): place for text, place in self._sources.strings()}, **named}
        names = {path.name for path in self._paths}
        if len(names) == 1 and (name := names.pop()) in named:
            yield Way("links", name, ".", f"as {name} beside fedn.yaml", f"{named[name]} opens it")
        elif all(path.is_dir() for path in self._paths):
            opened = (place for path, place in named.items() if path.split("/")[0] == "data")
            if place := next(opened, None):
                yield Way("links", "data", ".", "as data beside fedn.yaml", f"{place} opens it")


def _normal(named: Named) -> str:
    return posixpath.normpath(named.path) if named.path else "."


def _is_of_data(parts: Sequence[str]) -> bool:
    return any("data" in part.lower() for part in parts)


def _in_all(paths: Sequence[Path], name: str) -> str | None:
    """Where every client's data has a file of that name: inside it, or ``.`` if the data is that file."""
    if all((path / name).is_file() for path in paths):
        return name
    return "." if all(path.name == name and path.is_file() for path in paths) else None
