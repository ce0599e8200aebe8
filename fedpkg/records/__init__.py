"""What messages of apps contain: arrays, metrics and configuration by name, checked when they are put in.

    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 600})})
    model.load_state_dict(content["arrays"].to_torch_state_dict())

docs/reference/records-and-messages.md lists the rules. This package depends only on NumPy (and on PyTorch where a
tensor is converted), and can be imported in every task, even if fedpkg is not installed there.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpkg.records.array import Array
    from fedpkg.records.array_record import ArrayRecord
    from fedpkg.records.record_dict import RecordDict
    from fedpkg.records.value_records import ConfigRecord, MetricRecord

_HOMES = {
    "Array": "array",
    "ArrayRecord": "array_record",
    "ConfigRecord": "value_records",
    "MetricRecord": "value_records",
    "RecordDict": "record_dict",
    # Former names.
    "ConfigsRecord": "record_dict",
    "MetricsRecord": "record_dict",
    "ParametersRecord": "record_dict",
    "RecordSet": "record_dict",
}
__all__ = ["Array", "ArrayRecord", "ConfigRecord", "MetricRecord", "RecordDict"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
