"""The data frames of a node, read when they are asked for, as its policy lets algorithms see them."""

from __future__ import annotations

import json
from typing import Any

from fedpkg.analytics.node import Node
from fedpkg.analytics.policy import NotAllowed, policy_of
from fedpkg.errors import DataError


class Frames:
    """Reads a node's databases by label, each once for the same options."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._policy = policy_of(node.policy)
        self._read: dict[str, Any] = {}

    def __call__(self, label: str, **options: Any) -> Any:
        """The database with this label, as a DataFrame, or the path of a folder.

        Args:
            options: Of a task, in place of those of the node: `query` or `sheet_name`.

        Raises:
            KeyError: The node has no such database.
            NotAllowed: Its policy does not allow it.
            DataError: It cannot be read.
        """
        key = json.dumps([label, options], sort_keys=True, default=repr)
        if key not in self._read:
            self._read[key] = self._frame(label, options)
        return self._read[key]

    def _frame(self, label: str, options: dict[str, Any]) -> Any:
        from fedpkg.analytics import databases

        if label in self._node.withheld:
            rule = self._node.withheld[label]
            raise NotAllowed(rule, f"it keeps database {label!r} from all algorithms")
        one = self._node.databases[label]
        self._policy.check_query(label, options.get("query"), one.options.get("query"))
        options = {**one.options, **options}
        steps = options.pop("preprocessing", None)
        about = f"database {label!r} of {self._node.organization}"
        try:
            frame = databases.read(one.uri, one.kind, about=about, **options)
        except DataError as error:
            error.message = error.message.replace(one.uri, one.source or one.uri)
            raise
        if isinstance(frame, str):
            return frame
        frame = self._policy.reduced(label, frame)  # before steps, which may make new columns of hidden ones
        if steps:
            from fedpkg.analytics.v4.preprocessing import preprocess_data

            frame = preprocess_data(frame, steps)
        self._policy.check_rows(label, len(frame))
        return frame
