"""Availability: the clients that can be asked in a round, from a trace or by chance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fedpkg.errors import DataError, nearest
from fedpkg.small_files import SmallFile, csv_rows

if TYPE_CHECKING:
    import numpy as np

Interval: TypeAlias = tuple[float, float]  # both ends included
_COLUMNS: Mapping[str, tuple[str, str]] = {"round": ("from_round", "to_round"), "s": ("from_s", "to_s")}


@dataclass(frozen=True)
class Trace:
    """When clients are available: intervals of rounds or virtual seconds. A client without intervals always is."""

    unit: Literal["round", "s"]
    intervals: Mapping[str, Sequence[Interval]]
    places: Mapping[str, str] = field(default_factory=dict)  # where each client is first named

    def has(self, client_id: str, now: float) -> bool:
        intervals = self.intervals.get(client_id)
        return intervals is None or any(start <= now <= end for start, end in intervals)

    def next_time(self, client_ids: Sequence[str], now: float, is_enough: Callable[[list[str]], bool]) -> float | None:
        """The first time from ``now`` on at which enough of the clients are available. None: there is none."""
        starts = {start for one in client_ids for start, _ in self.intervals.get(one, ()) if start > now}
        for moment in (now, *sorted(starts)):
            if is_enough([client_id for client_id in client_ids if self.has(client_id, moment)]):
                return moment
        return None


@dataclass(frozen=True)
class Availability:
    """The available clients: from ``trace``, or each client in each round with the probability ``rate``."""

    trace: Trace | None = None
    rate: float = 1.0

    @property
    def goes_by_time(self) -> bool:
        return self.trace is not None and self.trace.unit == "s"

    def places(self, client_ids: Sequence[str], now: float, rng: np.random.Generator) -> list[int]:
        """Indices of the available clients. ``now``: the round or virtual seconds; ``rng`` is keyed by the round."""
        if self.trace is not None:
            return [i for i, client_id in enumerate(client_ids) if self.trace.has(client_id, now)]
        if self.rate == 1.0:
            return list(range(len(client_ids)))
        found: list[int] = (rng.random(len(client_ids)) < self.rate).nonzero()[0].tolist()
        return found

    def check(self, client_ids: Sequence[str]) -> None:
        """Raises DataError: the trace names a client that does not exist."""
        if self.trace is None:
            return
        known = set(client_ids)
        for client_id in self.trace.intervals:
            if client_id not in known:
                place, near = self.trace.places[client_id], nearest(client_id, client_ids)
                raise DataError(
                    f"{place}: there is no client {client_id!r}{near}",
                    hint=f"there are {len(known)}: {', '.join(client_ids[:5])}{' …' * (len(known) > 5)}",
                    client_id=client_id,
                )


def digest_of(path: Path) -> str:
    """The SHA-256 of a trace's bytes. Raises DataError."""
    return _read(path).sha256


def read_trace(path: Path) -> Trace:
    """Read a trace: lines of CSV or a JSON list of objects, each with a client and the start and end of an interval.

    The columns are ``client``, ``from_round`` and ``to_round``, or ``client``, ``from_s`` and ``to_s``. An interval
    without an end is open. A client may have several intervals.

    Raises:
        DataError: the trace is wrong; with the line (in JSON: the entry) and the reason.
    """
    text = _read(path).text
    rows = list(_json_rows(path, text) if path.suffix.lower() == ".json" else csv_rows(path, text))
    if not rows:
        raise DataError(f"{path}: the trace is empty", hint="write a line for each client and interval", path=str(path))
    unit, intervals, places = _unit(*rows[0]), dict[str, list[Interval]](), dict[str, str]()
    for place, row in rows:
        client_id, interval = _interval(place, row, unit)
        places.setdefault(client_id, place)
        intervals.setdefault(client_id, []).append(interval)
    return Trace(unit, intervals, places)


def _read(path: Path) -> SmallFile:
    return SmallFile.read(path, "the trace", "sampler.availability.trace is the path of a CSV or JSON file")


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise DataError(f"{path}{f', line {line}' if line else ''}: not valid JSON: {error}", path=str(path)) from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a trace must be a list of objects, found a {type(rows).__name__}", path=str(path))
    for number, row in enumerate(rows, 1):
        place = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise DataError(f"{place}: not an object", hint=_hint(), path=str(path))
        yield place, row


def _unit(place: str, row: Mapping[str, Any]) -> Literal["round", "s"]:
    """The unit of the first row, whose columns are those of all rows."""
    for unit, (start, _) in _COLUMNS.items():
        if start in row and "client" in row:
            return unit  # type: ignore[return-value]  # a key of _COLUMNS
    raise DataError(f"{place}: columns are missing, found {', '.join(map(str, row))}", hint=_hint())


def _interval(place: str, row: Mapping[str, Any], unit: str) -> tuple[str, Interval]:
    start_name, end_name = _COLUMNS[unit]
    for name in row:
        if name not in ("client", start_name, end_name):
            near = nearest(str(name), ("client", start_name, end_name))
            raise DataError(f"{place}: unknown column '{name}'{near}", hint=_hint())
    client_id = row.get("client")
    if not isinstance(client_id, str):
        raise DataError(f"{place}: 'client' must be the id of a client, found {client_id!r}", hint=_hint())
    start = _moment(place, start_name, row.get(start_name), unit)
    end = math.inf if row.get(end_name) is None else _moment(place, end_name, row[end_name], unit)
    if end < start:
        raise DataError(f"{place}: '{end_name}' is {end:g}, before '{start_name}', {start:g}")
    return client_id, (start, end)


def _moment(place: str, name: str, value: object, unit: str) -> float:
    allowed = "a whole number from 1" if unit == "round" else "a number from 0"
    number = math.nan
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
    fits = number >= 1 and number == math.floor(number) if unit == "round" else number >= 0
    if not math.isfinite(number) or not fits:
        raise DataError(f"{place}: '{name}' must be {allowed}, found {value!r}", hint=_hint())
    return number


def _hint() -> str:
    return "columns client, from_round, to_round; or client, from_s, to_s (virtual seconds)"
