"""Label histograms and attributes of clients as vectors, so that they are clustered as updates are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fedpkg.clusters.from_scipy import Array
from fedpkg.errors import DataError
from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.held import Updates
from fedpkg.weights.weights import Weights


def histograms(counts: Mapping[str, Sequence[float]], *, minimum: float = 0) -> Updates:
    """Each client's labels as the vector sqrt(p / 2), where p are the shares of its labels.

    Euclidean distances of these vectors are Hellinger distances, from 0 for equal shares to 1 for no common label;
    cosine distances are their squares. The number of examples of a client does not matter.

    Args:
        counts: by client, the number of examples of each label. They may already have noise: negative ones are 0.
        minimum: smaller counts are 0, so that rare labels of a client do not matter.

    Raises:
        DataError: clients have different numbers of labels, a count is not finite, or nothing is left of a client.
    """
    rows: dict[str, Array] = {}
    for client_id, given in counts.items():
        row = np.asarray(given, dtype=np.float64)
        if row.ndim != 1 or len(row) != len(next(iter(counts.values()))) or not np.isfinite(row).all():
            raise DataError(f"{client_id}: its counts of labels are not one finite number for each label")
        row = np.where(row >= minimum, row, 0.0).clip(0)
        if not row.any():
            raise DataError(
                f"{client_id}: it has no label with at least {max(minimum, 1):g} examples",
                hint="lower the minimum, or leave this client out",
                client_id=client_id,
            )
        rows[client_id] = np.sqrt(row / row.sum() / 2)
    return _as_updates(rows)


def attributes(values: Mapping[str, Mapping[str, str | int | float | bool]], names: Sequence[str] = ()) -> Updates:
    """Each client's attributes as a vector.

    Numbers are scaled to the range from 0 to 1; texts, true and false are categories. The squared euclidean distance is
    the number of different categories plus the squared differences of the scaled numbers.

    Args:
        names: the attributes that are compared. Empty: all.

    Raises:
        DataError: there is no attribute, a client lacks one, or a number is not finite.
    """
    known = list(dict.fromkeys(name for of_client in values.values() for name in of_client))
    for name in names or known:
        if missing := next((client_id for client_id, of_client in values.items() if name not in of_client), None):
            raise DataError(
                f"{missing} has no attribute {name!r}",
                hint=f"add it to the file of entities, or name the attributes to compare; there are {', '.join(known)}"
                if known
                else "add it to the file of entities; no client has attributes",
                client_id=missing,
            )
    columns = [column for name in names or known for column in _columns(name, values)]
    if not columns:
        raise DataError("the clients have no attributes", hint="add some to the file of entities")
    return _as_updates(dict(zip(values, np.stack(columns, axis=1), strict=True)))


def _columns(name: str, values: Mapping[str, Mapping[str, str | int | float | bool]]) -> list[Array]:
    column = [of_client[name] for of_client in values.values()]
    numbers = [float(one) for one in column if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(numbers) < len(column):
        categories = list(dict.fromkeys(map(str, column)))
        return [np.array([math.sqrt(0.5) * (str(one) == each) for one in column]) for each in categories]
    if wrong := next((client_id for client_id, one in zip(values, numbers, strict=True) if not math.isfinite(one)), ""):
        raise DataError(f"{wrong}: its attribute {name!r} is not finite", client_id=wrong)
    found = np.array(numbers)
    width = found.max() - found.min()
    return [(found - found.min()) / width if width else np.zeros_like(found)]


def _as_updates(rows: Mapping[str, Array]) -> Updates:
    """Updates of a model at zero, with one tensor and equal weights."""
    if not rows:
        raise DataError("there are no clients to cluster")
    model = Weights({"x": torch.zeros(len(next(iter(rows.values()))), dtype=torch.float64)})
    replies = (
        Reply("clusters", position, client_id, {"": Weights({"x": torch.from_numpy(row.copy())})}, 1.0)
        for position, (client_id, row) in enumerate(rows.items())
    )
    return Updates(replies, model)
