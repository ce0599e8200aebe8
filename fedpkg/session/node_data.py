"""The folder of each node of a federated algorithm: its databases, and a node.json that lists them."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpkg.analytics.central_program import DEFAULT
from fedpkg.analytics.node import Database, Node, write_node
from fedpkg.config import RunConfig
from fedpkg.data.base import ClientData
from fedpkg.data.entities import entities_of
from fedpkg.data.node_configuration import NodeConfiguration, kind_of, read_federation
from fedpkg.errors import ConfigError, DataError, nearest
from fedpkg.files import copy_file
from fedpkg.log import event
from fedpkg.session.configuration import ALGORITHM

logger = logging.getLogger("fedpkg.session")

NODES = "nodes"  # a folder of the session
_GLOB = re.compile(r"[*?\[]")


def with_nodes(config: RunConfig, clients: Sequence[ClientData], folder: Path) -> Sequence[ClientData]:
    """The clients with the folders of their nodes as data, if the strategy runs an algorithm; else as they are.

    Args:
        folder: that of the session.

    Raises:
        DataError: a node has no database, or one does not exist.
    """
    if config.strategy.get("name") != ALGORITHM:
        return clients
    _check_names(config, [client.client_id for client in clients])
    configurations = _configurations(config, [client.client_id for client in clients])
    found = _databases(config, clients, configurations)
    made = []
    for number, client in enumerate(clients, 1):
        databases = found[client.client_id]
        if not databases:
            raise DataError(
                f"the node {client.client_id} has no database",
                hint="--database default='data/*.csv' (clients.databases), or `data` of each entity",
            )
        _check_apart(config, client.client_id, databases)
        place = folder / NODES / str(number)
        place.mkdir(parents=True)
        configured = configurations.get(client.client_id)
        node = Node(
            organization_id=number,
            organization=client.client_id,
            databases={label: _put(one, place) for label, one in databases.items()},
            environment={} if configured is None else configured.environment,
            policy={} if configured is None else configured.policy,
        )
        write_node(str(place), node)
        made.append(replace(client, path=place))
    return made


def _check_names(config: RunConfig, client_ids: Sequence[str]) -> None:
    """Raises ConfigError: the strategy names an organization that is no client."""
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


def _configurations(config: RunConfig, client_ids: Sequence[str]) -> Mapping[str, NodeConfiguration]:
    """The configurations of nodes by organization; what they set without effect is said once."""
    entities = entities_of(config.clients)
    ignored = () if entities is None else entities.ignored
    found: Mapping[str, NodeConfiguration] = {}
    if config.clients.node_config is not None:
        api_keys = None if entities is None else entities.api_keys
        federation = read_federation(Path(config.clients.node_config), client_ids, api_keys=api_keys)
        found, ignored = federation.nodes, tuple(dict.fromkeys([*ignored, *federation.ignored]))
    if ignored:
        event(logger, logging.INFO, "nodes.ignored", keys=", ".join(ignored))
    return found


def _databases(
    config: RunConfig, clients: Sequence[ClientData], configurations: Mapping[str, NodeConfiguration]
) -> Mapping[str, dict[str, Database]]:
    """The databases of each client by label; their URIs are absolute paths, or URLs.

    Those of the run take precedence over those of a node's configuration.
    """
    found: dict[str, dict[str, Database]] = {client.client_id: {} for client in clients}
    for client in clients:
        if (configured := configurations.get(client.client_id)) is not None:
            found[client.client_id].update(configured.databases)
        if client.path is not None:
            found[client.client_id][DEFAULT] = _database(DEFAULT, str(client.path))
    for label, pattern in config.clients.databases.items():
        for client_id, uri in _matches(label, pattern, [client.client_id for client in clients]).items():
            found[client_id][label] = _database(label, uri)
    return found


def _matches(label: str, pattern: str, client_ids: Sequence[str]) -> dict[str, str]:
    """What a pattern gives to each client: the match whose path has the client's id, or else the next one."""
    where = f"clients.databases.{label} (--database {label}=…)"
    if "{client_id}" in pattern:
        return {one: _existing(pattern.replace("{client_id}", one), where) for one in client_ids}
    if "://" in pattern:
        return dict.fromkeys(client_ids, pattern)
    paths = sorted(glob.glob(pattern, recursive=True), key=_natural)
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
    by_name = {one: [path for path in paths if _plain(one) == _plain(Path(path).stem)] for one in client_ids}
    by_part = {one: [path for path in paths if _plain(one) in map(_plain, Path(path).parts)] for one in client_ids}
    for named in (by_name, by_part):
        if all(len(each) == 1 for each in named.values()):
            return {one: os.path.abspath(each[0]) for one, each in named.items()}
    return {one: os.path.abspath(path) for one, path in zip(client_ids, paths, strict=True)}


def _existing(path: str, where: str) -> str:
    if "://" in path:
        return path
    if not os.path.exists(path):
        raise DataError(f"{where}: {path} does not exist")
    return os.path.abspath(path)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def _natural(path: str) -> list[str | int]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path))]


def _database(label: str, uri: str) -> Database:
    return Database(label, uri, kind_of(uri))


def _check_apart(config: RunConfig, client_id: str, databases: Mapping[str, Database]) -> None:
    """Raises DataError: a database is in the folder of the algorithm, of which every node gets a copy."""
    package = Path(config.package).resolve()
    for one in databases.values():
        if "://" not in one.uri and package.is_dir() and Path(one.uri).resolve().is_relative_to(package):
            raise DataError(
                f"the database {one.label!r} of {client_id} is {one.uri}, in the folder of the algorithm, of which "
                "each node gets a copy",
                hint="put the data and the algorithm into different folders",
            )


def _put(database: Database, place: Path) -> Database:
    """A database in a node's folder: a link to the file or a copy of it, as tasks see this folder alone."""
    if "://" in database.uri:
        return database
    source = Path(database.uri)
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', database.label)}{source.suffix if source.is_file() else ''}"
    _link(source, place / name)
    return replace(database, uri=name)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir()
        for inner in sorted(source.iterdir()):
            _link(inner, target / inner.name)
        return
    try:
        os.link(source.resolve(), target)
    except OSError:  # on another file system, or of another owner
        copy_file(source, target)
