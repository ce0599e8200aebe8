"""The base of the sections of a run.yaml, the bounds of their numbers, and the sections about measuring models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
Width = Annotated[int, msgspec.Meta(ge=1, le=1024)]  # of things that this machine does at the same time
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Part = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Spread = Annotated[float, msgspec.Meta(ge=0, le=10)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e8)]  # three years; system clocks overflow at 1e9 to 1e10
Files = Annotated[int, msgspec.Meta(ge=16)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
GB = 10**9


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, and a misspelt key is an error."""


def about(text: str, *examples: Any) -> msgspec.Meta:
    """A key's description and examples, as ``fedpkg config explain`` and the documentation show them."""
    return msgspec.Meta(description=text, examples=list(examples) or None)


class ValidationConfig(Section, frozen=True):
    """When clients validate the global model, and how many of them."""

    every: Annotated[CountOrZero, about("Validate after every N rounds, and after the last one. 0: never.", 5)] = 1
    fraction: Annotated[
        Share,
        about("Fraction of the clients that validate; the same fraction of the clients in `sampler.held_out`.", 0.2),
    ] = 1.0
    count: Annotated[
        Count | None,
        about("Number of clients that validate, instead of a fraction; likewise of the held-out clients.", 20),
    ] = None


class StopConfig(Section, frozen=True):
    """When a session ends before its last round, and which of its models is the best one."""

    metric: Annotated[
        str,
        about(
            "The metric that decides, as the table of rounds shows it (the weighted mean over the clients). The "
            "prefixes `train/`, `held_out/` and `server/` mean those that are reported with updates, of held-out "
            "clients, and on the server's data.",
            "test_accuracy",
        ),
    ]
    at_least: Annotated[float | None, about("Stop when the metric reaches this value from below.", 0.95)] = None
    at_most: Annotated[float | None, about("Stop when the metric reaches this value from above.", 0.1)] = None
    patience: Annotated[
        Count | None,
        about("Stop when the metric has not improved for this number of rounds in which it was measured.", 5),
    ] = None
    min_delta: Annotated[
        Annotated[float, msgspec.Meta(ge=0)], about("A smaller change of the metric is no improvement.", 0.001)
    ] = 0.0
    mode: Annotated[
        Literal["max", "min"] | None,
        about(
            "Whether the highest or the lowest value is best. Default: `min` with at_most, and for metrics whose name "
            "contains loss, error, mse, mae, rmse, nll or perplexity as a word; otherwise `max`.",
            "min",
        ),
    ] = None


class AppDataConfig(Section, frozen=True):
    """Datasets that message apps name in their code, and divide themselves (`FederatedDataset`)."""

    sources: Annotated[
        dict[str, str | dict[str, Any]],
        about(
            "The data that a dataset's name stands for, by its whole name or the last part of it: the path of a file "
            "or of a folder of images by class, the name of a dataset, or a section, as in `clients.data.dataset`. "
            "`{train: …, test: …}` has one of these for each split; `rename` in a section gives columns other names.",
            {"cifar10": "cifar10.npz", "mnist": {"train": "mnist/train", "test": "mnist/test"}},
        ),
    ] = {}
    digests: Annotated[
        dict[str, str], about("Digests of the sources. Default: those of the time when the session begins.")
    ] = {}


class ServerDataConfig(Section, frozen=True):
    """Data of the server, on which each validated round's model is measured."""

    data: Annotated[str, about("Path of the data: a file or folder, as the entry point expects it.", "data/test.npz")]
    entry_point: Annotated[
        str, about("The entry point that measures the model. It writes metrics, as `validate` does.", "evaluate")
    ] = "validate"


class EvaluationConfig(Section, frozen=True):
    """Measurements besides the clients' validation of each round's model."""

    before_training: Annotated[
        bool,
        about(
            "Whether the clients of a round validate the global model that they get before they train. It costs one "
            "more task per client and round.",
            True,
        ),
    ] = False
    after_training: Annotated[
        bool,
        about(
            "Whether the clients of a round validate their own updates. It costs one more task per client and round.",
            True,
        ),
    ] = False
    server: Annotated[
        ServerDataConfig | None,
        about("Data of the server, on which the model is measured when the clients validate.", {"data": "test.npz"}),
    ] = None
