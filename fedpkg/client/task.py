"""The current task, from its task.json or, if the script is run by hand, with defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpkg.client.errors import ClientError

MAX_CHARACTERS = 64 << 20  # of a task.json; a longer file is cut off, and then not valid JSON


@dataclass(frozen=True)
class Task:
    """The current task: one call of an entry point.

    Args:
        by_hand: Whether the script runs without fedpkg; all other values are then defaults.
        attributes: The attributes of the client's entity (`clients.entities` of the run.yaml).
        parameters: The parameters of the strategy.
        reply_kind: The kind of the expected reply, such as ``update``, ``metrics`` or ``records``.
        reply: What an update consists of: ``weights``, ``delta`` or ``gradient``.
        rest: Whether a delta also contains the tensors that are not parameters, unchanged.
        input_sets: Names of the sets in the input; empty: it is one plain model.
        reply_sets: Names of the sets in the expected reply; empty: one plain model.
        parameter_names: Names, in its file, of the global model's tensors that are parameters; None: unknown.
        state_folder: The folder in which this client can keep files from round to round; None: there is none.
    """

    by_hand: bool = True
    session_id: str = "by-hand"
    round_number: int = 1
    client_id: str = "by-hand"
    partition_id: int = 0
    num_partitions: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)
    entry_point: str = ""
    seed: int = 0
    device: str = "cpu"
    data_path: str | None = None
    run_config: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reply_kind: str = ""
    reply: str = "weights"
    rest: bool = False
    input_sets: tuple[str, ...] = ()
    reply_sets: tuple[str, ...] = ()
    parameter_names: tuple[str, ...] | None = None
    state_folder: str | None = None


def task() -> Task:
    """The current task, from the file whose path is in FEDPKG_TASK; without this variable, that of a run by hand.

    Raises:
        ClientError: If the file cannot be read.
    """
    here = {"data_path": os.environ.get("FEDN_DATA_PATH"), "state_folder": os.environ.get("FEDPKG_STATE_DIR")}
    path = os.environ.get("FEDPKG_TASK")
    if not path:
        return Task(**here)  # type: ignore[arg-type]
    try:
        if not os.path.isfile(path):  # a device or pipe may never end
            raise OSError("the file does not exist")
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(MAX_CHARACTERS))
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ClientError(f"{path} (from FEDPKG_TASK): {error}", "to run by hand, unset FEDPKG_TASK") from error
    known = {name: value for name, value in found.items() if name in Task.__dataclass_fields__}
    for name in ("input_sets", "reply_sets", "parameter_names"):
        if known.get(name) is not None:
            known[name] = tuple(known[name])
    return Task(**{**known, **here, "by_hand": False})
