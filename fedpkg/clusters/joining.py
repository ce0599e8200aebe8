"""The cluster of a client that joins later: the one with the nearest centre."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from fedpkg.clusters.points import cross_distances
from fedpkg.config_topology import Distance
from fedpkg.errors import ConfigError
from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.held import Updates, at_least_float32
from fedpkg.weights.weights import Weights


def centres_of(updates: Updates, clusters: Mapping[str, Sequence[str]], distance: Distance) -> dict[str, Weights]:
    """The centre of each cluster, as an update: the global model plus the mean of its clients' differences from it.

    For cosine distances, the differences are first scaled to length 1. All clients count equally. The updates are read
    once (for cosines twice), and all centres are in memory.
    """
    place = {client_id: number for number, client_id in enumerate(updates.clients)}
    shares = torch.zeros(len(clusters), len(updates), dtype=torch.float64)
    for number, clients in enumerate(clusters.values()):
        shares[number, [place[client_id] for client_id in clients]] = 1 / len(clients)
    if distance == "cosine":
        squares = torch.zeros(len(updates), dtype=torch.float64)
        for rows, row in updates.pieces(updates.model.parameters, wide=True):
            squares += rows.sub_(row).square_().sum(dim=1)
        shares /= torch.where(squares > 0, squares.sqrt(), 1.0)  # a difference of zero stays zero
    made: list[dict[str, torch.Tensor]] = [dict(updates.model) for _ in clusters]
    for name in updates.model.parameters:
        means = [(shares @ rows.sub_(row)) + row for rows, row in updates.pieces([name], wide=True)]
        shape, dtype = updates.model[name].shape, at_least_float32(updates.model[name])
        for number, centre in enumerate(made):
            flat = torch.cat([mean[number] for mean in means]) if means else torch.zeros(0, dtype=torch.float64)
            whole = torch.view_as_complex(flat.reshape(-1, 2)) if dtype.is_complex else flat
            centre[name] = whole.reshape(shape).to(updates.model[name].dtype)
    return {name: Weights(centre, buffers=updates.model.buffers) for name, centre in zip(clusters, made, strict=True)}


def nearest(
    centres: Mapping[str, Weights], updates: Iterable[Reply], model: Weights, distance: Distance
) -> dict[str, str]:
    """The cluster with the nearest centre, for each client; of equally near ones the first.

    Args:
        updates: of the clients that join, made from the same global model as the updates that were clustered.
        model: that global model.

    Raises:
        AggregationError: there are no updates, or one does not fit the model.
    """
    if not centres:
        raise ConfigError("there are no clusters to join")
    of_centres = [
        Reply("centre", number, name, {"": centre}, 1.0) for number, (name, centre) in enumerate(centres.items())
    ]
    known = Updates([*of_centres, *updates], model)
    names, found = list(centres), cross_distances(known, len(centres), distance)
    return {
        client_id: names[int(row.argmin())] for client_id, row in zip(known.clients[len(centres) :], found, strict=True)
    }
