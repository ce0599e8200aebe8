"""The modules of flwr-datasets, over local data, where it is not installed or `data.sources` names data.

Each module below ``flwr_datasets`` is made from the table ``MODULES``; its names are those of
``fedpkg.apps.federated_data``.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

from _fedpkg_names import Library  # type: ignore[import-not-found]

__version__ = "fedpkg"

_PARTITIONERS = dict.fromkeys(
    (
        *("ContinuousPartitioner", "DirichletPartitioner", "DistributionPartitioner", "ExponentialPartitioner"),
        *("GroupedNaturalIdPartitioner", "IdToSizeFncPartitioner", "IidPartitioner", "InnerDirichletPartitioner"),
        *("LinearPartitioner", "NaturalIdPartitioner", "Partitioner", "PathologicalPartitioner", "ShardPartitioner"),
        *("SizePartitioner", "SquarePartitioner", "VerticalEvenPartitioner", "VerticalSizePartitioner"),
    ),
    "fedpkg.apps.federated_data.partitioners",
)
_PREPROCESSORS = dict.fromkeys(("Divider", "Merger"), "fedpkg.apps.federated_data.preprocessors")

MODULES: dict[str, dict[str, str]] = {
    "flwr_datasets": {"FederatedDataset": "fedpkg.apps.federated_data.federated_dataset"},
    "flwr_datasets.metrics": dict.fromkeys(
        ("compute_counts", "compute_frequencies"), "fedpkg.apps.federated_data.metrics"
    ),
    "flwr_datasets.partitioner": _PARTITIONERS,
    "flwr_datasets.preprocessor": _PREPROCESSORS,
    "flwr_datasets.resplitter": _PREPROCESSORS,
    "flwr_datasets.utils": dict.fromkeys(
        ("concatenate_divisions", "divide_dataset"), "fedpkg.apps.federated_data.preprocessors"
    ),
    "flwr_datasets.visualization": {},
}

_PICTURES = "pictures of a split are drawn by `fedpkg data describe --picture FILE`, from a split that a run has made"
REASONS = dict.fromkeys(
    (
        "flwr_datasets.visualization.plot_label_distributions",
        "flwr_datasets.visualization.plot_comparison_label_distribution",
    ),
    _PICTURES,
)


__getattr__ = Library("flwr_datasets", MODULES, REASONS).look_up
