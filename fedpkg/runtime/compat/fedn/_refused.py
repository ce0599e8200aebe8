"""Names of FEDn that scripts import but that cannot be used here: calling them raises an error with the reason."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def refused(name: str, reason: str) -> type:
    """A class of this name that cannot be instantiated."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("%s cannot be used here: %s" % (name, reason))

    return type(name, (), {"__init__": refuse, "__doc__": "Cannot be used here: %s." % reason})


NO_SERVER = (
    "a task has no server. Its settings are in the input's metadata and in task.json; `fedpkg exec SCRIPT.py` runs "
    "scripts that start sessions"
)
