"""The tree of combiners of a session: its section of the run.yaml, with the session's clients."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fedpkg.config import DataConfig, RunConfig
from fedpkg.data.clients import DataShare, client_names, matching
from fedpkg.data.entities import Entities, as_text, entities_of
from fedpkg.data.manifest import Manifest, read_manifest
from fedpkg.errors import ConfigError
from fedpkg.samplers import make_sampler
from fedpkg.strategies import make_strategy
from fedpkg.strategies.base import ABOUT_NAMES, LONGEST_PATH, Strategy, is_name
from fedpkg.strategies.traits import traits_of
from fedpkg.strategies.tree import Combiner, TreeStrategy
from fedpkg.topology.section import sets_data

TOP_LABEL = "top_label"


@dataclass
class _Node:
    """A combiner before its strategy is made. ``given``: its keys."""

    path: str
    given: Mapping[str, Any]
    clients: list[str] = field(default_factory=list)
    children: list[_Node] = field(default_factory=list)


def tree_of(
    config: RunConfig, client_ids: Sequence[str], *, manifest: Callable[[], Manifest] | None = None
) -> TreeStrategy | None:
    """The strategy of the session's tree of combiners; None: it has no ``topology``.

    Args:
        manifest: of the split of ``clients.data``; it is asked for `facts_of`.

    Raises:
        ConfigError: a client is in no place or in two, a combiner has none below it, or what it sets cannot be.
        DataError: a pattern matches no client, or the file of entities is wrong.
    """
    root = _placed(config, client_ids, manifest)
    return None if root is None else TreeStrategy(_made(root, config))


def check_needs(tree: TreeStrategy) -> None:
    """Raises ConfigError: a combiner has too few children for its strategy, so that all of its rounds would fail."""
    for one in tree.root.everyone():
        number, needs = len(one.clients) + len(one.children), traits_of(one.strategy).needs
        if number < needs:
            where = f"topology, combiner {one.path}" if one.path else "topology, the root"
            raise ConfigError(
                f"{where}: {one.said} needs {needs} updates in each round, and it has {number} "
                f"{'child' if number == 1 else 'children'}",
                hint="give it another strategy, such as strategy: fedavg, or lower the number of attackers that its "
                "strategy allows for",
                key="topology",
            )


def facts_of(config: RunConfig) -> list[str]:
    """The columns of the dataset by which the tree places clients; they are no attributes of entities."""
    entities = entities_of(config.clients) if _by(config) else None
    return [name for name in _by(config) if name != TOP_LABEL and not (entities and name in entities.attributes)]


def needs_split(config: RunConfig) -> bool:
    """Whether the tree places clients by the split of their data."""
    return bool(facts_of(config)) or TOP_LABEL in _by(config)


def manifest_of(config: RunConfig, path: Path | None) -> Manifest:
    """The manifest of a session's split, of which ``path`` is a client's file. Raises DataError: it is gone."""
    if config.clients.data is None or path is None:
        name = next(iter(_by(config)))
        raise ConfigError(
            f"topology.by: {name!r} is no attribute of entities, and the run has no dataset with such a column",
            hint="clients.entities=entities.yaml, a file with the clients and their attributes; or clients.data, a "
            "dataset that is divided among them",
            key="topology.by",
        )
    return read_manifest(path.parent)


def shares_of(config: RunConfig) -> list[DataShare]:
    """Which clients divide which dataset, if combiners of the tree set ``data``; empty: none does.

    A client takes part in the one that the nearest combiner above it sets, or else in ``clients.data``.

    Raises:
        ConfigError: clients would have no data, or data from two sources. Otherwise as `tree_of`.
    """
    if not sets_data(config.topology):
        return []
    client_ids = client_names(config.clients)
    root = _placed(config, client_ids, None)
    assert root is not None
    own = config.clients.data
    above = {} if own is None else msgspec.to_builtins(own)
    found: dict[str, tuple[dict[str, Any], list[str]]] = {"": (above, [])}
    waiting = [(root, "")]
    while waiting:
        node, nearest_path = waiting.pop()
        if node.given.get("data"):
            found[node.path] = {**found[nearest_path][0], **node.given["data"]}, []
            nearest_path = node.path
        found[nearest_path][1].extend(node.clients)
        waiting.extend((child, nearest_path) for child in reversed(node.children))
    _check_data(config, found)
    places = {name: number for number, name in enumerate(client_ids)}
    return [
        DataShare(
            msgspec.convert(data, DataConfig),
            tuple(sorted(clients, key=places.__getitem__)),
            f"topology, combiner {path}, data" if path else "clients.data",
        )
        for path, (data, clients) in found.items()
        if clients
    ]


def _check_data(config: RunConfig, found: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]]) -> None:
    path = next(path for path in found if path)
    where, clients = f"topology, combiner {path}: its 'data'", config.clients
    entities = entities_of(clients)
    if clients.folders is not None or (entities and any(one.data is not None for one in entities.clients)):
        given_by = "clients.folders" if clients.folders is not None else "the file of entities"
        raise ConfigError(
            f"{where} would replace the data that {given_by} gives the clients", hint="remove one", key="topology"
        )
    if clients.data is None and (without := found[""][1]):
        raise ConfigError(
            f"{where} is for the clients below it, and {without[0]} has no data",
            hint="set clients.data, for all clients without data of a combiner",
            key="topology",
        )
    of_dataset: dict[str, str] = {}
    for path, (data, members) in found.items():
        if members and (other := of_dataset.setdefault(json.dumps(data["dataset"], sort_keys=True), path)) != path:
            two = f"{other} and {path}" if other else f"{path} and clients.data"
            raise ConfigError(
                f"topology: {two} divide the same dataset, so that their clients would share examples",
                hint="set it once, at a combiner above both or in clients.data: all clients there divide it",
                key="topology",
            )


def _by(config: RunConfig) -> list[str]:
    section: Mapping[str, Any] = config.topology or {}
    return [str(section["by"]), *section.get("then", [])] if section.get("by") else []


def _placed(config: RunConfig, client_ids: Sequence[str], manifest: Callable[[], Manifest] | None) -> _Node | None:
    """The combiners, each with the clients directly below it."""
    section = config.topology
    if section is None:
        return None
    root = _Node("", {"rounds": section.get("rounds", 1), "required": config.round.required})
    defaults: dict[str, Any] = section.get("defaults") or {}  # type: ignore[assignment]
    if section.get("fanout"):
        _fan_out(root, section["fanout"], client_ids, defaults)  # type: ignore[arg-type]
    elif section.get("from"):
        entities = _entities(config, client_ids)
        if not any(entities.parents_of(name) for name in client_ids):
            raise ConfigError(
                "topology.from: no entity has a parent, so there is no tree",
                hint="give clients a `parent`, the id of another entity; or topology=null for a run without a tree",
                key="topology.from",
            )
        _by_steps(root, {name: entities.parents_of(name) for name in client_ids}, defaults)
    elif section.get("by"):
        _by_steps(root, _values(config, client_ids, manifest), defaults)
    else:
        _declared(root, section, client_ids, config)
    return root


def tree_of_clusters(
    config: RunConfig, client_ids: Sequence[str], clusters: Mapping[str, Sequence[str]]
) -> TreeStrategy:
    """The tree of clusters that were found, given the clients of each by its path; all have ``topology.defaults``.

    Clusters with own models have the session's strategy and keep their models; all above them take means. Without
    clusters, all clients are below the root.

    Raises:
        ConfigError: the strategy cannot be there.
    """
    section: Mapping[str, Any] = config.topology or {}
    own, defaults = section["infer"].get("own_models", False), dict(section.get("defaults") or {})
    root = _Node("", {"rounds": section.get("rounds", 1)}, [] if clusters else list(client_ids))
    nodes = {"": root}
    # Models of clusters are on record and validated whether or not combiners are to be.
    defaults |= {"validate": "global"} if own else {}
    above = {**defaults, "strategy": {"name": "fedavg"}} if own else defaults
    for path, clients in clusters.items():
        at = root
        for step in path.split("/"):
            below = _below(at.path, step)
            if below not in nodes:
                nodes[below] = _Node(below, above)
                at.children.append(nodes[below])
            at = nodes[below]
        at.clients = list(clients)
        at.given = {**defaults, **({"strategy": config.strategy, "keeps_model": True} if own else {})}
    for node in nodes.values():
        number = len(node.clients) + len(node.children)
        node.given = {**node.given, "required": min(node.given.get("required", 1), number)}
    if own and clusters:
        config = msgspec.structs.replace(config, strategy={"name": "fedavg"})
    return TreeStrategy(_made(root, config))


def _declared(root: _Node, section: Mapping[str, Any], client_ids: Sequence[str], config: RunConfig) -> None:
    places: dict[str, str] = {}
    waiting: list[tuple[_Node, Mapping[str, Any]]] = [(root, section)]
    entities = entities_of(config.clients)
    while waiting:
        node, given = waiting.pop()
        where = f"topology, combiner {node.path}" if node.path else "topology"
        wanted: set[str] = set()
        for pattern in given.get("clients") or []:
            wanted |= matching(pattern, client_ids, entities, where=where)
        for name in client_ids if wanted else ():
            if name in wanted:
                if name in places:
                    raise ConfigError(
                        f"topology: {name} is below two combiners, {places[name]} and {node.path or 'the root'}",
                        hint="change one of the patterns",
                        key="topology",
                    )
                places[name] = node.path or "the root"
                node.clients.append(name)
        children = given.get("children") or []
        _check_names(node, [child["name"] for child in children])
        node.children = [_Node(_below(node.path, child["name"]), child) for child in children]
        waiting.extend(zip(reversed(node.children), reversed(children), strict=True))
    if left := [name for name in client_ids if name not in places]:
        if section.get("others", "refuse") == "refuse":
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise ConfigError(
                f"topology: below no combiner: {', '.join(left[:3])}{more}",
                hint="add them to the clients of a combiner; or topology.others=root puts them below the root",
                key="topology.others",
            )
        root.clients += left


def _check_names(parent: _Node, names: Sequence[str]) -> None:
    where = f"topology, below {parent.path or 'the root'}"
    for name, times in Counter(names).items():
        if times > 1:
            raise ConfigError(f"{where}: {times} combiners are called {name!r}", hint="rename one", key="topology")
        if not is_name(name):
            raise ConfigError(
                f"{where}: {name!r:.120} cannot be the name of a combiner",
                hint=ABOUT_NAMES,
                key="topology",
            )


def _fan_out(root: _Node, fanout: Sequence[int], client_ids: Sequence[str], defaults: Mapping[str, Any]) -> None:
    if (number := math.prod(fanout)) > len(client_ids):
        raise ConfigError(
            f"topology.fanout: {number} combiners at the bottom, but there are {len(client_ids)} clients",
            hint="a combiner needs at least one client",
            key="topology.fanout",
        )
    level = [root]
    for one in fanout:
        for node in level:
            node.children = [_Node(_below(node.path, str(i)), defaults) for i in range(one)]
        level = [child for node in level for child in node.children]
    for i, node in enumerate(level):
        start, end = i * len(client_ids) // number, (i + 1) * len(client_ids) // number
        node.clients = list(client_ids[start:end])


def _entities(config: RunConfig, client_ids: Sequence[str]) -> Entities:
    entities = entities_of(config.clients)
    if entities is None or any(name not in entities for name in client_ids):
        raise ConfigError(
            "topology: the tree is made of entities, and the run has none",
            hint="clients.entities=entities.yaml, a file with the clients and their parents or attributes",
            key="topology",
        )
    return entities


def _by_steps(root: _Node, steps: Mapping[str, Sequence[str]], defaults: Mapping[str, Any]) -> None:
    """Make the combiners on the way down to each client."""
    nodes: dict[tuple[str, ...], _Node] = {(): root}
    for name, names in steps.items():
        way = tuple(names)
        if way not in nodes:
            at = root
            for number, step in enumerate(way, 1):
                if way[:number] not in nodes:
                    _check_names(at, [step])
                    nodes[way[:number]] = _Node(_below(at.path, step), defaults)
                    at.children.append(nodes[way[:number]])
                at = nodes[way[:number]]
        nodes[way].clients.append(name)


def _values(
    config: RunConfig, client_ids: Sequence[str], manifest: Callable[[], Manifest] | None
) -> dict[str, list[str]]:
    """By client, the values of the attributes and columns in ``by`` and ``then``."""
    found: dict[str, list[str]] = {name: [] for name in client_ids}
    entities = entities_of(config.clients)
    split: Manifest | None = None
    for name in _by(config):
        if entities is not None and (name in entities.attributes or config.clients.data is None):
            for client_id in client_ids:
                found[client_id].append(_value(entities, client_id, name))
            continue
        split = split or (manifest() if manifest is not None else manifest_of(config, None))
        column = split.top_labels() if name == TOP_LABEL else split.facts.get(name)
        if column is None or len(column) != len(client_ids):
            what = "its examples have not one label each" if name == TOP_LABEL else f"it has no column {name!r}"
            raise ConfigError(
                f"topology.by: the split of {split.source.get('dataset', 'the dataset')} places no clients by "
                f"{name!r}: {what}",
                hint="name an attribute of entities or a column of the dataset",
                key="topology.by",
            )
        for client_id, value in zip(client_ids, column, strict=True):
            found[client_id].append(value)
    return found


def _value(entities: Entities, name: str, attribute: str) -> str:
    value = entities.attributes_of(name).get(attribute) if name in entities else None
    if value is None:
        known = ", ".join(entities.attributes)
        raise ConfigError(
            f"topology.by: {name} has no attribute {attribute!r}",
            hint=f"add it to the file of entities; its attributes: {known}",
            key="topology.by",
        )
    return as_text(value)


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _made(root: _Node, config: RunConfig) -> Combiner:
    """The combiners with their strategies, from the bottom up."""
    order: list[tuple[_Node, Mapping[str, Any], Strategy]] = []
    strategies: dict[int, Strategy] = {}  # by section: what many combiners inherit is made once
    own: dict[str, Any] = {"strategy": config.strategy, "timeout_s": None, "parameters": {}, "arguments": {}}
    own["validate"] = (config.topology or {}).get("validate", "global")
    waiting: list[tuple[_Node, Mapping[str, Any]]] = [(root, own)]
    while waiting:
        node, above = waiting.pop()
        given = node.given
        has = {
            "strategy": given.get("strategy") or above["strategy"],
            "timeout_s": given.get("timeout_s") or above["timeout_s"],
            "validate": given.get("validate") or above["validate"],
            "parameters": {**above["parameters"], **(given.get("parameters") or {})},
            "arguments": _merged(above["arguments"], given.get("arguments") or {}),
        }
        _check(node)
        _check_validated(node, has["validate"], config)
        if (strategy := strategies.get(id(has["strategy"]))) is None:
            strategy = strategies[id(has["strategy"])] = make_strategy(has["strategy"])
        _check_strategy(node, has["strategy"], strategy)
        order.append((node, has, strategy))
        waiting.extend((child, has) for child in reversed(node.children))
    made: dict[str, Combiner] = {}
    for node, has, strategy in reversed(order):
        made[node.path] = Combiner(
            node.path,
            strategy,
            tuple(node.clients),
            tuple(made.pop(child.path) for child in node.children),
            rounds=node.given.get("rounds", 1),
            required=node.given.get("required", 1),
            timeout_s=has["timeout_s"],
            parameters=has["parameters"],
            arguments=has["arguments"],
            said=str(has["strategy"]["name"]),
            sampler=make_sampler(node.given["sampler"]) if node.given.get("sampler") else None,
            keeps_model=node.given.get("keeps_model", False),
            own_model=bool(node.path) and has["validate"] == "own",
        )
    return made[""]


def _merged(above: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {**above.get(name, {}), **own.get(name, {})} for name in {**above, **own}}


def _check(node: _Node) -> None:
    where, names = f"topology, combiner {node.path}" if node.path else "topology", {one.path for one in node.children}
    number = len(node.clients) + len(names)
    if not number:
        raise ConfigError(
            f"{where}: there is no client and no combiner below it",
            hint="give it clients or children, or remove it",
            key="topology",
        )
    if both := next((name for name in node.clients if name in names), None):
        raise ConfigError(f"{where}: a client and a combiner below it are called {both!r}", key="topology")
    if (required := node.given.get("required", 1)) > number:
        raise ConfigError(
            f"{where}: {required} replies are required, and it has {number} {'child' if number == 1 else 'children'}",
            hint="lower `required`" if node.path else "lower round.required: it counts the root's children",
            key="topology" if node.path else "round.required",
        )


def _check_validated(node: _Node, validate: str, config: RunConfig) -> None:
    """Raises ConfigError: its own model cannot be kept or validated."""
    if validate == "global" or not node.path:
        return
    where, hint = f"topology, combiner {node.path}", "validate: global"
    if (size := len(node.path.encode())) > LONGEST_PATH:
        problem = f"its path has {size} bytes, and a model of its own is on record only up to {LONGEST_PATH}"
        hint = "use shorter names; or for the deepest combiners, " + hint
    elif config.validation.every == 0:
        problem = "validate: own, but no round of the session is validated"
        hint = "set validation.every, or " + hint
    else:
        return
    raise ConfigError(f"{where}: {problem}", hint=hint, key="topology.validate")


def _check_strategy(node: _Node, section: Mapping[str, Any], strategy: Strategy) -> None:
    """Raises ConfigError: the strategy cannot be at this place of a tree."""
    traits = traits_of(strategy)
    name, where = section.get("name"), f"topology, combiner {node.path}" if node.path else "topology, the root"
    problem, hint = "", "give this combiner a strategy of its own, such as strategy: fedavg"
    if not traits.has_model:
        problem = "has no model, and combiners pass models on"
    elif traits.groups:
        problem = f"asks groups of clients ({', '.join(traits.groups)}), which belong to no single combiner"
    elif traits.in_trees == "never":
        problem = f"cannot be in a tree: {traits.why_not_in_trees or 'it says so'}"
    elif traits.entry_points != ("train",) or traits.in_trees == "above_clients":
        if not node.children:
            return
        asks = f"it asks clients for {' and '.join(traits.entry_points)}"
        problem = f"cannot have combiners below it: {traits.why_not_in_trees or asks}"
        hint += "; what a combiner does not set, it has from the one above, so set this strategy at those below"
    elif node.children and any(getattr(step, "error_feedback", False) for step in getattr(strategy, "transforms", ())):
        problem = "has transforms with error_feedback, which clients alone can keep"
    if problem:
        raise ConfigError(f"{where}: {name} {problem}", hint=hint, key="topology")
