"""A run without a run.yaml: its configuration is derived from the way in which the package's files read the data."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpkg.compute_package.data_ways import DataWays, Way, data_ways
from fedpkg.compute_package.trust import gate
from fedpkg.compute_package.unpack import UnpackedPackage, open_package
from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.config_reading import LoadedConfig, config_of
from fedpkg.errors import ConfigError
from fedpkg.fedn.callbacks import SPLIT
from fedpkg.fedn.names import DATA_PATHS, LABELS_PATH
from fedpkg.session.app_run import AppOptions, is_app_folder, loaded_app, of_the_run
from fedpkg.session.configuration import resolved

DEFAULT_ROUNDS = 5  # as in FEDn's sessions
DEFAULT_CLIENTS = 2  # for a package without data


def run_of_package(
    package: Path,
    overrides: Sequence[str],
    *,
    cache: Path,
    clients: int | None = None,
    rounds: int | None = None,
    data: str | None = None,
    seed_model: Path | None = None,
    beside: Path | None = None,
) -> tuple[RunConfig, DataWays]:
    """The configuration of a run of this package, and the ways in which its clients get their data.

    Args:
        overrides: ``key.sub=value``, as on the command line; of a message app see `fedpkg.session.app_run`.
        beside: the folder in which the package was found; None: that of ``package``.

    Raises:
        ConfigError: an override is wrong.
        PackageError: the package cannot be used, or is not allowed; then it is not read either.
        DataError: the pattern ``data`` matches nothing that could be clients' data.
    """
    if is_app_folder(package):
        if seed_model is not None:
            raise ConfigError("--seed-model: the ServerApp of a message app makes its own model")
        options = AppOptions(nodes=clients, rounds=rounds, data=data)
        return load_app(package, overrides, options, cache=cache).config, DataWays()
    unpacked, isolated = _opened(package, overrides, cache)
    tree: dict[str, Any] = {
        "package": str(package),
        "name": session_name(package),
        "rounds": DEFAULT_ROUNDS if rounds is None else rounds,
        "clients": {"count": clients or DEFAULT_CLIENTS},
    }
    if seed_model is not None:
        tree["seed_model"] = str(seed_model)
    ways = DataWays()
    if data is not None:
        paths = _paths(data, clients, cache)
        ways = data_ways(unpacked, paths, beside=beside or package.absolute().parent, isolated=isolated)
        tree["clients"] = {"folders": data, **({} if clients is None else {"count": clients})}
        tree |= _keys(ways, tree["clients"])
        if not any(word.startswith(("strategy=", "strategy.name=")) for word in overrides):
            tree |= _of_split(unpacked, paths)
    config = config_of(tree, overrides, resolve=resolved)
    is_skipped = tree.get("startup") == "skip" == config.startup
    return config, DataWays(_as_configured(config, ways), ways.missed, ways.prepares if is_skipped else None)


def load_app(package: Path, words: Sequence[str], options: AppOptions, *, cache: Path) -> LoadedConfig:
    """The configuration of a run of a message app, a folder or an archive; see `fedpkg.session.app_run`.

    Raises:
        ConfigError, PackageError: see `run_of_package`.
    """
    unpacked, _isolated = _opened(package, of_the_run(words), cache)
    app = unpacked.spec.app
    if app is None:
        hint = f"fedpkg run --package {shlex.quote(str(package))}"
        raise ConfigError(f"{package} is a compute package with a fedn.yaml, and not a message app", hint=hint)
    return loaded_app(package, app, unpacked, words, options, name=session_name(Path("/", app.name)))


def _opened(package: Path, overrides: Sequence[str], cache: Path) -> tuple[UnpackedPackage, bool]:
    """The package, if it is allowed, and whether its tasks are isolated."""
    first = [word for word in overrides if word.startswith(("trust", "limits", "isolate"))]
    asked = config_of({"package": str(package), "rounds": 1, "clients": {"count": 1}}, first)
    admit = gate(package, asked.trust.allow, signature=asked.trust.signature)
    return open_package(package, cache, asked.limits, admit=admit), asked.isolate.enabled


def _keys(ways: DataWays, clients: dict[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that give clients their data in these ways."""
    skip = {"startup": "skip"} if ways.ways and ways.prepares is not None else {}
    return {
        "clients": {**clients, "links": ways.section("links")},
        "environment": ways.section("environment"),
        "arguments": ways.arguments(),
        **skip,
    }


def _of_split(package: UnpackedPackage, paths: Sequence[Path]) -> dict[str, Any]:
    """The strategy of a package that only has split learning, if its labels are found: in FEDn's variable for them,
    or as labels.pt or labels.npz above the data of all clients.
    """
    names = package.spec.entry_points.keys()
    if "train" in names or not set(SPLIT) <= names:
        return {}
    above = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    beside = (str(above / name) for name in ("labels.pt", "labels.npz") if (above / name).is_file())
    labels = os.environ.get(LABELS_PATH) or next(beside, None)
    return {} if labels is None else {"strategy": {"name": "split", "labels": labels}}


def _as_configured(config: RunConfig, ways: DataWays) -> list[Way]:
    """The ways in which clients of a run find their data; the user's own settings take precedence."""
    given: dict[str, dict[str, Any]] = {"environment": config.environment, "links": config.clients.links}
    given.update({f"arguments.{name}": arguments for name, arguments in config.arguments.items()})
    result = []
    for way in ways.ways:
        value = given.get(way.section or "environment", {}).get(way.name, "" if way.section else way.value)
        if value == way.value:
            result.append(way)
    known = {(way.section or "environment", way.name) for way in result}
    for section, values in given.items():
        for name, value in values.items():
            is_of_data = section == "links" or name in DATA_PATHS or "{data_path}" in str(value)
            if is_of_data and (section, name) not in known:
                words = {"links": f"as {name}", "environment": f"{name}={value}"}
                said = words.get(section, f"{section.removeprefix('arguments.')} --{name}={value}")
                result.append(Way(section, name, str(value), f"{said} (as given)", "set on the command line"))
    return result


def ways_of_clients(
    package: UnpackedPackage,
    pattern: str,
    count: int | None = None,
    *,
    cache: Path,
    beside: Path | None = None,
    isolated: bool = False,
) -> DataWays:
    """The ways in which a package reads the data of the clients that a pattern matches.

    Raises:
        DataError: it matches nothing that could be clients' data.
    """
    return data_ways(package, _paths(pattern, count, cache), beside=beside, isolated=isolated)


def _paths(pattern: str, count: int | None, cache: Path) -> list[Path]:
    from fedpkg.data.clients import prepare_clients  # here: it imports NumPy

    found = prepare_clients(ClientsConfig(count=count, folders=pattern), cache=cache, seed=0)
    return [client.path for client in found if client.path is not None]


def call_ways(
    package: Path, data_path: Path | None, *, cache: Path, allow: Sequence[str] | None = None, isolated: bool = False
) -> DataWays:
    """The ways in which a package reads the data of one client, for a call by hand; none without data.

    Raises:
        PackageError: the package cannot be used, or is not allowed.
    """
    if data_path is None:
        return DataWays()
    unpacked = open_package(package, cache, admit=gate(package, allow))
    return data_ways(unpacked, [data_path], beside=package.absolute().parent, isolated=isolated)


def session_name(package: Path) -> str:
    """A package's name, or its parent folder's if the name is generic (all of FEDn's packages are called client)."""
    name = package.resolve().name
    for suffix in (".gz", ".bz2", ".xz", ".tgz", ".tar"):
        name = name.removesuffix(suffix)
    if name in ("client", "package", ""):
        name = package.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "session"
