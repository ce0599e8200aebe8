"""Which task this is: what task.json says of it, or, when a person runs the script by hand, what is usual."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpkg.client.errors import ClientError

MAX_CHARACTERS = 64 << 20  # of a task.json: a file that is longer is no JSON any more


@dataclass(frozen=True)
class Task:
    """The call that is running.

    Args:
        by_hand: no fedpkg has called: all else is at its default.
        parameters: of the strategy.
        reply_kind: what is expected back, as ``update``, ``metrics`` or ``records``.
        reply: what to send of an update: ``weights``, ``delta`` or ``gradient``.
        rest: a delta has the tensors that are no parameters as well, as they are.
        input_sets: names of the sets in the input; none: it is one plain model.
        reply_sets: names of the sets that are asked for; none: one plain model.
        parameter_names: of the global model's tensors, as its file has them, those that are parameters; None: unknown.
        state_folder: where this client may keep files from round to round; None: nowhere.
    """

    by_hand: bool = True
    session_id: str = "by-hand"
    round_number: int = 1
    client_id: str = "by-hand"
    partition_id: int = 0
    num_partitions: int = 1
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
    """The call that is running, from the file that FEDPKG_TASK names; without one, that of a person.

    Raises:
        ClientError: the file cannot be read.
    """
    here = {"data_path": os.environ.get("FEDN_DATA_PATH"), "state_folder": os.environ.get("FEDPKG_STATE_DIR")}
    path = os.environ.get("FEDPKG_TASK")
    if not path:
        return Task(**here)  # type: ignore[arg-type]
    try:
        if not os.path.isfile(path):  # a device or pipe may have no end
            raise OSError("there is no such file")
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(MAX_CHARACTERS))
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ClientError(f"{path}, which FEDPKG_TASK names: {error}", "to run by hand, unset FEDPKG_TASK") from error
    known = {name: value for name, value in found.items() if name in Task.__dataclass_fields__}
    for name in ("input_sets", "reply_sets", "parameter_names"):
        if known.get(name) is not None:
            known[name] = tuple(known[name])
    return Task(**{**known, **here, "by_hand": False})
