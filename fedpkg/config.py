"""The run configuration: the keys of a run.yaml, with their types, bounds and defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from fedpkg.apps.scikit import NAMES
from fedpkg.config_sections import (
    GB,
    Amount,
    AppDataConfig,
    Count,
    CountOrZero,
    EvaluationConfig,
    Files,
    Part,
    Seconds,
    Section,
    Spread,
    StopConfig,
    ValidationConfig,
    Width,
    about,
)
from fedpkg.fedn.helpers import BareHelper, NpzHelper

if TYPE_CHECKING:
    from fedpkg.types import Json
else:
    Json = Any  # msgspec cannot follow a type that contains itself

PythonEnv = Literal["auto", "current", "none"]
NAMED_DATASETS = NAMES
DATASET_SUFFIXES = (".npz", ".pt", ".safetensors", ".csv", ".parquet")
PATHS_OF_A_SOURCE = ("path", "file", "database")  # keys of a section of a dataset; it has one of these, or `name`


class DataConfig(Section, frozen=True):
    """One dataset that fedpkg splits among the clients."""

    dataset: Annotated[
        dict[str, Json] | str,
        about(
            "The name of a dataset (sklearn/digits, sklearn/breast_cancer, sklearn/wine, sklearn/iris), the path of a "
            "file (.npz, .pt or .safetensors with x_train, y_train, x_test and y_test; .csv or .parquet with a column "
            "label), module:Class of a torch Dataset, or a section: the name of a kind of dataset with its parameters "
            "(`fedpkg data list`).",
            "sklearn/digits",
            {"name": "csv", "path": "patients.csv", "label": "diagnosis"},
        ),
    ]
    partition: Annotated[
        dict[str, Json],
        about(
            "How the dataset is split among the clients: the name of a partitioner with its parameters, and the "
            "options that all have (`fedpkg data list`). Default: `iid`.",
            {"name": "dirichlet", "alpha": 0.5},
        ),
    ] = {}
    within: Annotated[
        dict[str, Part],
        about(
            "Fractions of each client's training examples that become other parts: `test` gives x_test and y_test, "
            "`validation` x_validation and y_validation.",
            {"validation": 0.1, "test": 0.2},
        ),
    ] = {}
    form: Annotated[
        Literal["files", "references"],
        about(
            "`files`: each client gets a file with its examples. `references`: each gets a small JSON file, and "
            "`fedpkg.client.open_data` maps its examples in the file of the dataset, so that nothing is copied for a "
            "client. Isolated tasks get files in any case.",
            "references",
        ),
    ] = "files"


class ClientsConfig(Section, frozen=True):
    """The clients, and where the data of each one is."""

    count: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10**6)] | None,
        about(
            "Number of clients, named client-0, client-1 … With `folders`, only the first of them take part. Some "
            "partitions, such as natural_id, can tell it from the data.",
            10,
        ),
    ] = None
    folders: Annotated[
        str | None,
        about(
            "A pattern of paths. Each folder or file that matches is the data of one client, which is named after it.",
            "data/clients/*",
        ),
    ] = None
    data: Annotated[
        DataConfig | None,
        about("A dataset that fedpkg splits among `count` clients.", {"dataset": "sklearn/digits"}),
    ] = None
    entities: Annotated[
        str | None,
        about(
            "A YAML or CSV file that lists who takes part: id, parent, data, and attributes of any name. The entities "
            "that are no parent are the clients. Attributes can be used in `groups`, and in `arguments` and "
            "`environment` as {attributes.NAME}.",
            "entities.yaml",
        ),
    ] = None
    entities_sha256: Annotated[
        str | None, about("Digest of the file of entities. Default: the digest when the session begins.")
    ] = None
    databases: Annotated[
        dict[str, str],
        about(
            "Databases of the clients by label, for the strategy `algorithm`. Each is a pattern of paths with one match"
            " for each client, or a URL; {client_id} is the client's id. A match belongs to the client whose id is in "
            "its path, or else to the next client. Without it, a client's data is its database `default`.",
            {"default": "data/*.csv"},
        ),
    ] = {}
    node_config: Annotated[
        str | None,
        about(
            "A folder with the configurations of nodes, one file for each client, named after it (hospital-a.yaml): "
            "its databases, its environment and its policy. For the strategy `algorithm`.",
            "nodes",
        ),
    ] = None
    links: Annotated[
        dict[str, str],
        about(
            "Links to a client's data, for packages that expect it at a fixed place. Each key is a path as the program "
            "writes it, relative to the folder of fedn.yaml (`data`, `../data`; with isolation also `/app/data`). Its "
            "value is `.` for all of the client's data, a path in it, or the absolute path of a file that all clients "
            "may read. The link is made in or around the client's working copy of the package.",
            {"data": "."},
        ),
    ] = {}
    groups: Annotated[
        dict[str, list[str]],
        about(
            "Named groups of clients: lists of client ids, of patterns that match ids or, with `entities`, of patterns "
            "of an attribute (device=phone*, parent=north). Some strategies ask them separately (vrcs: f, g and "
            "server); samplers can draw a number from each.",
            {"phones": ["phone-*"], "servers": ["client-0"]},
        ),
    ] = {}
    environment: Annotated[
        dict[str, dict[str, str]],
        about(
            "Environment variables for the tasks of the clients of a group, in addition to `environment`.",
            {"attackers": {"ATTACK": "sign_flip"}},
        ),
    ] = {}


class RoundConfig(Section, frozen=True):
    """When a round is complete, and how much each update counts."""

    required: Annotated[
        Count,
        about(
            "Least number of usable updates. With fewer, the session stops and can be resumed. A strategy may require "
            "more.",
            3,
        ),
    ] = 1
    timeout_s: Annotated[
        Seconds | None,
        about(
            "Wall-clock limit of a round in seconds; of each request, if a strategy sends several in a round. The "
            "round then continues with the updates that have arrived. null: no limit.",
            60,
        ),
    ] = None
    weighting: Annotated[
        Literal["examples", "equal"],
        about(
            "`examples` weights each update by its number of training examples. `equal` gives all updates the same "
            "weight; they then need no `num_examples`.",
            "equal",
        ),
    ] = "examples"


class ClockConfig(Section, frozen=True):
    """How long tasks take, in virtual seconds. With a clock, the order of the replies follows from these numbers."""

    seconds: Annotated[
        dict[str, Amount],
        about(
            "Virtual seconds of a task, by client id or pattern. The first pattern that matches counts. Other clients "
            "take 1 second.",
            {"phone-*": 5.0},
        ),
    ] = {}
    spread: Annotated[
        Spread, about("How much clients differ: each one's times are scaled by exp(spread z), with z ~ N(0, 1).", 0.5)
    ] = 0.5
    jitter: Annotated[Spread, about("How much the tasks of one client differ, in the same way.", 0.1)] = 0.1
    bytes_per_s: Annotated[
        Annotated[float, msgspec.Meta(ge=1e-6, le=1e18)] | None,
        about("Bandwidth in bytes per virtual second, for the model on its way down and up. null: unlimited.", 1e6),
    ] = None
    links: Annotated[
        dict[str, Amount],
        about(
            "Bandwidth between combiners of a `topology` and the ones above them, in bytes per virtual second, by path "
            "or pattern. The first pattern that matches counts. Others take no time.",
            {"north/*": 1e5, "*": 1e8},
        ),
    ] = {}


class NeedsConfig(Section, frozen=True):
    """What one task needs. `executor.workers: auto` counts with it; it reserves, and limits nothing (see `limits`)."""

    gpus: Annotated[
        float,
        about(
            "GPUs of one task: a fraction (0.5 places two tasks on each GPU) or a whole number. With 0, tasks see no "
            "GPU.",
            0.5,
        ),
    ] = 0
    gpu_memory_bytes: Annotated[
        Count | None,
        about(
            "Memory of one task on each of its GPUs, in bytes. A GPU gets as many tasks as its free memory holds.",
            4 * GB,
        ),
    ] = None
    memory_bytes: Annotated[Count | None, about("Main memory of one task, in bytes.", 2 * GB)] = None


class ExecutorConfig(Section, frozen=True):
    """What runs the tasks, and how many at a time."""

    name: Annotated[
        Literal["forkserver", "process", "resident"],
        about(
            "`process` starts a new interpreter for each task. `forkserver` forks one that has imported the package's "
            "libraries. `resident` runs many tasks in one interpreter, which is restored between them.",
            "resident",
        ),
    ] = "forkserver"
    workers: Annotated[
        Width | Literal["auto"],
        about("Number of tasks that run at the same time. `auto`: as many as this machine can hold.", 4),
    ] = "auto"
    threads: Annotated[Width, about("Number of threads of one task (OMP_NUM_THREADS and the like).", 2)] = 1
    needs: Annotated[NeedsConfig, about("What one task needs.", {"gpus": 0.5})] = NeedsConfig()
    timeout_s: Annotated[
        Seconds | None,
        about("Wall-clock limit of one task in seconds. A task that takes longer is ended and has failed.", 600),
    ] = None


class LimitsConfig(Section, frozen=True):
    """What one task may use and write, and how large a package may be. null: no limit."""

    memory_bytes: Annotated[
        Count | Literal["auto"] | None,
        about("Memory of all processes of a task together, in bytes. `auto`: 90 % of the machine's memory.", 4 * GB),
    ] = "auto"
    cpu_s: Annotated[Seconds | None, about("Processor time of all processes of a task together, in seconds.", 600)] = (
        None
    )
    file_bytes: Annotated[Count | None, about("Size of each file that a task writes, in bytes.", GB)] = 8 << 30
    folder_bytes: Annotated[
        Count | None,
        about("Size of all files in a task's working copy, state and task folder together, in bytes.", 4 * GB),
    ] = 16 << 30
    folder_files: Annotated[
        Count | None, about("Number of files and folders there, not counting those of the package.", 1000)
    ] = 50_000
    open_files: Annotated[
        Files | None,
        about("Number of files that each process may have open. null: the limit of the machine.", 256),
    ] = None
    processes: Annotated[
        Count | None,
        about("Number of processes of a task at the same time. They may have 8 threads each on average.", 64),
    ] = 512
    log_bytes: Annotated[CountOrZero, about("Bytes that are kept of stdout and of stderr of each task.", 100_000)] = (
        1 << 20
    )
    reply_bytes: Annotated[
        Count | None,
        about("Largest reply that is accepted from a client, in bytes. Default: derived from the seed model.", GB),
    ] = None
    package_bytes: Annotated[Count, about("Size of an unpacked package, in bytes.", GB)] = 4 << 30
    package_members: Annotated[Count, about("Number of files and folders in a package.", 10_000)] = 100_000


class IsolateConfig(Section, frozen=True):
    """Isolation: tasks see only their package, their own folders and their data. Linux only; not with `resident`."""

    enabled: Annotated[bool, about("Whether tasks are isolated.", True)] = False
    network: Annotated[bool, about("Whether isolated tasks can use the network.", True)] = False
    read: Annotated[list[str], about("More files and folders that all isolated tasks can read.", ["/data/shared"])] = []


class KeepConfig(Section, frozen=True):
    """Which files stay after a round. A rule is `all`, `last N` (rounds) or `every N` (rounds N, 2N …)."""

    updates: Annotated[bool, about("Whether the update file of every client is kept after its round.", True)] = False
    models: Annotated[
        str,
        about(
            "Which global models are kept. The seed model, the newest model and those that the strategy's state needs "
            "are always kept.",
            "last 5",
        ),
    ] = "all"
    task_folders: Annotated[
        str, about("Which rounds keep the logs and task.json of their tasks. Kept updates stay in any case.", "last 10")
    ] = "all"


class TrustConfig(Section, frozen=True):
    """Which packages may run."""

    allow: Annotated[
        list[str] | None,
        about(
            "The packages that may run: `sha256:<hex>` names a package by its digest, `ed25519:<base64>` or the path "
            "of a public key names a signer. null: every package.",
            ["alice.pub"],
        ),
    ] = None
    signature: Annotated[
        str | None,
        about("Path of the package's signature. Default: the file beside the package (package.tar.gz.sig)."),
    ] = None


MOST_ROUNDS = 10**9


class RunConfig(Section, frozen=True):
    """A run.yaml: everything that decides the result of a session. Relative paths start at the file's folder."""

    package: Annotated[
        str, about("The compute package: a folder with a fedn.yaml, or an archive of it.", "package.tar.gz")
    ]
    rounds: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=MOST_ROUNDS)] | None,
        about("Number of rounds to run. null: the strategy ends the session (strategies that run a program).", 10),
    ]
    clients: Annotated[ClientsConfig, about("The clients, and where the data of each one is.", {"count": 10})]
    data: Annotated[
        AppDataConfig,
        about("Datasets that a message app names in its code.", {"sources": {"cifar10": "cifar10.npz"}}),
    ] = AppDataConfig()
    name: Annotated[
        str, about("Name of the session; its id is this name followed by the time of its start.", "digits")
    ] = "session"
    seed: Annotated[
        CountOrZero,
        about("Seed of all random draws. The same configuration and seed give the same models, bit for bit.", 1),
    ] = 0
    replay: Annotated[
        str | None,
        about(
            "Id of a session with the same home, package and seed. What depended on time in that session is repeated: "
            "which replies counted, and the order in which outstanding ones arrived.",
        ),
    ] = None
    seed_model: Annotated[
        str | None,
        about(
            "Path of the model that the first round starts from. Default: the package makes it (entry point build).",
            "seed.npz",
        ),
    ] = None
    helper: Annotated[
        NpzHelper | BareHelper | None,
        about(
            "FEDn's name for the format of model files. Default: the format of the seed model, or that of the helper "
            "that the package's scripts name.",
            "numpyhelper",
        ),
    ] = None
    buffers: Annotated[
        list[str] | None,
        about(
            "Patterns of tensor names that are buffers (running statistics) and not parameters. Default: as defined by "
            "the metadata of the seed model, or by the names. []: no tensor is a buffer.",
            ["*.running_mean", "*.running_var"],
        ),
    ] = None
    sampler: Annotated[
        dict[str, Json],
        about(
            "How the clients of a round are chosen: the name of a sampler with its parameters, and the options that "
            "all samplers have (`fedpkg sampler list`).",
            {"name": "uniform", "fraction_train": 0.1},
        ),
    ] = msgspec.field(default_factory=lambda: {"name": "uniform"})
    clock: Annotated[
        ClockConfig | None,
        about("A virtual clock that decides how long tasks take. null: replies arrive in real time.", {"spread": 0.5}),
    ] = None
    round: Annotated[
        RoundConfig, about("When a round is complete, and how much each update counts.", {"required": 3})
    ] = RoundConfig()
    strategy: Annotated[
        dict[str, Json],
        about(
            "The name of a strategy with its parameters (`fedpkg strategy list`), or `aggregator` and "
            "`server_optimiser`. With `file`, a strategy that the file registers.",
            {"name": "fedavgm", "momentum": 0.9},
        ),
    ] = msgspec.field(default_factory=lambda: {"name": "fedavg"})
    topology: Annotated[
        dict[str, Json] | None,
        about(
            "A tree of combiners between the controller and the clients, of any depth: each runs rounds of its own "
            "strategy over its children and passes one model upward. null: the controller combines all updates.",
            {"children": [{"name": "north", "rounds": 2, "clients": ["client-[0-4]"]}]},
        ),
    ] = None
    validation: Annotated[
        ValidationConfig, about("When clients validate the global model, and how many of them.", {"every": 5})
    ] = ValidationConfig()
    evaluation: Annotated[
        EvaluationConfig,
        about("Measurements besides the clients' validation of each round's model.", {"before_training": True}),
    ] = EvaluationConfig()
    stop: Annotated[
        StopConfig | None,
        about(
            "When the session ends before its last round. null: it runs all rounds.",
            {"metric": "test_accuracy", "at_least": 0.95},
        ),
    ] = None
    tracking: Annotated[
        list[str | dict[str, Json]],
        about(
            "Tools that get the metrics of each round: csv, tensorboard, mlflow, wandb, or one of your own. A line of "
            "JSON for each round is always written. Trackers do not change the result of a session.",
            ["csv", {"name": "tensorboard", "histograms": True}],
        ),
    ] = []
    executor: Annotated[
        ExecutorConfig, about("What runs the tasks, and how many at a time.", {"name": "resident", "workers": 4})
    ] = ExecutorConfig()
    python_env: Annotated[
        PythonEnv,
        about(
            "`auto` makes a virtual environment for a package that requires what the Python that runs fedpkg lacks. "
            "`current` uses that Python in any case. `none` leaves `python` to PATH.",
            "current",
        ),
    ] = "auto"
    startup: Annotated[
        Literal["run", "once", "skip"],
        about(
            "When the package's entry point `startup` runs. run: before each client's first task. once: before the "
            "first round, and all clients start from the files that it left. skip: never.",
            "once",
        ),
    ] = "run"
    arguments: Annotated[
        dict[str, dict[str, Json]],
        about(
            "Arguments of each entry point, appended to its command as --key=value, or in the `argument_style`. Those "
            "under `all` go to every entry point that clients run (train, validate, predict).",
            {"train": {"lr": 0.1, "epochs": 5}},
        ),
    ] = {}
    argument_style: Annotated[
        str | None,
        about(
            "How arguments are written: `flags` (--lr=0.1), `assignments` (lr=0.1, as hydra reads them), `words` (only "
            "the values), or a template of the words of one argument. Default: as the package's fedn.yaml defines it, "
            "or else flags.",
            "--set {name}={value}",
        ),
    ] = None
    environment: Annotated[dict[str, str], about("Environment variables of every task.", {"MODE": "fast"})] = {}
    run_config: Annotated[
        dict[str, Json], about("Values of any kind that every task finds in its task.json.", {"temperature": 0.5})
    ] = {}
    limits: Annotated[LimitsConfig, about("What one task may use and write.", {"memory_bytes": 4 * GB})] = (
        LimitsConfig()
    )
    isolate: Annotated[
        IsolateConfig, about("Isolation of the tasks from the rest of the machine.", {"enabled": True})
    ] = IsolateConfig()
    keep: Annotated[KeepConfig, about("Which files stay after a round.", {"models": "last 5"})] = KeepConfig()
    trust: Annotated[TrustConfig, about("Which packages may run.", {"allow": ["alice.pub"]})] = TrustConfig()

    @property
    def most_rounds(self) -> int:
        """The number of rounds after which the session ends, if its strategy does not end it before."""
        return MOST_ROUNDS if self.rounds is None else self.rounds


