"""Averages over clients of the numbers that their entry points report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from fedpkg.errors import ModelFileError
from fedpkg.formats.metadata import num_examples
from fedpkg.stores.base import ClientRow
from fedpkg.types import Json


def metrics_weight(
    metrics: Json, metadata: Mapping[str, Json], last_num_examples: float | None
) -> tuple[float, Literal["reply", "train", "default"]]:
    """The weight of one client's metrics, and where it comes from.

    ``num_examples`` in the metrics or in the metadata beside them, else the client's last train count, else 1.
    """
    for source in (metrics, metadata):
        if isinstance(source, Mapping):
            number = finite_number(source.get("num_examples"))
            if number is not None and number > 0:
                return number, "reply"
    if last_num_examples is not None:
        return last_num_examples, "train"
    return 1.0, "default"


def examples_of(client: ClientRow, metadata: Mapping[str, Json]) -> float:
    """The examples that a client trained on, whatever its reply weighs: as that says, else as was known before.

    Without either, 1: with equal weights, a reply need not say it.
    """
    try:
        return num_examples(metadata)
    except ModelFileError:
        return 1.0 if client.known_examples is None else client.known_examples


def weighted_average(values: Iterable[tuple[Json, float]]) -> dict[str, float]:
    """Mean of every top-level number of the clients' metrics, weighted: sum_k n_k m_k / sum_k n_k.

    Each number is averaged over the clients that report it as finite. ``num_examples`` is summed.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for metrics, weight in values:
        if not isinstance(metrics, Mapping):
            continue
        for name, value in metrics.items():
            number = finite_number(value)
            if number is None:
                continue
            share = 1.0 if name == "num_examples" else weight
            sums[name] = sums.get(name, 0.0) + share * number
            weights[name] = weights.get(name, 0.0) + share
    return {name: total if name == "num_examples" else total / weights[name] for name, total in sums.items()}


def numbers_of(values: Json | Mapping[str, Json]) -> dict[str, float]:
    """The top-level numbers of what a client said."""
    pairs = values.items() if isinstance(values, Mapping) else ()
    found = ((str(name), finite_number(value)) for name, value in pairs)
    return {name: number for name, number in found if number is not None}


def finite_number(value: object) -> float | None:
    """A JSON number as a float; None for anything else, also for NaN, infinities and booleans."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
