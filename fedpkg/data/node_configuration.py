"""What a node is, from its configuration: databases, environment, policy. Files of every version of vantage6 are read.

A field may be absent; one that is wrong is an error, with its place. Fields that mean something for a network only (the
address of a server, the encryption of its messages) are checked, and then named once as not used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from fedpkg.analytics.databases import KINDS, is_url, is_windows_path
from fedpkg.analytics.node import Database
from fedpkg.analytics.policy import policy_of
from fedpkg.data.entities import Secret
from fedpkg.errors import ConfigError, DataError, nearest
from fedpkg.small_files import SmallFile
from fedpkg.yaml_places import KeyPath, read_yaml

SUFFIXES = (".yaml", ".yml")
_BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xls": "excel"}
_BY_SUFFIX |= {".db": "sql", ".sqlite": "sql", ".sqlite3": "sql"}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("FEDN_", "FEDPKG_")  # variables that tasks get from the runner
_OPTIONS = ("query", "sheet_name", "separator", "encoding", "decimal", "preprocessing")
_OF_A_DATABASE = ("label", "uri", "type", "env", *_OPTIONS)
_PASSED_OVER = ("name", "mount_mode", "volumePath", "originalName", "is_file", "is_dir")  # also known
_USED = ("databases", "policies", "algorithm_env", "allowed_images", "share_algorithm_logs", "api_key")
_OF_A_SERVER = ("jwt_secret_key", "allow_drop_all", "token_expires_hours", "smtp", "rabbitmq")


@dataclass(frozen=True)
class NodeConfiguration:
    """A node.

    Args:
        databases: By label; paths are absolute.
        environment: Variables for its algorithms.
        policy: Plain values, which `fedpkg.analytics.policy.policy_of` accepts.
        share_logs: Whether the researcher sees what an algorithm prints, and the texts of its exceptions.
        ignored: Keys of the file that are not used.
    """

    path: Path
    databases: Mapping[str, Database] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    api_key: Secret | None = None
    share_logs: bool = True
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServerConfiguration:
    """Of a server's configuration, what means something without a server."""

    path: Path
    description: str = ""
    log_level: str | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Federation:
    """The files of a folder: nodes by organization, and the server's configuration, if there is one."""

    nodes: Mapping[str, NodeConfiguration]
    server: ServerConfiguration | None = None

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys of all files that are not used, each once."""
        keys = [key for one in self.nodes.values() for key in one.ignored]
        return tuple(dict.fromkeys([*keys, *(self.server.ignored if self.server else ())]))


def kind_of(uri: str) -> str:
    """The type of a database whose configuration names none."""
    if is_url(uri):
        return "sql"
    suffix = Path(uri).suffix.lower()
    is_folder = not suffix if is_windows_path(uri) else os.path.isdir(uri)
    return "folder" if is_folder else _BY_SUFFIX.get(suffix, "csv")


# ---------------------------------------------------------------- a folder of files


def read_federation(
    folder: Path,
    organizations: Sequence[str],
    *,
    api_keys: Mapping[str, Secret] | None = None,
) -> Federation:
    """The configurations in a folder: of a node by its organization's name, or by the API key that its entity has.

    A single file is the configuration of all nodes. Organizations without a file have no configuration.

    Raises:
        ConfigError: a file is wrong, belongs to no organization, or two belong to one.
    """
    if folder.is_file():
        return Federation(dict.fromkeys(organizations, read_node_configuration(folder)))
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise ConfigError(
            f"{folder}: there is no configuration of a node",
            hint="a folder with one .yaml file for each organization, named after it",
        )
    found: dict[str, NodeConfiguration] = {}
    server = None
    for path in paths:
        file = _read(path)
        if _is_server(file):
            server = _server_in(file)
            continue
        node = _node_in(file)
        name = _owner(node, organizations, api_keys or {})
        if name is None:
            raise ConfigError(
                f"{path}: no organization has this name or this API key{nearest(path.stem, organizations)}",
                hint=f"name the file after its organization: {', '.join(organizations[:8])}",
            )
        if name in found:
            raise ConfigError(f"{path}: {found[name].path} is the configuration of {name} already")
        found[name] = node
    return Federation(found, server)


def _owner(node: NodeConfiguration, organizations: Iterable[str], keys: Mapping[str, Secret]) -> str | None:
    if node.api_key is not None:
        for name, key in keys.items():
            if key.is_same(node.api_key):
                return name
    return next((name for name in organizations if plain_name(name) == plain_name(node.path.stem)), None)


def plain_name(name: str) -> str:
    """A name without what file names write differently: case, and any signs between letters and digits."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _is_server(file: _File) -> bool:
    if plain_name(file.path.stem) in ("server", "v6server"):
        return True
    parts = [file.tree, *_environments(file.tree).values()] if isinstance(file.tree, Mapping) else []
    return any(isinstance(one, Mapping) and any(key in one for key in _OF_A_SERVER) for one in parts)


