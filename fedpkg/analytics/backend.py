"""What clients of all eras need from whatever runs tasks at organizations: a session, or functions in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# Words for the status of a run; these are those of vantage6.
PENDING, COMPLETED, FAILED = "pending", "completed", "failed"
CRASHED, NOT_ALLOWED, KILLED = "crashed", "not allowed", "killed by user"


@dataclass(frozen=True)
class Organization:
    """An organization of the collaboration. Ids count from 1; ``attributes`` are those of its entity (domain …)."""

    organization_id: int
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A task at one organization. ``result`` is None while there is none, and ``log`` says why the run failed."""

    run_id: int
    task_id: int
    organization_id: int
    status: str
    result: bytes | None = None
    log: str = ""


class Backend(Protocol):
    """Runs tasks for one function, the caller.

    Attributes:
        organization_id, node_id, collaboration_id, task_id, image, databases: those of the caller.
    """

    organization_id: int
    node_id: int
    collaboration_id: int
    task_id: int
    image: str
    databases: list[str]

    def organizations(self) -> Sequence[Organization]:
        """All organizations of the collaboration, in the order of their ids."""
        ...

    def create(
        self,
        input_: bytes,
        organization_ids: Sequence[int],
        *,
        name: str = "",
        description: str = "",
        databases: Sequence[str] | None = None,
    ) -> int:
        """Record a task, and return its id, from 1. It does not run before `run`.

        Raises:
            ValueError: there is no such organization, or one is named twice.
        """
        ...

    def has_ended(self, task_id: int) -> bool:
        """Whether all runs of a task have ended. Nothing is run. KeyError: there is no such task."""
        ...

    def run(self) -> None:
        """Run all tasks that were created and have not ended, in parallel, and wait until they have."""
        ...

    def runs(self, task_id: int) -> Sequence[Run]:
        """The runs of a task, in the order in which its organizations were named. KeyError: there is no such task."""
        ...

    def about(self, task_id: int) -> Mapping[str, Any]:
        """What `create` was given: name, description, organizations (ids), databases; and parent, created_at.

        KeyError: there is no such task.
        """
        ...
