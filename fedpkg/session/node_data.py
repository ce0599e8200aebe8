"""The folder of each node of a federated algorithm: its databases, and a node.json that lists them.

A node's configuration (`clients.node_config`) gives its databases, environment and policy. What the policy hides is not
in the folder, so an isolated algorithm cannot open it.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedpkg.analytics import databases as readers
from fedpkg.analytics.node import DEFAULT, FILE, Database, Node, read_node, write_node
from fedpkg.analytics.noted import ignoring
from fedpkg.analytics.policy import ALL, NotAllowed, Policy, policy_of
from fedpkg.compute_package.algorithm import ENTRY_POINT, RPC, command_of, read_algorithm
from fedpkg.compute_package.signing import read_signatures, signature_path
from fedpkg.compute_package.unpack import UnpackedPackage
from fedpkg.config import RunConfig
from fedpkg.data.base import ClientData
from fedpkg.data.entities import Entities, entities_of
from fedpkg.data.node_configuration import Federation, NodeConfiguration, kind_of, plain_name, read_federation
from fedpkg.data.views import write_view
from fedpkg.errors import ConfigError, DataError, PackageError, nearest
from fedpkg.fedn.names import SPEC_FILE
from fedpkg.files import NO_SPACE, copy_file, natural_order
from fedpkg.log import event
from fedpkg.session.configuration import ALGORITHM
from fedpkg.session.policed import Calls

logger = logging.getLogger("fedpkg.session")
NODES = "nodes"  # a folder of the session
_GLOB = re.compile(r"[*?\[]")
_NOT_ISOLATED = "write `isolated: false` into the policy, which an algorithm that is not isolated can get round"


def with_nodes(
    config: RunConfig,
    clients: Sequence[ClientData],
    folder: Path,
    package: UnpackedPackage,
    calls: Calls,
) -> Sequence[ClientData]:
    """The clients with the folders of their nodes as data, if the strategy runs an algorithm; else as they are.

    Args:
        folder: that of the session.
        calls: counts those of the central function.

    Raises:
        DataError: a node has no database, or one does not exist.
        ConfigError: a node's configuration is wrong, or the run would break its policy.
    """
    if config.strategy.get("name") != ALGORITHM:
        return clients
    _check_names(config, [client.client_id for client in clients])
    entities = entities_of(config.clients)
    federation = _federation(config, clients, entities)
    found = _databases(config, clients, federation)
    algorithm = _algorithm(config, package)
    collaboration, host = _collaboration(entities), _host(config, clients)
    position = next((number for number, one in enumerate(clients, 1) if one.client_id == host), 1)
    made = []
    for number, client in enumerate(clients, 1):
        name, databases = client.client_id, found[client.client_id]
        if not databases:
            raise DataError(
                f"the node {name} has no database",
                hint="--database default='data/*.csv' (clients.databases), or `data` of each entity",
            )
        _check_apart(config, name, databases)
        place = folder / NODES / str(number)
        place.mkdir(parents=True)
        settings = federation.nodes.get(name, NodeConfiguration(Path()))
        policy = policy_of(settings.policy)
        if settings.policy or not settings.share_logs:
            what = "has a policy" if settings.policy else "shares no logs"
            _check_mock(config, name, what)
            _check_runner(config, name, what, package)
        if settings.policy:
            _check_run(config, name, policy)
            _check_function(config, name, algorithm)
            _check_labels(name, databases, policy)
        _check_network(config, name, databases, policy)
        withheld = _withheld(name, databases, policy)
        node = Node(
            organization_id=number,
            organization=name,
            collaboration=collaboration,
            databases={
                label: _put(one, place, name, policy, shows=settings.share_logs, links=config.isolate.enabled)
                for label, one in databases.items()
                if label not in withheld
            },
            environment=settings.environment,
            policy=settings.policy,
            algorithm=algorithm,
            initiator=(host, str(position)),
            shares_logs=settings.share_logs,
            withheld=withheld,
        )
        write_node(str(place), node)
        if name == host:
            _count_central(config, node, policy, calls, folder.name)
        made.append(replace(client, path=place))
    return made


def _host(config: RunConfig, clients: Sequence[ClientData]) -> str:
    """The organization at which the central function runs."""
    others = config.strategy.get("organizations")
    first = others[0] if isinstance(others, list) and others else clients[0].client_id
    return str(config.strategy.get("host") or first)


def _check_names(config: RunConfig, client_ids: Sequence[str]) -> None:
    """Raises ConfigError: the strategy names an organization that is no client, or one twice."""
    host, others = config.strategy.get("host"), config.strategy.get("organizations")
    named: dict[str, list[Any]] = {"host": [] if host is None else [host]}
    named["organizations"] = others if isinstance(others, list) else []
    for key, names in named.items():
        if unknown := next((name for name in names if name not in client_ids), None):
            there = ", ".join(client_ids[:10])
            raise ConfigError(
                f"strategy.{key}: there is no organization {unknown!r}{nearest(str(unknown), client_ids)}",
                hint=f"the {len(client_ids)} organizations: {there}{' …' * (len(client_ids) > 10)}",
                key=f"strategy.{key}",
            )
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"strategy.{key}: {twice!r} is named twice", key=f"strategy.{key}")


def nodes_of(config: RunConfig, folder: Path) -> dict[str, Node]:
    """The nodes of a session, by client; none, if its strategy runs no algorithm. ``folder``: that of the session."""
    if config.strategy.get("name") != ALGORITHM or not (folder / NODES).is_dir():
        return {}
    return {node.organization: node for node in (read_node(str(place)) for place in (folder / NODES).iterdir())}


# ---------------------------------------------------------------- configurations and policies


def _federation(config: RunConfig, clients: Sequence[ClientData], entities: Entities | None) -> Federation:
    """The configurations of the nodes. Keys that are not used are named once."""
    ignored = [] if entities is None else list(entities.ignored)
    found = Federation({})
    if config.clients.node_config is not None:
        keys = {} if entities is None else entities.api_keys
        found = read_federation(Path(config.clients.node_config), [one.client_id for one in clients], api_keys=keys)
    if ignored := [*ignored, *found.ignored]:
        event(logger, logging.INFO, "nodes.ignored", keys=", ".join(dict.fromkeys(ignored)))
    if found.server is not None:
        event(logger, logging.INFO, "nodes.server", about=found.server.description, level=found.server.log_level or "")
    return found


def _collaboration(entities: Entities | None) -> str:
    """The name of the collaboration that the organizations belong to; nothing, if it has none."""
    parents = [] if entities is None else [one.parent for one in entities.clients if one.parent is not None]
    return parents[0] if parents else ""


def _algorithm(config: RunConfig, package: UnpackedPackage) -> dict[str, Any]:
    """What a node can know of the algorithm without running it."""
    module = str(config.strategy["module"])
    functions = {
        _name_in_module(one.name, one.kind, one.era): {"kind": one.kind, "era": one.era, "doc": one.doc}
        for one in read_algorithm(package.folder, module).functions.values()
    }
    signers: list[str] = []
    if (file := signature_path(Path(config.package))).exists():
        with suppress(PackageError):  # of another version: this one is not signed
            signers = [one.signer for one in read_signatures(file, package.digest) if one.holds(package.digest)]
    return {"name": module, "digest": package.digest, "signers": signers, "functions": functions}


def _name_in_module(name: str, kind: str, era: str) -> str:
    return f"{RPC}{name}" if kind == "partial" and era == "v3" else name


def _check_function(config: RunConfig, name: str, algorithm: Mapping[str, Any]) -> None:
    """Raises ConfigError: the run would call the function as one of another kind, to which other rules apply."""
    kind, era = str(config.strategy["kind"]), str(config.strategy["era"])
    method = str(config.strategy["method"]).removeprefix(RPC)
    known = algorithm["functions"].get(_name_in_module(method, kind, era), {})
    if (known.get("kind"), known.get("era")) != (kind, era):
        raise ConfigError(
            f"the node {name} has a policy, and the source of the algorithm has no {kind} function {method} of the "
            f"contract {era}",
            hint="leave out strategy.kind and strategy.era, which are found in the source",
            key="strategy.kind",
        )


def _check_mock(config: RunConfig, name: str, what: str) -> None:
    """Raises ConfigError: the run is a mock."""
    if config.strategy.get("in_process"):
        raise ConfigError(
            f"the node {name} {what}, and a mock runs the algorithm with the data of all nodes in one process",
            hint="run it as a session (fedpkg algorithm run), or without --node-config",
        )


def _check_runner(config: RunConfig, name: str, what: str, package: UnpackedPackage) -> None:
    """Raises ConfigError: code of the algorithm could run in place of the program that checks its calls."""
    commands = {one.name: one.command for one in package.spec.entry_points.values()}
    if commands != {ENTRY_POINT: command_of(str(config.strategy["module"]))}:
        raise ConfigError(
            f"the node {name} {what}, and the {SPEC_FILE} of the algorithm has commands that would run in place of the "
            "program that keeps it",
            hint=f"leave {SPEC_FILE} out of the folder of the algorithm",
            key="package",
        )
    if Path(str(config.strategy["folder"])).resolve() != Path(config.package).resolve():
        raise ConfigError(
            f"the node {name} {what}, and strategy.folder is not the package, so it cannot know what the central "
            "function is",
            hint="leave out strategy.folder",
            key="strategy.folder",
        )
    if config.environment:
        raise ConfigError(
            f"the node {name} {what}, and variables of the run ({', '.join(config.environment)}) can change the "
            "program that keeps it",
            hint="leave out `environment`; algorithm_env in the configuration of a node sets variables of algorithms",
            key="environment",
        )


def _check_run(config: RunConfig, name: str, policy: Policy) -> None:
    """Raises ConfigError: the run would go round the policy."""
    if config.python_env != "current" and policy.allowed_algorithms is None:
        raise ConfigError(
            f"the node {name} has a policy, and python_env {config.python_env!r} lets the algorithm bring the "
            "interpreter that keeps it",
            hint="set python_env: current; or allow this algorithm by its digest or signer (allowed_algorithms)",
            key="python_env",
        )
    if policy.isolated and not config.isolate.enabled:
        raise ConfigError(
            f"the policy of {name} wants algorithms isolated, and this run does not isolate them",
            hint=f"leave out --no-isolate; or {_NOT_ISOLATED}",
        )
    if policy.isolated and (config.isolate.network or config.isolate.read):
        key = "isolate.network" if config.isolate.network else "isolate.read"
        raise ConfigError(
            f"the policy of {name} wants algorithms isolated, and {key} makes an exception",
            hint=f"leave it out; or {_NOT_ISOLATED}",
            key=key,
        )


def _check_labels(name: str, databases: Mapping[str, Database], policy: Policy) -> None:
    """Raises ConfigError: a rule names a database that the node does not have, so it would protect nothing."""
    for rule in ("allowed_columns", "forbidden_columns", "minimum_rows"):
        for label in getattr(policy, rule):
            if label != ALL and label not in databases:
                raise ConfigError(
                    f"policies.{rule}: the node {name} has no database {label!r}{nearest(label, databases)}",
                    hint=f"it has: {', '.join(databases)}",
                    key=f"policies.{rule}.{label}",
                )


def _check_network(config: RunConfig, name: str, databases: Mapping[str, Database], policy: Policy) -> None:
    """Raises ConfigError: tasks could not reach a database."""
    if not config.isolate.enabled or config.isolate.network:
        return
    for label, one in databases.items():
        if readers.path_of(one.uri) is None and not policy.hides_columns_of(label):  # of those, tasks get a copy
            raise ConfigError(
                f"the database {label!r} of {name} is on a server, and isolated tasks have no network",
                hint="isolate.network=true lets them use it; or export what the algorithm needs, as CSV or Parquet",
                key="isolate.network",
            )


def _withheld(name: str, databases: Mapping[str, Database], policy: Policy) -> dict[str, str]:
    """Databases with too few rows, which no algorithm may open."""
    found = {}
    for label, one in databases.items():
        if policy.minimum_rows_of(label) is None:
            continue
        try:
            with ignoring():  # the tasks warn
                policy.check_rows(label, readers.count_rows(one, about=_about(label, name)))
        except NotAllowed as error:
            found[label] = error.rule
    return found


def _count_central(config: RunConfig, node: Node, policy: Policy, calls: Calls, session_id: str) -> None:
    """Raises ConfigError: the central function was called too often at its host."""
    method = str(config.strategy["method"])
    maximum = policy.maximum_calls_of(method)
    if config.strategy.get("kind") != "central" or maximum is None:
        return
    if not calls.take(node.collaboration, node.organization, method, session_id, maximum=maximum):
        raise ConfigError(
            f"not_allowed: the policy of {node.organization} allows {maximum} calls of {method} (maximum_calls)",
            hint="its node would have to allow more",
        )


def _about(label: str, name: str) -> str:
    return f"database {label!r} of {name}"


# ---------------------------------------------------------------- databases


def _databases(
    config: RunConfig, clients: Sequence[ClientData], federation: Federation
) -> Mapping[str, dict[str, Database]]:
    """The databases of each client by label; their URIs are absolute paths, or URLs.

    `clients.databases` replaces the places of a node's configuration, and keeps its options.
    """
    found: dict[str, dict[str, Database]] = {client.client_id: {} for client in clients}
    for name, node in federation.nodes.items():
        found[name] |= node.databases
    for client in clients:
        if client.path is not None:
            found[client.client_id][DEFAULT] = _database(DEFAULT, str(client.path))
    for label, pattern in config.clients.databases.items():
        for client_id, uri in _matches(label, pattern, [client.client_id for client in clients]).items():
            known = found[client_id].get(label)
            made = _database(label, uri)
            found[client_id][label] = made if known is None or known.kind != made.kind else replace(known, uri=uri)
    return found


def _matches(label: str, pattern: str, client_ids: Sequence[str]) -> dict[str, str]:
    """What a pattern gives to each client: the match whose path has the client's id, or else the next one."""
    where = f"clients.databases.{label} (--database {label}=…)"
    if readers.is_url(pattern) and _has_password(pattern, where):
        raise DataError(
            f"{where}: the address has a password, which would be stored with the configuration",
            hint="write the address to the configuration of the node (--node-config), which only you can read",
        )
    if "{client_id}" in pattern:
        return {one: _existing(pattern.replace("{client_id}", one), where) for one in client_ids}
    if "://" in pattern:
        return dict.fromkeys(client_ids, pattern)
    paths = sorted(glob.glob(pattern, recursive=True), key=natural_order)
    if not paths:
        raise DataError(f"{where}: nothing matches {pattern}", hint="it is a pattern of paths, as 'data/*.csv'")
    if len(paths) == 1 and not _GLOB.search(pattern) and len(client_ids) > 1:
        raise DataError(
            f"{where}: {pattern} is one file, and there are {len(client_ids)} nodes",
            hint="use a pattern with one match for each node, such as 'data/*.csv' or 'data/{client_id}.csv'",
        )
    if len(paths) != len(client_ids):
        raise DataError(
            f"{where}: {pattern} matches {len(paths)} paths, and there are {len(client_ids)} nodes",
            hint=f"it matches {', '.join(paths[:5])}; the nodes are {', '.join(client_ids[:5])}",
        )
    by_name = {one: [path for path in paths if plain_name(one) == plain_name(Path(path).stem)] for one in client_ids}
    by_part = {
        one: [path for path in paths if plain_name(one) in map(plain_name, Path(path).parts)] for one in client_ids
    }
    for named in (by_name, by_part):
        if all(len(each) == 1 for each in named.values()):
            return {one: os.path.abspath(each[0]) for one, each in named.items()}
    return {one: os.path.abspath(path) for one, path in zip(client_ids, paths, strict=True)}


