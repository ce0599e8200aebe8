"""What combines the clients' updates in a session: a tree of combiners, or clusters that are found during the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpkg.clusters.method import check_cut
from fedpkg.clusters.section import INFER, LABEL_HISTOGRAM, infer_of
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_from_json
from fedpkg.config_topology import InferConfig
from fedpkg.errors import ConfigError, SessionError
from fedpkg.log import event
from fedpkg.stores.base import SessionRow

logger = logging.getLogger("fedpkg.session")
if TYPE_CHECKING:
    from fedpkg.clusters.strategy import ClusteredStrategy
    from fedpkg.clusters.tree import Clustering
    from fedpkg.stores.sql import StateStore
    from fedpkg.strategies.traits import Traits
    from fedpkg.strategies.tree import TreeStrategy
    from fedpkg.strategies.updates.held import Updates

    Combined: TypeAlias = "TreeStrategy | ClusteredStrategy"


def is_inferred(config: RunConfig) -> bool:
    """Whether the session's clusters are found during the run."""
    return config.topology is not None and bool(config.topology.get("infer"))


def combined(config: RunConfig, client_ids: Sequence[str], data: Sequence[Path | None]) -> Combined | None:
    """The strategy of a session with a topology; None: it has none.

    Args:
        data: the path of each client's data.

    Raises:
        ConfigError: the tree, or the way in which clusters are to be found, cannot be.
        DataError: a pattern matches no client, or the file of entities or the split is wrong.
    """
    from fedpkg.topology.building import manifest_of, tree_of, tree_of_clusters

    if not is_inferred(config):
        return tree_of(config, client_ids, manifest=lambda: manifest_of(config, data[0]))
    assert config.topology is not None
    from fedpkg.clusters.from_scipy import check_scipy
    from fedpkg.clusters.strategy import ClusteredStrategy
    from fedpkg.strategies.traits import traits_of

    check_scipy()
    infer = infer_of(config.topology)
    tree_of_clusters(config, client_ids, {})
    known, without, entry_point = None, list[str](), None
    if infer.source == "attributes":
        known = _attributes(config, client_ids, infer)
    elif infer.source == "label_histogram":
        counts = None if infer.entry_point or infer.noise else _counts(config, client_ids, data)
        if counts is None:
            entry_point = infer.entry_point or LABEL_HISTOGRAM
        else:
            known, without = _histograms(counts, infer)
    found = ClusteredStrategy(
        infer,
        lambda clusters: tree_of_clusters(config, client_ids, clusters),
        tuple(client_ids),
        known,
        tuple(without),
        entry_point,
    )
    if infer.own_models or infer.source == "updates":
        _check_strategy(str(found.each.said), traits_of(found.each.strategy), infer)
    if known is not None and infer.every is not None:
        raise ConfigError(
            "topology.infer.every: the split of the data does not change during the run",
            hint="remove it, or set topology.infer.entry_point to ask the clients",
            key="topology.infer.every",
        )
    _check_cut(config, client_ids, infer, known)
    if config.rounds is not None and infer.first > config.rounds:
        about = (
            f"clusters are to be found in round {infer.first} (topology.infer.first), but the run has {config.rounds} "
            f"round{'s' * (config.rounds != 1)}: none will be found"
        )
        event(logger, logging.WARNING, "clusters.never", about=about)
    return found


