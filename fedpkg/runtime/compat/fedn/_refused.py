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
    "a task runs for one client and has no connection to a server. It gets settings in its input's metadata "
    "(load_metadata) and in task.json. A script that starts sessions is run by `fedpkg exec SCRIPT.py`"
)
