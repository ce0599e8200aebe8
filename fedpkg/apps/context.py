"""What an app knows besides the message: its node, its configuration, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from fedpkg.records.record_dict import RecordDict

Value = bool | float | int | str


class Context:
    """What an app is given with each message.

    Attributes:
        run_id, node_id: The run, and the node that the app runs on.
        node_config: What is known about the node, such as "partition-id" and "num-partitions".
        state: Records that this node keeps until the end of the run. Changes in a call that fails are dropped.
        run_config: The settings of the run. They cannot be changed.
    """

    def __init__(
        self,
        run_id: int,
        node_id: int,
        node_config: Mapping[str, Value],
        state: RecordDict,
        run_config: Mapping[str, Value],
    ) -> None:
        self.run_id = run_id
        self.node_id = node_id
        self.node_config: dict[str, Value] = dict(node_config)
        self.state = state
        self._run_config = RunConfig(run_config)

    @property
    def state(self) -> RecordDict:
        return self._state

    @state.setter
    def state(self, value: RecordDict) -> None:
        if not isinstance(value, RecordDict):
            raise TypeError(
                f"the state of a Context is a RecordDict, got {type(value).__name__}; put values into it as records: "
                "context.state['name'] = ConfigRecord({…})"
            )
        self._state = value

    @property
    def run_config(self) -> dict[str, Value]:
        return self._run_config

    @run_config.setter
    def run_config(self, value: object) -> None:
        raise ValueError(_FIXED)

    def __repr__(self) -> str:
        fields = ("run_id", "node_id", "node_config", "state", "run_config")
        return f"Context({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


_FIXED = (
    "the run_config of a Context cannot be changed: its settings come from the app's pyproject.toml and the command "
    "line; copy it with dict(context.run_config), or keep values in context.state"
)


class RunConfig(dict):  # type: ignore[type-arg]
    """A dictionary that cannot be changed. A copy of it can."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise ValueError(_FIXED)

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return dict(self)
