"""The data frames of a node, read when they are asked for."""

from __future__ import annotations

from typing import Any

from fedpkg.analytics.node import Node


class Frames:
    """Reads a node's databases by label, each once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._read: dict[str, Any] = {}

    def __call__(self, label: str, **options: Any) -> Any:
        """The database with this label, as a DataFrame. KeyError: the node has none.

        Args:
            options: Those of a task, such as a query; they take precedence over those of the node.
        """
        key = repr((label, sorted(options.items())))
        if key not in self._read:
            from fedpkg.analytics import databases

            one = self._node.databases[label]
            own = {name: value for name, value in one.options.items() if name != "preprocessing"}
            frame = databases.read(one.uri, one.kind, **{**own, **options})
            if steps := one.options.get("preprocessing"):
                from fedpkg.analytics.v4.preprocessing import preprocess_data

                frame = preprocess_data(frame, steps)
            self._read[key] = frame
        return self._read[key]
