"""The section ``infer`` of a topology: how clusters are found during a run, and whether they keep their own models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from fedpkg.clusters.method import Distance, Finding, Method
from fedpkg.config_sections import Count, Section, about
from fedpkg.config_shape import Places, check_shape
from fedpkg.errors import ConfigError

Source = Literal["updates", "label_histogram", "attributes"]
INFER = "infer"  # key of the topology, and of a session's state
LABEL_HISTOGRAM = "label_histogram"  # the usual entry point that writes it
_MOST_LEVELS = 100
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class InferConfig(Section, frozen=True):
    """Clusters of clients that are found during a run."""

    cut: Annotated[
        dict[str, Any],
        about(
            "Where the method ends: `clusters`, a `distance` or bounds of `size`; bi-partition: `eps1` and `eps2`.",
            {"clusters": 4},
        ),
    ]
    source: Annotated[
        Source,
        about("What is compared: the clients' `updates`, how their labels are distributed, or their `attributes`."),
    ] = msgspec.field(default="updates", name="from")
    method: Annotated[Method, about("How clusters are found.")] = "agglomerative"
    distance: Annotated[Distance, about("`cosine` compares directions, `euclidean` also lengths.")] = "cosine"
    depth: Annotated[int, msgspec.Meta(ge=1, le=_MOST_LEVELS), about("Greatest number of levels of clusters.", 2)] = 1
    first: Annotated[Count, about("The round in which clusters are found. Before it, there are none.", 3)] = 1
    every: Annotated[
        Count | None, about("Find clusters again after this number of rounds. null: they are found once.", 10)
    ] = None
    own_models: Annotated[
        bool, about("Whether each cluster keeps a model of its own. If not, clusters are combiners of a tree.", True)
    ] = False
    shared: Annotated[
        list[str],
        about("With own models: patterns of the tensors that are the same for all clusters.", ["backbone.*"]),
    ] = msgspec.field(default_factory=list)
    attributes: Annotated[
        list[str], about("With `from: attributes`: the attributes that are compared. Empty: all.", ["region"])
    ] = msgspec.field(default_factory=list)
    minimum: Annotated[_Amount, about("With `from: label_histogram`: smaller counts of a label are 0.", 5)] = 0.0
    noise: Annotated[
        _Amount,
        about(
            "With `from: label_histogram`: the clients add Laplace noise of this scale to each count before they send "
            "it.",
            2.0,
        ),
    ] = 0.0
    entry_point: Annotated[
        str | None,
        about(
            "With `from: label_histogram`: the entry point that writes the counts of labels. Default: the split of "
            "`clients.data` tells them, or else the entry point `label_histogram` is asked.",
            "labels",
        ),
    ] = None

    @property
    def finding(self) -> Finding:
        """How clusters are found. Raises ConfigError: its parts do not go together."""
        return Finding(method=self.method, distance=self.distance, cut=self.cut, depth=self.depth)


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
    """Check the keys of ``topology.infer``, and those of the topology that must go with it.

    Raises:
        ConfigError: a key is unknown, or contradicts another; with the line.
    """
    at = ("topology", "infer")
    section = topology["infer"]
    check_shape(section, InferConfig, places, at)
    infer = infer_of(topology)
    try:
        _ = infer.finding
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
