"""Records by name: what a message contains, and what a client keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar, cast

from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.typed import Checked, named
from fedpkg.records.value_records import ConfigRecord, MetricRecord

Record = ArrayRecord | MetricRecord | ConfigRecord
R = TypeVar("R", ArrayRecord, MetricRecord, ConfigRecord)

KINDS = (ArrayRecord, MetricRecord, ConfigRecord)
_log = logging.getLogger("fedpkg.records")


class RecordDict(Checked[Record]):
    """ArrayRecords, MetricRecords and ConfigRecords by name, in their order."""

    def __init__(self, records: Mapping[str, Record] | None = None) -> None:
        super().__init__()
        if records is not None and not isinstance(records, Mapping):
            kind = type(records).__name__
            raise TypeError(f"RecordDict: expected a dictionary of records, got {kind}; write {{'arrays': record}}")
        for key, record in (records or {}).items():
            self[key] = record

    def _checked(self, key: str, value: Any) -> Record:
        if not isinstance(value, KINDS):
            write = "ConfigRecord(value), MetricRecord(value) or ArrayRecord(value)"
            raise TypeError(
                f"RecordDict: key {key!r}: expected an ArrayRecord, MetricRecord or ConfigRecord, got "
                f"{type(value).__name__}; write {write}"
            )
        former = self._items.get(key)
        if former is not None and former._kind is not value._kind:
            _log.warning("record %r was replaced: %s by %s", key, former._name, value._name)
        return value

    @property
    def array_records(self) -> MutableMapping[str, ArrayRecord]:
        """The ArrayRecords: a view, so that what is put in or deleted here is put in or deleted there."""
        return _View(self, ArrayRecord)

    @property
    def metric_records(self) -> MutableMapping[str, MetricRecord]:
        """The MetricRecords: a view as ``array_records``."""
        return _View(self, MetricRecord)

    @property
    def config_records(self) -> MutableMapping[str, ConfigRecord]:
        """The ConfigRecords: a view as ``array_records``."""
        return _View(self, ConfigRecord)

    # The names of these views before they were renamed.
    parameters_records = array_records
    metrics_records = metric_records
    configs_records = config_records

    def count_bytes(self) -> int:
        """The sum over all records."""
        return sum(record.count_bytes() for record in self.values())


RecordDict._kind = RecordDict


class RecordSet(RecordDict):
    """The former name of RecordDict, with its former arguments."""

    def __init__(
        self,
        parameters_records: Mapping[str, ArrayRecord] | None = None,
        metrics_records: Mapping[str, MetricRecord] | None = None,
        configs_records: Mapping[str, ConfigRecord] | None = None,
    ) -> None:
        super().__init__({**(parameters_records or {}), **(metrics_records or {}), **(configs_records or {})})


# Their former names.
ParametersRecord, MetricsRecord, ConfigsRecord = ArrayRecord, MetricRecord, ConfigRecord


class _View(MutableMapping[str, R], Generic[R]):
    """The records of one kind in a RecordDict."""

    def __init__(self, of: RecordDict, kind: type[R]) -> None:
        self._of = of
        self._kind: type[Any] = kind

    def __getitem__(self, key: str) -> R:
        found = self._of._items.get(key)
        if isinstance(found, self._kind):
            return cast("R", found)
        raise KeyError(f"there is no {self._kind.__name__} {key!r}; there is {named(self)}")

    def __setitem__(self, key: str, value: R) -> None:
        if not isinstance(value, self._kind):
            kind = self._kind.__name__
            raise TypeError(f"key {key!r}: expected {kind}, got {type(value).__name__}; write {kind}(value)")
        self._of[key] = value

    def __delitem__(self, key: str) -> None:
        self[key]
        del self._of[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, one in self._of._items.items() if isinstance(one, self._kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
