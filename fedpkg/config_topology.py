"""The section ``topology`` of a run.yaml: trees of combiners, and clusters that are found during a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from fedpkg.config_sections import Count, Seconds, Section, about

Method: TypeAlias = Literal["agglomerative", "bipartition", "kmeans"]
Distance: TypeAlias = Literal["cosine", "euclidean"]
_MOST_LEVELS = 100
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class CombinerConfig(Section, frozen=True):
    """A combiner below the root. What it does not set, it has from the combiner above, except where it says so."""

    name: Annotated[str, about("Its name; combiners with the same parent have different ones.", "north")]
    clients: Annotated[
        list[str], about("Ids or patterns of the clients directly below it, as in `clients.groups`.", ["client-[0-4]"])
    ] = []
    children: Annotated[list[dict[str, Any]], about("The combiners directly below it.")] = []
    rounds: Annotated[
        Count, about("Number of rounds that it runs before it passes its model upward. Not from above.", 2)
    ] = 1
    required: Annotated[
        Count,
        about(
            "Least number of usable replies of its children, clients or combiners. With fewer it has failed, and "
            "passes nothing upward. Not from above.",
            2,
        ),
    ] = 1
    strategy: Annotated[
        dict[str, Any] | str | None,
        about("How it combines what its children send.", {"name": "fedavgm", "momentum": 0.9}),
    ] = None
    validate: Annotated[
        Literal["global", "own"] | None,
        about(
            "What the clients below it validate: `own` is the model that it passed upward last, which is then on "
            "record as the model of a cluster with its path.",
            "own",
        ),
    ] = None
    sampler: Annotated[
        dict[str, Any] | str | None,
        about(
            "Chooses clients of its whole subtree, anew in each of its rounds. Without it, it asks those that the "
            "nearest combiner above, or the session's `sampler`, has chosen.",
            {"fraction_train": 0.5},
        ),
    ] = None
    timeout_s: Annotated[Seconds | None, about("Time limit of its clients' answers in each of its rounds.", 60)] = None
    parameters: Annotated[
        dict[str, Any], about("Values that the clients below it find in task.json.", {"lr_scale": 0.5})
    ] = {}
    arguments: Annotated[
        dict[str, dict[str, Any]],
        about("Arguments of entry points for the clients below it, as in `arguments`.", {"train": {"lr": 0.1}}),
    ] = {}
    data: Annotated[
        dict[str, Any] | str | None,
        about(
            "A dataset that the clients below it divide among themselves, with the keys of `clients.data`; other keys "
            "than `dataset` come from the combiner above, and at the top from `clients.data`.",
            {"dataset": "south.npz"},
        ),
    ] = None


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
        Literal["updates", "label_histogram", "attributes"],
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


class TopologyConfig(Section, frozen=True):
    """The tree of combiners between the controller and the clients. The root has `strategy`, `sampler` and
    `round.required` of the run.yaml. The tree is given by one of `children`, `fanout`, `by`, `from` and `infer`.
    """

    rounds: Annotated[Count, about("Number of rounds of the root in each round of the session.")] = 1
    validate: Annotated[
        Literal["global", "own"],
        about("What clients validate: the session's global model, or that of the nearest combiner above them."),
    ] = "global"
    clients: Annotated[list[str], about("Ids or patterns of clients directly below the root.", ["client-9"])] = []
    children: Annotated[list[dict[str, Any]], about("The combiners directly below the root.")] = []
    file: Annotated[
        str | None,
        about(
            "A YAML file with a section `topology`, such as `fedpkg cluster infer` makes, in place of the others.",
            "tree.yaml",
        ),
    ] = None
    fanout: Annotated[
        list[Count] | None,
        about(
            "The number of combiners below the root, below each of those, and so on. The clients are dealt in their "
            "order to the combiners at the bottom.",
            [4, 8, 16],
        ),
    ] = None
    by: Annotated[
        str | None,
        about(
            "A combiner for each value of an attribute of `clients.entities`, or of a column of the dataset in "
            "`clients.data` that has one value within each client's examples; `top_label`: for each label, with the "
            "clients that have it most often.",
            "country",
        ),
    ] = None
    then: Annotated[
        list[str],
        about("With `by`: attributes or columns whose values make the combiners below, and below those.", ["region"]),
    ] = []
    source: Annotated[
        Literal["entities"] | None,
        about("`entities`: each entity that is the parent of others is a combiner.", "entities"),
    ] = msgspec.field(default=None, name="from")
    infer: Annotated[
        InferConfig | None,
        about(
            "Clusters of clients that are found during the run: from what, how, and whether they keep own models.",
            {"from": "updates", "cut": {"clusters": 4}, "own_models": True},
        ),
    ] = None
    others: Annotated[
        Literal["root", "refuse"],
        about("Clients that no pattern matches: `root` puts them directly below the root, `refuse` is an error."),
    ] = "refuse"
    defaults: Annotated[
        dict[str, Any],
        about("Keys of the combiners that `fanout`, `by`, `from` or `infer` make, such as rounds.", {"rounds": 2}),
    ] = {}
