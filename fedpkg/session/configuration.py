"""Check the sections of a run's configuration whose keys depend on a name in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fedpkg.compute_package.algorithm import read_algorithm
from fedpkg.compute_package.app import APP_FILE, KINDS, Value, is_app, read_app
from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.config_reading import LoadedConfig, load_config
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, nearest
from fedpkg.types import Json, leaves

SERVER_APP = "server_app"  # the strategy that runs a message app
ALGORITHM = "algorithm"  # the strategy that runs a federated algorithm


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """A fully checked run.yaml, including the sections whose keys depend on the name of a strategy or a sampler.

    Raises:
        ConfigError: see `fedpkg.config_reading.load_config`.
    """
    return load_config(path, overrides, resolve=resolved)


def without_digests(config: RunConfig) -> RunConfig:
    """The configuration of a stored session, without the digests of data that were noted when the session began."""
    return msgspec.structs.replace(
        config,
        clients=msgspec.structs.replace(config.clients, entities_sha256=None),
        data=msgspec.structs.replace(config.data, digests={}),
    )


def resolved(config: RunConfig, places: Places) -> RunConfig:
    """Check and complete the sections of a configuration whose keys depend on a name in them.

    Raises:
        ConfigError: a name, parameter or value is unknown.
    """
    from fedpkg.samplers import resolve_sampler
    from fedpkg.strategies import resolve_strategy

    _check_style(config, places)
    config = _with_algorithm(_with_app(config, places), places)
    strategy, sampler = resolve_strategy(config.strategy, places), resolve_sampler(config.sampler, places)
    clients = _resolved_clients(config.clients, places)
    data = config.data
    if data.sources:
        from fedpkg.data.named_sources import resolve_sources

        data = msgspec.structs.replace(data, sources=resolve_sources(data.sources, places))
    topology = config.topology
    if topology is not None:
        from fedpkg.topology.section import resolve_topology

        topology = resolve_topology(topology, places)
        if topology.get("infer"):
            from fedpkg.clusters.section import check_infer

            check_infer(topology, places)
    tracking = list(config.tracking)
    if tracking:
        from fedpkg.tracking.registry import resolve_tracking

        tracking = list(resolve_tracking(tracking, places))
    return msgspec.structs.replace(
        config, strategy=strategy, sampler=sampler, topology=topology, clients=clients, data=data, tracking=tracking
    )


def _with_app(config: RunConfig, places: Places) -> RunConfig:
    """Complete the strategy `server_app`: unless it names another, it runs the ServerApp of the package, with the app's
    configuration.
    """
    given = config.strategy
    if given.get("name") != SERVER_APP:
        return config
    folders = [Path(str(given["folder"]))] if given.get("folder") else []
    folder = next(filter(is_app, (*folders, Path(config.package))), None)
    if folder is None and {"folder", "app"} <= given.keys():
        return config
    if folder is None:
        raise ConfigError(
            f"{places.where(('strategy',))}: '{SERVER_APP}' needs a message app, and {config.package} is not the "
            "folder of one",
            hint=f"set 'package', or 'strategy.folder', to a folder whose {APP_FILE} has [tool.flwr.app.components]",
            key="strategy",
        )
    app, package = read_app(folder / APP_FILE), Path(config.package)
    known = dict(app.config)
    if package != folder and is_app(package):  # the clients' app is another one
        known = {**read_app(package / APP_FILE).config, **known}
    return msgspec.structs.replace(
        config,
        strategy={"folder": str(folder), "app": app.server, **given},
        run_config={**app.config, **_values(config.run_config, known, app.name, places)},
    )


def _values(given: Mapping[str, Json], known: Mapping[str, Value], name: str, places: Places) -> dict[str, Value]:
    """The values that a run.yaml sets in an app's configuration, each with the type of the one in the app's file."""
    found: dict[str, Value] = {}
    for path, value in leaves(given):
        key, where = ".".join(path), places.where(("run_config", *path))
        if key not in known:
            raise ConfigError(
                f"{where}: the app {name} has no key '{key}'{nearest(key, known)}",
                hint=f"[tool.flwr.app.config] in its {APP_FILE} has: {', '.join(known) or 'nothing'}",
                key=f"run_config.{key}",
            )
        usual = known[key]
        if isinstance(usual, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(usual):
            problem = f"'{key}' must be {KINDS[type(usual)]}, as in the app's {APP_FILE}, not {value!r:.60}"
            raise ConfigError(f"{where}: {problem}", key=f"run_config.{key}")
        found[key] = value
    return found


def _with_algorithm(config: RunConfig, places: Places) -> RunConfig:
    """Complete the strategy `algorithm`: its module and what kind of function it calls are found in its folder. Its
    tasks are isolated unless the strategy says otherwise.
    """
    given = config.strategy
    if given.get("name") != ALGORITHM:
        if unused := next((key for key in ("databases", "node_config") if getattr(config.clients, key)), None):
            raise ConfigError(
                f"{places.where(('clients', unused))}: 'clients.{unused}' is for the strategy '{ALGORITHM}' only",
                hint="other strategies give clients their data by clients.folders, clients.data or clients.entities",
                key=f"clients.{unused}",
            )
        return config
    if not given.get("method"):
        raise ConfigError(
            f"{places.where(('strategy',))}: '{ALGORITHM}' needs the function to call: strategy.method",
            hint=f"fedpkg algorithm list {config.package}",
            key="strategy.method",
        )
    folder = Path(str(given.get("folder") or config.package))
    found: dict[str, Any] = {"folder": str(folder)}
    if not {"module", "kind", "era"} <= given.keys():
        algorithm = read_algorithm(folder, given.get("module"))  # type: ignore[arg-type]
        function = algorithm.function(str(given["method"]))
        found |= {"module": algorithm.module, "kind": function.kind, "era": function.era, "method": function.name}
        given = {name: value for name, value in given.items() if name != "method"}
    if given.get("databases") is None and config.clients.databases:
        found["databases"] = list(config.clients.databases)
    isolate = config.isolate
    if given.get("isolated", True):
        isolate = msgspec.structs.replace(isolate, enabled=True)
    return msgspec.structs.replace(config, strategy={**found, **given}, isolate=isolate)


def _resolved_clients(clients: ClientsConfig, places: Places) -> ClientsConfig:
    if clients.data is not None:
        from fedpkg.data.partitioners import resolve_partition, tells_count  # here: it imports NumPy
        from fedpkg.data.sources.registry import resolve_dataset

        partition = resolve_partition(clients.data.partition, places)
        if clients.count is None and clients.entities is None and not tells_count(partition):
            raise ConfigError(
                f"{places.where(('clients',))}: 'clients.data' needs 'clients.count', the number of clients to split it"
                " among",
                hint="set clients.count; only schemes such as natural_id can tell it from the data",
                key="clients.count",
            )
        data = msgspec.structs.replace(
            clients.data, dataset=resolve_dataset(clients.data.dataset, places), partition=partition
        )
        clients = msgspec.structs.replace(clients, data=data)
    if clients.entities is not None and clients.entities_sha256 is None:
        from fedpkg.data.entities import digest_of

        clients = msgspec.structs.replace(clients, entities_sha256=digest_of(Path(clients.entities)))
    return clients


def _check_style(config: RunConfig, places: Places) -> None:
    if config.argument_style is None:
        return
    from fedpkg.compute_package.arguments import problem_of_style

    if problem := problem_of_style(config.argument_style):
        key = "argument_style"
        raise ConfigError(f"{places.where((key,))}: '{key}': {problem}", key=key)