# ---------------------------------------------------------------- one file


@dataclass(frozen=True)
class _File:
    path: Path
    tree: Any
    lines: Mapping[KeyPath, int]

    def wrong(self, at: KeyPath, what: str, hint: str | None = None) -> NoReturn:
        line = self.lines.get(at)
        place = f"{self.path}, line {line}" if line else str(self.path)
        name = ".".join(at)
        raise ConfigError(f"{place}: {f'{name!r}: ' if name else ''}{what}", hint=hint, key=name)


def _read(path: Path) -> _File:
    try:
        text = SmallFile.read(path, "the configuration of a node", "see docs/reference/node-configuration.md").text
    except DataError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    tree, lines = read_yaml(text, source=str(path))
    return _File(path, tree, lines)


def read_node_configuration(path: Path) -> NodeConfiguration:
    """A node, from a file with ``application`` and ``environments``, a flat one, or one with ``node``.

    It is ``application``, as by default in production, or else the only one of ``environments`` that is not empty.

    Raises:
        ConfigError: a value is wrong, in whatever environment it is.
    """
    return _node_in(_read(path))


def _node_in(file: _File) -> NodeConfiguration:
    parts = _parts(file, "databases", "policies", "algorithm_env")
    nodes = {name: _node(file, at, tree) for name, (at, tree) in parts.items()}  # all are checked
    chosen = _chosen(file, parts)
    others = (".".join(at) for name, (at, tree) in parts.items() if tree and name != chosen)
    return replace(nodes[chosen], ignored=(*nodes[chosen].ignored, *others))


def read_server_configuration(path: Path) -> ServerConfiguration:
    """A server's configuration (v6server.yaml). Raises ConfigError: its logging is wrong."""
    return _server_in(_read(path))


def _server_in(file: _File) -> ServerConfiguration:
    parts = _parts(file, "uri", "logging", "description")
    at, tree = parts[_chosen(file, parts)]
    logging = tree.get("logging")
    if logging is not None:
        _check_logging(file, (*at, "logging"), logging)
    level = logging.get("level") if isinstance(logging, Mapping) else None
    used = ("description", "logging")
    return ServerConfiguration(
        file.path,
        str(tree.get("description") or ""),
        None if level is None else str(level).upper(),
        tuple(key for key in tree if key not in used),
    )


