"""The names ``coordinator``, ``server_functions`` and ``split`` in a run.yaml.

The strategies themselves are in other modules, so that listing strategies does not import PyTorch.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from fedpkg.compute_package.app import SERVER_RUNNER, names_object
from fedpkg.registry import Positive
from fedpkg.strategies.registry import register_strategy

if TYPE_CHECKING:
    from fedpkg.coordinators.strategy import Coordinator
    from fedpkg.strategies.methods.split import SplitLearning


_NOT_OF_AN_APP = (".git", ".venv", "venv", ".tox", ".mypy_cache", ".ruff_cache", ".pytest_cache")  # in its folder
_KEYS_OF_INPUTS = ("query", "sheet_name", "output_format")

Timeout: TypeAlias = Annotated[
    Positive,
    Meta(
        description="Seconds that the server's process may take for one message. Set it above the time of its longest "
        "computation; the session fails when it is exceeded."
    ),
]


@register_strategy("coordinator", equation="w <- the model that your program commits")
def coordinator(
    command: str,
    folder: str,
    parameters: dict[str, Any] | None = None,
    timeout_s: Timeout = 600.0,
    has_model: bool | Literal["made"] = True,
) -> Coordinator:
    """Run your own program, which makes requests to clients and commits the next model.

    docs/how-to/coordinators.md describes such programs.

    Args:
        command: Command that starts the program, such as python server.py. It runs in the folder.
        folder: Folder with the program, relative to the run.yaml.
        parameters: Values that the program finds in each step. null: none.
        has_model: Whether the session has a global model. With false, the program keeps any state that it needs.
            `made`: there is no seed model, and the session has a model from the first round on that commits one.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {folder}")
    from fedpkg.coordinators.strategy import Coordinator
    from fedpkg.strategies.traits import Traits

    return Coordinator(
        command,
        folder,
        parameters or {},
        timeout_s,
        Traits(
            entry_points=(),
            has_model=has_model is True,
            makes_model=has_model == "made",
            treatment="elsewhere" if has_model is True else None,
            ends_itself=True,
            takes_no_replies=True,
        ),
    )


@register_strategy("server_app", equation="w <- the arrays with which the app ends a round")
def server_app(folder: str, app: str, timeout_s: Timeout = 3600.0) -> Coordinator:
    """Run the ServerApp of a message app, which sends messages to its ClientApp on each client.

    Args:
        folder: Folder of the app, relative to the run.yaml.
        app: The ServerApp in this folder, as `module:object`.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {folder}")
    if not names_object(app):
        raise ValueError(f"app: '{app}' is not module:object, such as my_app.server_app:app")
    from fedpkg.coordinators.strategy import Coordinator
    from fedpkg.strategies.traits import Traits

    traits = Traits(
        entry_points=(),
        has_model=False,
        makes_model=True,
        ends_itself=True,
        takes_no_replies=True,
        chooses_clients=True,
        heeds_required=False,
    )
    command, log = f"python -m {SERVER_RUNNER} {app}", logging.getLogger("fedpkg.server_app")
    return Coordinator(command, folder, {}, timeout_s, traits, logger=log, but=_NOT_OF_AN_APP)


@register_strategy("algorithm", equation="result <- f(client, data of the host), where client runs partial functions")
def algorithm(
    folder: str,
    module: str,
    method: str,
    arguments: dict[str, Any] | None = None,
    positional: list[Any] | None = None,
    input: dict[str, Any] | None = None,
    databases: list[str] | None = None,
    host: str | None = None,
    organizations: list[str] | None = None,
    kind: Literal["central", "partial"] = "central",
    era: Literal["v3", "v4", "v5"] = "v4",
    isolated: bool = True,
    allow_pickle: bool = False,
    most_tasks: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000,
    in_process: bool = False,
    timeout_s: Timeout = 3600.0,
) -> Coordinator:
    """Run the central function of a federated algorithm, whose tasks call its partial functions at organizations.

    docs/how-to/algorithms.md describes algorithms.

    Args:
        folder: Folder of the algorithm, relative to the run.yaml. Default: `package`.
        module: Its Python module. Default: the one that its Dockerfile or setup.py names, or the only package.
        method: The function to call. A partial one is called at all organizations.
        arguments: Its arguments by name. null: none.
        positional: Its arguments by position. null: none.
        input: Further keys of its input, for algorithms of versions 1 to 3: `query`, `sheet_name` or `output_format`.
        databases: Labels of the databases that it is given, in this order. null: all of `clients.databases`, or else
            `default`, or all that the host has.
        host: The organization at which the central function runs, and whose data it is given. null: the first one, of
            `organizations` if that is set.
        organizations: The organizations that take part. null: all.
        kind: Whether the function is central or partial. Default: as its source says.
        era: The version of the contract: v3 (of versions 1 to 3), v4 or v5. Default: as its source says.
        isolated: Run the algorithm isolated, whatever `isolate.enabled` is. Set it to false for your own code only.
        allow_pickle: Let algorithms of versions 1 to 3 exchange pickles, which can run any program when they are read.
            For your own code and nodes only.
        most_tasks: Number of tasks that the function may create.
        in_process: Call partial functions in the process of the central one, as a mock does. That process then has the
            data of all organizations.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {folder}")
    if unknown := [name for name in input or {} if era != "v3" or name not in _KEYS_OF_INPUTS]:
        known = ", ".join(_KEYS_OF_INPUTS)
        raise ValueError(f"input: there is no key {unknown[0]!r:.60}; algorithms of versions 1 to 3 have {known}")
    from fedpkg.coordinators.strategy import Coordinator
    from fedpkg.strategies.traits import Traits

    traits = Traits(
        entry_points=("partial",),
        has_model=False,
        ends_itself=True,
        takes_no_replies=True,
        chooses_clients=True,
        heeds_required=False,
    )
    parameters: dict[str, Any] = {
        "method": method,
        "args": positional or [],
        "kwargs": arguments or {},
        "input": input or {},
        "databases": databases,
        "organizations": organizations,
        "kind": kind,
        "era": era,
        "allow_pickle": allow_pickle,
        "most_tasks": most_tasks,
        "in_process": in_process,
        "host": host,
    }
    command = shlex.join(["python", "-m", "_fedpkg_algorithm_central", module])
    log, data_of = logging.getLogger("fedpkg.algorithm"), "*" if in_process else host or (organizations or [""])[0]
    return Coordinator(
        command,
        folder,
        parameters,
        timeout_s,
        traits,
        logger=log,
        but=_NOT_OF_AN_APP,
        files_of="algorithm",
        remedy="fix the central function and resume the session; a session keeps its partial functions, arguments and "
        "data: to change these, run the algorithm again",
        data_of=data_of,
    )