def _has_password(address: str, where: str) -> bool:
    try:
        return readers.has_password(address)
    except ValueError as error:
        raise DataError(f"{where}: the address of the database is wrong: {error}") from error


def _existing(path: str, where: str) -> str:
    if "://" in path:
        return path
    if not os.path.exists(path):
        raise DataError(f"{where}: {path} does not exist")
    return os.path.abspath(path)


def _database(label: str, uri: str) -> Database:
    return Database(label, uri, kind_of(uri))


def _check_apart(config: RunConfig, client_id: str, databases: Mapping[str, Database]) -> None:
    """Raises DataError: a database is in the folder of the algorithm, of which every node gets a copy."""
    package = Path(config.package).resolve()
    for one in databases.values():
        path = readers.path_of(one.uri)
        if path is not None and package.is_dir() and Path(path).resolve().is_relative_to(package):
            raise DataError(
                f"the database {one.label!r} of {client_id} is {one.uri}, in the folder of the algorithm, of which "
                "each node gets a copy",
                hint="put the data and the algorithm into different folders",
            )


def _put(database: Database, place: Path, name: str, policy: Policy, *, shows: bool, links: bool) -> Database:
    """A database in a node's folder, as tasks see this folder alone: a link to the file or a copy of it.

    If the policy hides columns, it is a copy without them.

    Args:
        shows: Whether the node's errors may have the place of the file.
        links: Whether a link is enough: tasks that are not isolated could change the file through it.
    """
    about, source = _about(database.label, name), database.uri if shows else ""
    if policy.hides_columns_of(database.label):
        file = _free(place, database.label, Path(database.uri).suffix)
        write_view(database, place / file, lambda column: policy.shows(database.label, column), about=about)
        return replace(database, uri=file, source=source)
    path = readers.path_of(database.uri)
    if path is None:
        return database
    readers.check_path(path, about, is_folder=database.kind == "folder")
    given = Path(path)
    file = _free(place, database.label, given.suffix if given.is_file() else "")
    try:
        if database.kind == "sql" and Path(f"{path}-wal").exists():
            _copy_sqlite(given, place / file)
        else:
            _copy(given, place / file, links=links)
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "errno", None) in NO_SPACE:
            raise
        where, what = getattr(error, "filename", None) or path, getattr(error, "strerror", None) or error
        raise DataError(f"{about}: {where} cannot be read: {what}") from error
    return replace(database, uri=file, source=source)


def _free(place: Path, label: str, suffix: str) -> str:
    """A name for a database in a node's folder, which is neither that of another one nor of the node.json."""
    file = re.sub(r"[^A-Za-z0-9_.-]", "_", label) + suffix
    while (place / file).exists() or file == FILE:
        file = f"_{file}"
    return file


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database that may be in use: what was written last is in other files beside it."""
    address = f"file:{quote(str(source.absolute()))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def _copy(source: Path, target: Path, above: Sequence[Path] = (), *, links: bool) -> None:
    real = source.resolve()
    if source.is_dir():
        if real in above:
            raise DataError(f"{source} is a link to a folder that it is in", hint="remove this link")
        target.mkdir()
        for inner in sorted(source.iterdir()):
            _copy(inner, target / inner.name, [*above, real], links=links)
        return
    if not real.exists():
        raise DataError(f"{source} is a link to {os.readlink(source)}, which does not exist", hint="remove this link")
    if links:
        with suppress(OSError):  # on another file system, or of another owner
            os.link(real, target)
            return
    copy_file(source, target)
