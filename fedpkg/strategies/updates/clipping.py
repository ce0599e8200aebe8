"""The mean of updates that are clipped to a ball, for norm bounding and centred clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedpkg.strategies.updates.distances import squared_norms
from fedpkg.strategies.updates.held import Updates, weighted_sum


def clipped_mean(
    updates: Updates,
    centre: Mapping[str, Tensor] | None,
    max_norm: float | None,
    weights: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """c + sum_k a_k (x_k - c) min(1, tau / |x_k - c|) of the parameters; by default c is the global model.

    Args:
        max_norm: tau. None: the (lower) median of the distances |x_k - c|.
        weights: a_k up to a factor. None: equal weights.
    """
    norms = squared_norms(updates, centre).sqrt()
    bound = (
        norms.sort().values[(len(norms) - 1) // 2] if max_norm is None else torch.tensor(max_norm, dtype=torch.float64)
    )
    scales = torch.where(norms <= bound, 1.0, bound / norms)  # a norm of 0 divides by 0 in the other branch
    shares = torch.tensor([1.0] * len(updates) if weights is None else list(weights), dtype=torch.float64)
    scales = scales * shares / shares.sum()

    def around(rows: Tensor, row: Tensor) -> Tensor:
        rows -= row
        return weighted_sum(rows, scales).add_(row)

    return updates.made(updates.model.parameters, around, wide=True, beside=centre)
