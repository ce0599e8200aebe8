"""How often each label occurs at a client, with what is hidden before it leaves the client."""

from __future__ import annotations

from typing import Any

from fedpkg.client.errors import ClientError
from fedpkg.client.models import Path, save_metrics
from fedpkg.client.task import task


def save_label_histogram(path: Path, labels: Any, classes: int) -> None:
    """Write the number of this client's examples of each label, for clusters that are found from label histograms.

    The parameters of the task decide what is hidden: with ``noise``, Laplace noise of this scale is added to each
    count, drawn from the task's seed, and the result is rounded; then counts below ``minimum``, and negative ones,
    become 0. Counts that differ by one example have 1/noise-differential privacy towards everyone who does not know
    the seed.

    Args:
        labels: The labels of all examples, from 0 to ``classes`` - 1: an array, a tensor or a list.

    Raises:
        ClientError: If a label is not one of these.
    """
    import numpy as np

    now, found = task(), np.asarray(labels).reshape(-1)
    if found.size and (found.dtype.kind not in "iub" or found.min() < 0 or found.max() >= classes):
        raise ClientError(f"label_histogram: the labels are not whole numbers from 0 to {classes - 1}")
    counts = np.bincount(found.astype(np.int64), minlength=classes).astype(np.float64)
    noise, minimum = float(now.parameters.get("noise", 0.0)), float(now.parameters.get("minimum", 0.0))
    if noise > 0:
        u = np.random.default_rng([now.seed, len(counts)]).random(len(counts)) - 0.5
        counts = np.round(counts - noise * np.sign(u) * np.log1p(-2 * np.abs(u)))
    counts = np.where(counts >= minimum, counts, 0.0).clip(0.0)
    save_metrics(path, {"label_histogram": counts.tolist()})