@register_strategy("server_functions", equation="w <- ServerFunctions.aggregate(w, w_1, ..., w_n)")
def server_functions(server_functions: str, timeout_s: Timeout = 600.0) -> Coordinator:
    """FEDn's server functions, which choose and configure the clients and aggregate their models.

    Args:
        server_functions: Python file with the class ServerFunctions, relative to the run.yaml.
    """
    _check_file("server_functions", server_functions)
    from fedpkg.coordinators.strategy import Coordinator

    command = f"python -m _fedpkg_server_functions {shlex.quote(Path(server_functions).name)}"
    return Coordinator(command, server_functions, {}, timeout_s)


@register_strategy(
    "split",
    equation="h_k = f_k(x_k);  p = sigmoid(W [h_1, ..., h_K] + b);  W, b by Adam;  client k gets dL/dh_k",
    paper="Vepakomma et al. 2018, Split learning for health: Distributed deep learning without sharing raw patient "
    "data, arXiv:1812.00564",
    attackers="none",
)
def split(
    labels: str,
    learning_rate: Positive = 0.01,
    validate: bool = False,
    server_model: str | None = None,
    timeout_s: Timeout = 600.0,
) -> SplitLearning | Coordinator:
    """Clients answer `forward` with embeddings of the same examples, and get the loss's gradients in `backward`.

    All clients are asked in each round, and all must answer (docs/how-to/split-learning.md).

    Args:
        labels: File of the server, .npz or .pt, with the labels `y_train` (0 or 1) in the order of the clients'
            examples.
        learning_rate: Learning rate of the server's layers, which Adam trains. From 0.001 to 0.1 is usual.
        validate: Measure the loss and accuracy on the clients' test examples after each round, which doubles the
            requests. `labels` must have `y_test`.
        server_model: Python file with the class ServerModel, a torch module that replaces the linear layer and runs in
            a separate process. null: one linear layer.
    """
    from fedpkg.strategies.methods.split import SplitLearning

    _check_file("labels", labels)
    layer = SplitLearning(labels, learning_rate, validate)
    if server_model is None:
        return layer
    _check_file("server_model", server_model)
    from fedpkg.coordinators.strategy import Coordinator

    command = shlex.join(["python", "-m", "_fedpkg_split_server", Path(server_model).name, Path(labels).name])
    parameters = {"learning_rate": learning_rate, "validate": validate}
    return Coordinator(command, server_model, parameters, timeout_s, layer.traits, (labels,))


def _check_file(key: str, path: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"{key}: there is no file {path}")