def _environments(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    found = tree.get("environments")
    return {"application": tree.get("application"), **(found if isinstance(found, Mapping) else {})}


def _parts(file: _File, *keys: str) -> dict[str, tuple[KeyPath, Mapping[str, Any]]]:
    """The configurations in a file, by name: ``""`` for a flat one."""
    tree = file.tree
    if not isinstance(tree, Mapping):
        file.wrong((), f"expected keys and values, found {tree!r:.60}")
    if not ("application" in tree or "environments" in tree):
        at: KeyPath = ()
        if "node" in tree:  # version 5
            if outside := next((key for key in keys if key in tree), None):
                file.wrong((outside,), "it is outside of 'node'", "move it into 'node'")
            at, tree = ("node",), tree["node"]
        return {"": (at, _mapping(file, at, tree))}
    for key in tree:
        if key not in ("application", "environments"):
            file.wrong((key,), "it is neither in 'application' nor in one of 'environments'", "move it into one")
    parts: dict[str, tuple[KeyPath, Mapping[str, Any]]] = {}
    if tree.get("application") is not None:
        parts["application"] = (("application",), _mapping(file, ("application",), tree["application"]))
    environments = tree.get("environments")
    for name, one in ({} if environments is None else _mapping(file, ("environments",), environments)).items():
        at = ("environments", name)
        parts[name] = (at, {} if one is None else _mapping(file, at, one))
    return parts


def _chosen(file: _File, parts: Mapping[str, tuple[KeyPath, Mapping[str, Any]]]) -> str:
    if parts.get("application", ((), {}))[1]:
        return "application"
    full = [name for name, (_, tree) in parts.items() if tree] or list(parts)[:1]
    if not full:
        file.wrong((), "it has no configuration", "write 'databases' and the like at the top, or into 'application'")
    if len(full) > 1:
        file.wrong(("environments",), f"it has several environments: {', '.join(full)}", "leave only one in the file")
    return full[0]


def _node(file: _File, at: KeyPath, tree: Mapping[str, Any]) -> NodeConfiguration:
    read = _Fields(file, at)
    tree = {{"apiKey": "api_key"}.get(key, key): value for key, value in tree.items()}
    for key, value in tree.items():
        if key in _CHECKS:
            _CHECKS[key](file, (*at, key), value)
        elif key not in (*_USED, *_OF_A_NETWORK):
            if near := nearest(key, _USED):
                file.wrong((*at, key), f"there is no such key{near}")
            if key in _RULES:
                file.wrong((*at, key), "it is a rule of 'policies'", "write it below 'policies:'")
    databases, variables = read.databases(tree.get("databases"))
    api_key = tree.get("api_key")
    if api_key is not None and (not isinstance(api_key, (str, int)) or isinstance(api_key, bool) or api_key == ""):
        file.wrong((*at, "api_key"), "it must be a text")
    shares = tree.get("share_algorithm_logs", True)
    if not isinstance(shares, bool):
        file.wrong((*at, "share_algorithm_logs"), f"expected true or false, found {shares!r:.60}")
    return NodeConfiguration(
        file.path,
        databases,
        {**read.variables((*at, "algorithm_env"), tree.get("algorithm_env")), **variables},
        read.policy(tree.get("policies"), tree.get("allowed_images")),
        None if api_key is None else Secret(str(api_key)),
        shares,
        tuple(key for key in tree if key not in _USED and tree[key] is not None),
    )


class _Fields:
    """The fields of a node that are used."""

    def __init__(self, file: _File, at: KeyPath) -> None:
        self.file = file
        self.at = at

    def databases(self, given: Any) -> tuple[dict[str, Database], dict[str, str]]:
        """Databases by label, and the variables of their ``env``."""
        at = (*self.at, "databases")
        rows: list[tuple[KeyPath, str | None, Any]] = []
        if isinstance(given, Mapping) and any(key in given for key in ("fileBased", "serviceBased")):
            for key, inner in given.items():
                if key not in ("fileBased", "serviceBased"):
                    self.file.wrong((*at, key), "expected fileBased or serviceBased")
                rows += [((*at, key, str(n)), None, one) for n, one in enumerate(_list(self.file, (*at, key), inner))]
        elif isinstance(given, Mapping):
            rows = [((*at, label), label, one) for label, one in given.items()]
        elif given is not None:
            rows = [((*at, str(number)), None, one) for number, one in enumerate(_list(self.file, at, given))]
        found: dict[str, Database] = {}
        variables: dict[str, str] = {}
        for place, label, one in rows:
            database, env = self.database(place, label, one)
            if any(other.upper() == database.label.upper() for other in found):
                self.file.wrong(place, f"there are two databases {database.label!r}")
            found[database.label] = database
            variables |= env
        return found, variables

    def database(self, at: KeyPath, key: str | None, given: Any) -> tuple[Database, dict[str, str]]:
        if key is not None and isinstance(given, str):
            given = {"uri": given}
        row = dict(_mapping(self.file, at, given))
        label = row.get("label", row.get("name")) if key is None else key
        if not isinstance(label, str) or not label:
            self.file.wrong(at, "a database needs a label", "databases: [{label: default, uri: data.csv, type: csv}]")
        if isinstance(options := row.pop("options", None), Mapping):
            row = {**options, **row}
        for name in row:
            if name not in (*_OF_A_DATABASE, *_PASSED_OVER):
                self.file.wrong((*at, name), f"a database has no such key{nearest(name, _OF_A_DATABASE)}")
        uri, kind = row.get("uri"), row.get("type")
        if not isinstance(uri, str) or not uri.strip():
            self.file.wrong(at, f"the database {label!r} has no uri", "its path, or the URL of an SQL database")
        if row.get("mount_mode") not in (None, "copy", "ro"):
            self.file.wrong((*at, "mount_mode"), f"expected copy or ro, found {row['mount_mode']!r:.60}")
        if not (is_url(uri) or is_windows_path(uri)):
            uri = os.path.abspath(self.file.path.parent / os.path.expanduser(uri))
        if kind is not None and kind != "other":
            known = (*KINDS, "omop", "sparql")
            if not isinstance(kind, str) or kind.lower() not in known:
                near = nearest(str(kind), known)
                self.file.wrong((*at, "type"), f"unknown type {kind!r:.60}{near}", f"types: {', '.join(KINDS)}")
        env = {
            f"{label.upper()}_DB_PARAM_{name.upper()}": value
            for name, value in self.variables((*at, "env"), row.get("env")).items()
        }
        options = {name: row[name] for name in _OPTIONS if row.get(name) is not None}
        for name, value in options.items():
            if not isinstance(value, str) and name != "preprocessing" and not (name == "sheet_name" and _is_int(value)):
                self.file.wrong((*at, name), f"expected a text, found {value!r:.60}")
        kind = kind_of(uri) if kind in (None, "other") else str(kind).lower()
        return Database(label, uri, kind, options), env

    def variables(self, at: KeyPath, given: Any) -> dict[str, str]:
        found = {}
        for name, value in ({} if given is None else _mapping(self.file, at, given)).items():
            if not _VARIABLE.fullmatch(name):
                self.file.wrong((*at, name), "it is not a name of an environment variable")
            if name.startswith(_OURS):
                self.file.wrong((*at, name), "the runner sets the variables of this name itself")
            if not isinstance(value, (str, int, float, bool)):
                self.file.wrong((*at, name), "expected one value")
            found[name] = str(value)
        return found

    def policy(self, given: Any, images: Any) -> dict[str, Any]:
        at = (*self.at, "policies")
        policy = {} if given is None else dict(_mapping(self.file, at, given))
        if images is not None:  # of versions 1 and 2
            more = _list(self.file, (*self.at, "allowed_images"), images)
            own = policy.get("allowed_algorithms")
            policy["allowed_algorithms"] = [*(own if isinstance(own, list) else []), *more]
        line = self.file.lines.get(at)
        policy_of(policy, f"{self.file.path}{f', line {line}' if line else ''}: policies")
        return policy


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(file: _File, at: KeyPath, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        file.wrong(at, f"expected keys and values, found {value!r:.60}")
    return value


def _list(file: _File, at: KeyPath, value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        file.wrong(at, f"expected a list, found {value!r:.60}")
    return value


# ---------------------------------------------------------------- fields that are checked and not used


def _check_text(file: _File, at: KeyPath, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        file.wrong(at, f"expected a text, found {value!r:.60}")


def _check_port(file: _File, at: KeyPath, value: Any) -> None:
    """A number, also as a text."""
    is_number = _is_int(value) or (isinstance(value, str) and value.isdecimal())
    if value is not None and not (is_number and 0 <= int(value) < 1 << 16):
        file.wrong(at, f"expected a port, found {value!r:.60}")


def _check_logging(file: _File, at: KeyPath, value: Any) -> None:
    if value is None:
        return
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "level": (lambda one: str(one).upper() in (*_LEVELS, "NOTSET", "WARN"), f"one of {', '.join(_LEVELS)}"),
        "use_console": (lambda one: isinstance(one, bool), "true or false"),
        "backup_count": (lambda one: _is_int(one) and one > 0, "a whole number above 0"),
        "max_size": (lambda one: _is_int(one) and one > 16, "a size above 16 kB"),
        **dict.fromkeys(("file", "format", "datefmt"), (lambda one: isinstance(one, str), "a text")),
    }
    for key, one in _mapping(file, at, value).items():
        if key in checks and one is not None and not checks[key][0](one):
            file.wrong((*at, key), f"expected {checks[key][1]}, found {one!r:.60}")


def _check_encryption(file: _File, at: KeyPath, value: Any) -> None:
    if value is None:
        return
    inner = _mapping(file, at, value)
    if not isinstance(inner.get("enabled", False), (bool, type(None))):
        file.wrong((*at, "enabled"), f"expected true or false, found {inner['enabled']!r:.60}")
    _check_text(file, (*at, "private_key"), inner.get("private_key"))


_CHECKS: Mapping[str, Callable[[_File, KeyPath, Any], None]] = {
    **dict.fromkeys(("server_url", "task_dir", "api_path"), _check_text),
    "port": _check_port,
    "logging": _check_logging,
    "encryption": _check_encryption,
}
_RULES = (
    *("minimum_rows", "allowed_algorithms", "allowed_functions", "allowed_columns", "forbidden_columns"),
    *("allowed_organizations", "allowed_users", "minimum_organizations", "minimum_count", "maximum_calls"),
    "allowed_algorithm_stores",
)
# Other keys of a vantage6 node. They concern its network, containers and images.
_OF_A_NETWORK = (
    *("algorithm_device_requests", "debug", "dev", "docker_registries", "docker_services", "hq_url", "image", "images"),
    *("kubeConfig", "name", "node_extra_env", "node_extra_hosts", "node_extra_mounts", "node_proxy_port", "prometheus"),
    *("proxyPort", "run_context_file", "server", "share_config", "ssh-tunnels", "task_namespace", "vpn_subnet"),
    "whitelist",
)
