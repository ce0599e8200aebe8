"""One call of a partial function at organizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def ask(client: Any, method: str, organizations: Sequence[int] | None, **arguments: Any) -> list[Any]:
    """The result of a partial function at each organization, in their order.

    Raises:
        RuntimeError: an organization has no result. A result without it would be that of other rows.
    """
    ids = list(organizations) if organizations else [one["id"] for one in client.organization.list()]
    input_ = {"method": method, "kwargs": arguments}
    task = client.task.create(input_=input_, organizations=ids, name=method, description=f"{method} of a statistic")
    results = [one for one in client.wait_for_results(task_id=task["id"]) if one is not None]
    if len(results) < len(ids):
        raise RuntimeError(
            f"{method}: {len(ids) - len(results)} of {len(ids)} organizations have no result. Their logs say why; "
            "to compute without them, name the others in organizations"
        )
    return results
