"""Averages over clients of the numbers that their entry points report: docs/reference/metrics.md."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedpkg.errors import ModelFileError
from fedpkg.formats.metadata import num_examples
from fedpkg.stores.base import ClientRow, WeightSource
from fedpkg.types import Json

_NUMBER = re.compile(
    r"\s*[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?|nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE
)  # the format of numbers that programs write as text
Weight = tuple[float, WeightSource]
_MAX_NESTED, _LONGEST_LIST, _DEEPEST = 512, 32, 4


def common_weights(
    reported: Sequence[float | None], clients: Sequence[ClientRow], *, weighting: Literal["examples", "equal"]
) -> list[Weight]:
    """The weights of the clients of one average, all from one source. 0 is a weight.

    The source is the first one with a number for every client: the weight reported with its metrics (`reply`), the size
    of its part of the data split (`split`), the ``num_examples`` of its last training (`train`). Without such a source,
    and instead of `split` and `train` if ``round.weighting`` is `equal`, all weights are equal.
    """
    sources: list[tuple[WeightSource, Sequence[float | None]]] = [("reply", reported)]
    if weighting == "examples":
        sources.append(("split", [client.num_examples for client in clients]))
        sources.append(("train", [client.last_num_examples for client in clients]))
    for source, found in sources:
        numbers = [float(number) for number in found if number is not None]
        if len(numbers) == len(found):
            return [(number, source) for number in numbers]
    return [(1.0, "equal")] * len(clients)


def weight_by_rules_1(metrics: Json, metadata: Mapping[str, Json], last_num_examples: float | None) -> Weight:
    """The weight of one client's metrics in sessions of rules 1, which mix the sources.

    ``num_examples`` above 0 in the metrics or in the metadata, else the client's last train count, else 1.
    """
    for place in (metrics, metadata):
        if isinstance(place, Mapping):
            number = finite_number(place.get("num_examples"))
            if number is not None and number > 0:
                return number, "reply"
    if last_num_examples is not None:
        return last_num_examples, "train"
    return 1.0, "default"


def examples_of(client: ClientRow, metadata: Mapping[str, Json]) -> float:
    """The number of examples that a client trained on, whatever its weight: from its reply, else as known before.

    Without either, 1: with equal weights, a reply need not contain the number.
    """
    try:
        return num_examples(metadata)
    except ModelFileError:
        return 1.0 if client.known_examples is None else client.known_examples


@dataclass(frozen=True)
class Average:
    """Mean of every top-level number of the clients' metrics, weighted: sum_k n_k m_k / sum_k n_k.

    Attributes:
        values: each number averaged over the clients that report it as finite; ``num_examples`` is summed. None: no
            client reports it as finite, or the weights of those that do sum to 0.
        about: ``num_clients``, ``weight_source``; ``finite``, for each metric that is not finite for some clients:
            [number of clients that report it as finite, number that report it]; ``text``: names of metrics that are
            text for some clients.
    """

    values: dict[str, float | None]
    about: dict[str, Json]


def average(replies: Iterable[tuple[Json, Weight]]) -> Average:
    """The average of clients' metrics, each with its weight."""
    terms: dict[str, list[tuple[float, float]]] = {}  # by metric: share and finite value of each client
    told: dict[str, int] = {}
    sources: dict[str, None] = {}
    texts: dict[str, None] = {}
    num_clients = 0
    for metrics, (weight, source) in replies:
        num_clients += 1
        sources[source] = None
        for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
            if isinstance(value, str):
                texts[name] = None
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            told[name] = told.get(name, 0) + 1
            found = terms.setdefault(name, [])
            number = finite_number(value)
            if number is not None:
                found.append((1.0 if name == "num_examples" else weight, number))
    values = {name: _mean(found, is_sum=name == "num_examples") for name, found in terms.items()}
    about: dict[str, Json] = {"num_clients": num_clients}
    if sources:
        about["weight_source"] = "mixed" if len(sources) > 1 else next(iter(sources))
    finite: dict[str, Json] = {
        name: [len(found), told[name]] for name, found in terms.items() if len(found) < told[name]
    }
    if finite:
        about["finite"] = finite
    if texts:
        about["text"] = list[Json](sorted(texts))
    return Average(values, about)


def _mean(terms: Sequence[tuple[float, float]], *, is_sum: bool) -> float | None:
    total = weight = 0.0
    for share, number in terms:  # not sum(): it rounds differently since Python 3.12
        total += share * number
        weight += share
    if not weight:
        return None
    mean = total if is_sum else total / weight
    return mean if math.isfinite(mean) else math.fsum(number * (share / weight) for share, number in terms)


def with_numbers(values: Json) -> tuple[Json, list[str]]:
    """A client's metrics with numbers in text (`"0.125"`) converted, and the names of the converted ones."""
    if not isinstance(values, Mapping):
        return values, []
    texts = {name: value for name, value in values.items() if isinstance(value, str) and _NUMBER.fullmatch(value)}
    found = {name: float(value) for name, value in texts.items() if name != "num_examples"}
    return ({**values, **found}, list(found)) if found else (values, [])


def numbers_of(values: Json | Mapping[str, Json]) -> dict[str, float]:
    """The top-level numbers of a client's metrics."""
    pairs = values.items() if isinstance(values, Mapping) else ()
    found = ((str(name), finite_number(value)) for name, value in pairs)
    return {name: number for name, number in found if number is not None}


def nested_numbers(values: Json | Mapping[str, Json]) -> dict[str, float]:
    """The numbers inside the values of a client's metrics, finite or not, named by the keys that lead to them.

    ``{"loss": {"total": 1.5}, "recall": [0.5, 1.0]}`` has ``loss.total``, ``recall.0`` and ``recall.1``. A list in a
    list is a table, and has none; neither have lists of more than 32 values, and what is more than 4 levels deep.
    """
    found: dict[str, float] = {}
    if not isinstance(values, Mapping):
        return found
    waiting = [(str(name), inner, 2) for name, inner in values.items() if isinstance(inner, (Mapping, list))]
    for name, inner, depth in waiting:  # it grows while it is read
        if isinstance(inner, Mapping):
            items = [(f"{name}.{key}", value) for key, value in itertools.islice(inner.items(), _MAX_NESTED)]
        elif len(inner) <= _LONGEST_LIST and not any(isinstance(one, list) for one in inner):
            items = [(f"{name}.{place}", value) for place, value in enumerate(inner)]
        else:
            continue
        for path, value in items:
            if isinstance(value, (Mapping, list)):
                if depth < _DEEPEST:
                    waiting.append((path, value, depth + 1))
            elif isinstance(value, (int, float)) and not isinstance(value, bool) and path not in values:
                found[path] = value
        if len(found) >= _MAX_NESTED or len(waiting) > _MAX_NESTED:
            break
    return found


def finite_number(value: object) -> float | None:
    """A JSON number as a float; None for anything else, also for NaN, infinities and booleans."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
