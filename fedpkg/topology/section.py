"""The section ``topology`` of a run.yaml: the keys of a combiner, and the checks that need no clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedpkg.config import DataConfig
from fedpkg.config_reading import absolute_paths
from fedpkg.config_shape import Places, check_shape
from fedpkg.config_topology import CombinerConfig, TopologyConfig
from fedpkg.errors import ConfigError
from fedpkg.files import read_bounded
from fedpkg.types import Json
from fedpkg.yaml_places import read_yaml

_MAX_BYTES = 4 << 20
_SHAPES = ("children", "fanout", "by", "from", "infer")


def resolve_topology(section: Mapping[str, Json], places: Places) -> dict[str, Json]:
    """A run.yaml's ``topology``, checked, with the strategies and samplers of its combiners completed.

    Raises:
        ConfigError: it is wrong; with the line.
    """
    root = ("topology",)
    if section.get("file"):
        section, places = _from_file(section, places)
    check_shape(dict(section), TopologyConfig, places, root)
    given = [key for key in _SHAPES if section.get(key)]
    if len(given) != 1 and not (not given and section.get("clients")):
        what = (
            "both '" + "' and '".join(given) + "'" if given else "neither " + ", ".join(f"'{one}'" for one in _SHAPES)
        )
        raise ConfigError(
            f"{places.where(root)}: 'topology' has {what}; one of them describes the tree",
            hint="children: [{name: north, clients: [client-0, client-1]}, …], fanout: [4, 8], by: region, "
            "from: entities, or infer: {cut: {clusters: 4}}",
            key="topology",
        )
    for key in ("clients", "others"):
        if section.get(key) and given not in (["children"], []):
            raise ConfigError(
                f"{places.where((*root, key))}: 'topology.{key}' goes with 'children' only; '{given[0]}' places all "
                "clients",
                key=f"topology.{key}",
            )
    if section.get("defaults") and given in (["children"], []):
        raise ConfigError(
            f"{places.where((*root, 'defaults'))}: 'topology.defaults' goes with 'fanout', 'by', 'from' and 'infer'",
            hint="combiners in 'children' have keys of their own; those below a combiner have its strategy, limits, "
            "parameters and arguments",
            key="topology.defaults",
        )
    if section.get("then") and given != ["by"]:
        raise ConfigError(
            f"{places.where((*root, 'then'))}: 'topology.then' goes with 'by', the first attribute",
            key="topology.then",
        )
    found: dict[str, Any] = _copy(dict(section))
    for path, node in _nodes(found):
        at = (*root, *path)
        check_shape(node, CombinerConfig, places, at)
        _resolve_parts(node, places, at)
    if isinstance(defaults := found.get("defaults"), dict) and defaults:
        at = (*root, "defaults")
        check_shape({"name": "each", **defaults}, CombinerConfig, places, at)
        if wrong := next((key for key in ("name", "clients", "children", "data") if key in defaults), None):
            raise ConfigError(
                f"{places.where((*at, wrong))}: 'defaults' cannot have '{wrong}'", key="topology.defaults"
            )
        _resolve_parts(defaults, places, at)
    return found


def sets_data(section: Mapping[str, Json] | None) -> bool:
    """Whether a combiner has ``data``."""
    return any(node.get("data") for _, node in _nodes(dict(section or {})))


def _from_file(section: Mapping[str, Json], places: Places) -> tuple[Mapping[str, Json], Places]:
    """The section in a file of its own; the session's configuration has it, and not the file."""
    if len(section) > 1:
        raise ConfigError(
            f"{places.where(('topology', 'file'))}: 'topology.file' stands alone; the file has the other keys",
            hint="on the command line, replace the section: topology='{file: tree.yaml}'",
            key="topology.file",
        )
    path = Path(str(section["file"]))
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{places.where(('topology', 'file'))}: {path} cannot be read: {reason}", key="topology.file"
        ) from error
    tree, lines = read_yaml(text, source=str(path))
    sections: dict[str, Json] = tree if isinstance(tree, dict) else {}
    found = sections.get("topology")
    if not isinstance(found, dict) or "file" in found:
        raise ConfigError(f"{path}: there is no section 'topology' that describes a tree", key="topology.file")
    places = Places(str(path.absolute()), lines)
    if others := [key for key in sections if key != "topology"]:
        raise ConfigError(
            f"{places.where((others[0],))}: '{others[0]}' stands beside the section 'topology', and nothing "
            "else of this file is read",
            hint="indent it, if it belongs to the tree, or move it to the run.yaml",
            key="topology.file",
        )
    absolute_paths({"topology": found}, places)
    return found, places


def _resolve_parts(node: dict[str, Any], places: Places, at: tuple[str, ...]) -> None:
    from fedpkg.samplers import resolve_sampler
    from fedpkg.strategies import resolve_strategy

    for key, resolve in (("strategy", resolve_strategy), ("sampler", resolve_sampler)):
        if (part := node.get(key)) is not None:
            node[key] = resolve({"name": part} if isinstance(part, str) else part, places, (*at, key))
    if (data := node.get("data")) is not None:
        data = {"dataset": data} if isinstance(data, str) else data
        node["data"] = _resolved_data(data, places, (*at, "data"))


def _resolved_data(data: dict[str, Any], places: Places, at: tuple[str, ...]) -> dict[str, Any]:
    """The section ``data`` of a combiner; keys that it does not have are left out, as they come from above."""
    from fedpkg.data.partitioners import resolve_partition  # here: it imports NumPy
    from fedpkg.data.sources.registry import resolve_dataset

    if "dataset" not in data:
        raise ConfigError(
            f"{places.where(at)}: 'data' of a combiner names no 'dataset'",
            hint="the dataset above it is divided among all clients there at once, by one partition; name a dataset "
            "that the clients below this combiner alone divide",
            key=".".join(at),
        )
    check_shape(data, DataConfig, places, at)
    found = {**data, "dataset": resolve_dataset(data["dataset"], places, (*at, "dataset"))}
    if "partition" in data:
        found["partition"] = resolve_partition(data["partition"], places, (*at, "partition"))
    return found


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _nodes(section: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The combiners of a section with the keys that lead to them."""
    waiting: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), section)]
    while waiting:
        path, node = waiting.pop()
        if path:
            yield path, node
        children = node.get("children") or []
        for number, child in reversed(list(enumerate(children))):
            waiting.append(((*path, "children", str(number)), child))
