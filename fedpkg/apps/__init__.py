"""Message apps: programs that exchange messages of records, on the side of the clients and of the server.

docs/reference/records-and-messages.md describes messages and what they contain. Importing this package loads neither
torch nor numpy: each name is imported when it is first used. It can be imported in every task, even if fedpkg is not
installed there.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpkg.apps.client_app import ClientApp
    from fedpkg.apps.context import Context
    from fedpkg.apps.grid import Grid, NodeInfo
    from fedpkg.apps.message import Error, ErrorCode, Message, MessageInitializationError, MessageType, Metadata
    from fedpkg.apps.numpy_client import NumPyClient
    from fedpkg.apps.server_app import ServerApp, ServerAppComponents, ServerConfig
    from fedpkg.records import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

_HOMES = {
    "Array": "fedpkg.records.array",
    "ArrayRecord": "fedpkg.records.array_record",
    "ClientApp": "fedpkg.apps.client_app",
    "ConfigRecord": "fedpkg.records.value_records",
    "Context": "fedpkg.apps.context",
    "Error": "fedpkg.apps.message",
    "ErrorCode": "fedpkg.apps.message",
    "Grid": "fedpkg.apps.grid",
    "Message": "fedpkg.apps.message",
    "MessageInitializationError": "fedpkg.apps.message",
    "MessageType": "fedpkg.apps.message",
    "Metadata": "fedpkg.apps.message",
    "MetricRecord": "fedpkg.records.value_records",
    "NodeInfo": "fedpkg.apps.grid",
    "NumPyClient": "fedpkg.apps.numpy_client",
    "RecordDict": "fedpkg.records.record_dict",
    "ServerApp": "fedpkg.apps.server_app",
    "ServerAppComponents": "fedpkg.apps.server_app",
    "ServerConfig": "fedpkg.apps.server_app",
}
__all__ = [
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Error",
    "ErrorCode",
    "Grid",
    "Message",
    "MessageInitializationError",
    "MessageType",
    "Metadata",
    "MetricRecord",
    "NodeInfo",
    "NumPyClient",
    "RecordDict",
    "ServerApp",
    "ServerAppComponents",
    "ServerConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