@dataclass(frozen=True)
class KeepRule:
    """The rounds whose files are kept. ``kind`` is all, last or every; ``number`` is its N."""

    ALLOWED: ClassVar[str] = "'all', 'last N' or 'every N', N a whole number from 1"

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> KeepRule | None:
        """The rule in ``text``; None if it is not a rule."""
        if text == "all":
            return cls("all")
        words = re.fullmatch(r"(last|every) ([1-9][0-9]{0,9})", text)
        return None if words is None else cls(words[1], int(words[2]))

    def keeps(self, round_number: int, *, done: int) -> bool:
        """Whether this round's files are kept when ``done`` rounds are finished."""
        if self.kind == "last":
            return round_number > done - self.number
        return self.kind == "all" or round_number % self.number == 0

    def keeps_any(self, first: int, end: int, *, done: int) -> bool:
        """Whether `keeps` holds for any round from ``first`` to before ``end``."""
        last = end - 1 if self.kind != "every" else (end - 1) // self.number * self.number
        return last >= first and self.keeps(last, done=done)

    def __str__(self) -> str:
        return "all" if self.kind == "all" else f"{self.kind} {self.number}"


def dump_config(config: RunConfig) -> dict[str, Json]:
    """Plain JSON values, all defaults included."""
    data: dict[str, Json] = msgspec.to_builtins(config)
    return data
