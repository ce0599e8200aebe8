"""The run configuration: one run.yaml, dotted overrides, and where each value came from."""

from __future__ import annotations

from typing import Literal

import msgspec

from fedpkg.types import Json


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, and a misspelt key is an error."""


class PartitionConfig(Section):
    """How one dataset is split among the clients."""

    name: Literal["iid", "dirichlet"] = "iid"
    alpha: float = 0.5  # Dirichlet concentration: small means skewed labels
    min_examples: int = 1  # every client gets at least so many training examples
    seed: int | None = None  # default: the run's seed


class DataConfig(Section):
    """One dataset that fedpkg splits: a file with x_train, y_train, x_test, y_test, or a named dataset."""

    dataset: str  # path of an .npz or .pt file, or a name such as sklearn/digits
    partition: PartitionConfig = PartitionConfig()


class ClientsConfig(Section):
    """Who takes part, and where each client's data is."""

    count: int | None = None  # so many clients, named client-0 …
    folders: str | None = None  # a pattern: one folder (or file) per client, the client is named after it
    data: DataConfig | None = None  # needs count


class SamplerConfig(Section):
    """Who is asked to train in a round."""

    name: Literal["uniform"] = "uniform"
    fraction_train: float = 1.0  # share of the clients asked each round
    min_clients: int = 1  # but at least so many
    over_selection: float = 0.0  # ask this share more; the first answers count


class RoundConfig(Section):
    required: int = 1  # usable updates without which a round, and the session, stops
    timeout_s: float | None = None  # a round ends after so many seconds, with the updates it has


class ValidationConfig(Section):
    every: int = 1  # validate every k rounds (and after the last one); 0: never
    fraction: float = 1.0  # share of the clients asked


class StrategyConfig(Section):
    name: Literal["fedavg"] = "fedavg"


class ExecutorConfig(Section):
    name: Literal["forkserver", "process"] = "forkserver"
    workers: int | Literal["auto"] = "auto"  # tasks at the same time
    threads: int = 1  # threads of one task
    timeout_s: float | None = None  # wall time of one task


class LimitsConfig(Section):
    log_bytes: int = 1 << 20  # kept of each of a task's stdout and stderr
    reply_bytes: int | None = None  # biggest file taken from a client; default: from the seed model's size
    package_bytes: int = 4 << 30  # unpacked size of a package
    package_members: int = 100_000


class KeepConfig(Section):
    updates: bool = False  # keep every client's update file after the round


class RunConfig(Section):
    """Everything that decides a session's result. Paths are absolute after loading."""

    package: str  # folder with fedn.yaml, or its archive
    rounds: int
    clients: ClientsConfig
    name: str = "session"
    seed: int = 0
    seed_model: str | None = None  # default: made by the package's build entry point
    sampler: SamplerConfig = SamplerConfig()
    round: RoundConfig = RoundConfig()
    strategy: StrategyConfig = StrategyConfig()
    validation: ValidationConfig = ValidationConfig()
    executor: ExecutorConfig = ExecutorConfig()
    arguments: dict[str, dict[str, Json]] = {}  # per entry point (or `all`): --key=value
    environment: dict[str, str] = {}  # environment variables of every task
    run_config: dict[str, Json] = {}  # free values, handed to every task in task.json
    limits: LimitsConfig = LimitsConfig()
    keep: KeepConfig = KeepConfig()