def tree_of_session(
    store: StateStore, session: SessionRow, root: Path
) -> tuple[TreeStrategy | None, Clustering | None]:
    """The tree of a session; of one that finds clusters, that of the newest ones, and how they were found.

    Args:
        root: of the session's home.

    Raises:
        SessionError: no clusters have been found yet.
    """
    from fedpkg.clusters.tree import Clustering
    from fedpkg.topology.building import manifest_of, tree_of, tree_of_clusters

    config = config_from_json(session.config)
    clients = store.list_clients(session.session_id)
    ids = [client.client_id for client in clients]
    if not is_inferred(config):
        path = next((root / one.data_path for one in clients[:1] if one.data_path is not None), None)
        return tree_of(config, ids, manifest=lambda: manifest_of(config, path)), None
    saved = store.load_strategy_state(session.session_id)
    state: Any = {} if saved is None else saved[1].get(INFER, {})
    if "found" not in state:
        raise SessionError(
            f"session {session.session_id} has found no clusters yet",
            hint="they are found in round topology.infer.first",
        )
    found = Clustering.from_data(state["found"])
    return tree_of_clusters(config, ids, found.members(state["places"], ids)), found


def _check_strategy(name: str, traits: Traits, infer: InferConfig) -> None:
    """Raises ConfigError: the strategy cannot take a step with updates that were made from another model."""
    problem = ""
    if traits.entry_points != ("train",) or traits.in_trees != "anywhere":
        asks = f"it asks clients for {' and '.join(traits.entry_points)}"
        problem = traits.why_not_in_trees or asks
    if problem:
        what = "clusters with models of their own" if infer.own_models else "clusters that are found from updates"
        raise ConfigError(
            f"topology.infer: {name} cannot train {what}: {problem}",
            hint="use a strategy that asks for updates of one model, such as fedavg, fedavgm, fedadam or fedprox",
            key="strategy",
        )


def _check_cut(config: RunConfig, client_ids: Sequence[str], infer: InferConfig, known: Updates | None) -> None:
    """Raises ConfigError: the cut is impossible with the clients of a round."""
    from fedpkg.controller.seeds import held_out_rng
    from fedpkg.data.clients import client_groups
    from fedpkg.samplers import make_sampler
    from fedpkg.samplers.held_out import held_out_clients

    sampler = make_sampler(config.sampler)
    held_out = held_out_clients(sampler.held_out, client_ids, held_out_rng(config.seed))
    may_train = [name for name in client_ids if name not in held_out]
    if known is not None:
        number = len(set(known.clients).difference(held_out))
    else:
        number = sampler.target(may_train, client_groups(config.clients, list(client_ids)))
    try:
        check_cut(infer.cut, number)
    except ConfigError as error:
        hint = None if known is not None else f"{error.hint}; or let more clients train in a round (sampler)"
        raise ConfigError(
            f"topology.infer.{error.message}", hint=hint or error.hint, key="topology.infer.cut"
        ) from error


def _attributes(config: RunConfig, client_ids: Sequence[str], infer: InferConfig) -> Updates:
    from fedpkg.clusters.vectors import attributes
    from fedpkg.data.entities import entities_of

    entities = entities_of(config.clients)
    if entities is None or any(name not in entities for name in client_ids):
        raise ConfigError(
            "topology.infer: the attributes are those of entities, and the run has none",
            hint="clients.entities=entities.yaml, a file with the clients and their attributes",
            key="topology.infer.from",
        )
    return attributes({name: entities.attributes_of(name) for name in client_ids}, infer.attributes)


def _counts(
    config: RunConfig, client_ids: Sequence[str], data: Sequence[Path | None]
) -> Mapping[str, Sequence[float]] | None:
    """The counts of labels of each client, of the split of the data; None: it has none."""
    from fedpkg.data.manifest import read_manifest

    if config.clients.data is None or data[0] is None:
        return None
    counts: Any = read_manifest(data[0].parent).counts.get("train")
    return None if counts is None else dict(zip(client_ids, counts, strict=True))


def _histograms(counts: Mapping[str, Sequence[float]], infer: InferConfig) -> tuple[Updates, list[str]]:
    from fedpkg.clusters.labels import vectors_of

    known, without = vectors_of(counts, infer.minimum)
    if known is None:
        raise ConfigError(
            f"topology.infer.minimum: no client has {infer.minimum:g} examples of a label",
            hint="lower it",
            key="topology.infer.minimum",
        )
    return known, without
