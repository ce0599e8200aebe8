"""The section ``infer`` of a topology: how clusters are found during a run, and whether they keep their own models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fedpkg.clusters.method import OF_UPDATES, Finding
from fedpkg.config_shape import Places
from fedpkg.config_topology import InferConfig
from fedpkg.errors import ConfigError

INFER = "infer"  # key of the topology, and of a session's state
LABEL_HISTOGRAM = "label_histogram"  # the usual entry point that writes it


def finding_of(infer: InferConfig) -> Finding:
    """How clusters are found. Raises ConfigError: its parts do not go together."""
    return Finding(method=infer.method, distance=infer.distance, cut=infer.cut, depth=infer.depth)


_OF_A_SOURCE = {
    "attributes": "attributes",
    "minimum": "label_histogram",
    "noise": "label_histogram",
    "entry_point": "label_histogram",
}
_OF_DEFAULTS = {
    "sampler": "`sampler` of the run.yaml chooses the clients of all clusters",
    "arguments": "`arguments` of the run.yaml has those of all clusters",
}


def infer_of(topology: Mapping[str, Any]) -> InferConfig:
    """The section of a topology that was checked."""
    return msgspec.convert(topology["infer"], InferConfig)


def check_infer(topology: Mapping[str, Any], places: Places) -> None:
    """Check that the keys of ``topology.infer``, and others of the topology, go together.

    Raises:
        ConfigError: a key contradicts another; with the line.
    """
    at = ("topology", "infer")
    infer = infer_of(topology)
    try:
        finding_of(infer)
    except ConfigError as error:
        key = error.message.partition(":")[0].partition(".")[0]
        raise ConfigError(
            f"{places.where((*at, key))}: topology.infer.{error.message}", hint=error.hint, key=f"topology.infer.{key}"
        ) from error
    for key, message, hint in _contradictions(topology, infer):
        where = places.where(("topology", *key.split(".")))
        raise ConfigError(f"{where}: topology.{key}: {message}", hint=hint, key=f"topology.{key}")


def _contradictions(topology: Mapping[str, Any], infer: InferConfig) -> Iterator[tuple[str, str, str]]:
    """Keys that do not go with the others, each with the reason and what to do."""
    for key, source in _OF_A_SOURCE.items():
        if topology["infer"].get(key) and infer.source != source:
            yield f"infer.{key}", f"it goes with from: {source}", f"set topology.infer.from={source}, or remove it"
    if infer.method == "bipartition" and infer.source != "updates":
        hint = "set topology.infer.from=updates, or topology.infer.method=agglomerative or kmeans, each with its cut"
        yield "infer.method", OF_UPDATES, hint
    if infer.shared and not infer.own_models:
        message = "without own models, all tensors are the same for all clusters"
        yield "infer.shared", message, "set topology.infer.own_models=true, or remove it"
    if infer.every is not None and infer.source == "attributes":
        yield "infer.every", "attributes do not change during a run", "remove it"
    if infer.own_models and topology.get("rounds", 1) > 1:
        message = "with own models, the root has no rounds of its own"
        yield "rounds", message, "set the rounds of the clusters: topology.defaults.rounds"
    defaults = topology.get("defaults") or {}
    if infer.own_models and defaults.get("strategy"):
        message = "with own models, each cluster has the strategy of the session"
        yield "defaults.strategy", message, "set it as `strategy` of the run.yaml"
    if infer.own_models and "own" in (topology.get("validate"), defaults.get("validate")):
        yield "validate", "with own models, clients validate that of their cluster anyway", "remove it"
    for key, hint in _OF_DEFAULTS.items():
        if defaults.get(key):
            yield f"defaults.{key}", "clusters that are found cannot have it", hint
