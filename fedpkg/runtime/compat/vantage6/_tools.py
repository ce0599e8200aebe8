"""The names of versions 1 to 3: ``vantage6.tools`` and ``vantage6.client``.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

_LEGACY = "fedpkg.analytics.legacy"
_CONTAINER = {
    "ContainerClient": f"{_LEGACY}.client",
    "ClientContainerProtocol": f"{_LEGACY}.client:ContainerClient",
}
_WRAPPERS = dict.fromkeys(
    (
        *("auto_wrapper", "csv_wrapper", "docker_wrapper", "excel_wrapper", "multidb_wrapper", "omop_wrapper"),
        *("parquet_wrapper", "sparql_wrapper", "sql_wrapper", "load_input", "write_output"),
    ),
    f"{_LEGACY}.wrappers",
)
_WRAPPER_CLASSES = dict.fromkeys(
    (
        *("WrapperBase", "CSVWrapper", "CsvWrapper", "DockerWrapper", "ExcelWrapper", "MultiDBWrapper", "OMOPWrapper"),
        *("ParquetWrapper", "SQLWrapper", "SparqlDockerWrapper", "select_wrapper"),
    ),
    f"{_LEGACY}.wrappers",
)
_DISPATCH = dict.fromkeys(("dispact_rpc", "dispatch_rpc"), f"{_LEGACY}.wrappers")
_LOG = dict.fromkeys(("error", "info", "warn"), "fedpkg.analytics.log")
_ERRORS = {"DeserializationException": "fedpkg.analytics.errors:DeserializationError"}

MODULES: dict[str, dict[str, str]] = {
    "vantage6.tools": {},
    "vantage6.tools.container_client": _CONTAINER,
    "vantage6.tools.data_format": {"DataFormat": f"{_LEGACY}.wrappers"},
    "vantage6.tools.deserialization": {"deserialize": f"{_LEGACY}.wrappers"},
    "vantage6.tools.dispatch_rpc": _DISPATCH,
    "vantage6.tools.docker_wrapper": {**_WRAPPERS, **_WRAPPER_CLASSES},
    "vantage6.tools.exceptions": _ERRORS,
    "vantage6.tools.mock_client": dict.fromkeys(("ClientMockProtocol", "MockAlgorithmClient"), f"{_LEGACY}.mock"),
    "vantage6.tools.serialization": {"serialize": f"{_LEGACY}.wrappers"},
    "vantage6.tools.util": _LOG,
    "vantage6.tools.wrapper": {**_WRAPPERS, **_WRAPPER_CLASSES},
    "vantage6.client": {
        **_CONTAINER,
        "AlgorithmClient": f"{_LEGACY}.client",
        "Client": f"{_LEGACY}.client:UserClient",
        "UserClient": f"{_LEGACY}.client",
    },
    "vantage6.client.algorithm_client": {"AlgorithmClient": f"{_LEGACY}.client"},
    "vantage6.client.deserialization": {"load_data": f"{_LEGACY}.wrappers:load"},
    "vantage6.client.exceptions": _ERRORS,
    "vantage6.client.serialization": {"serialize": f"{_LEGACY}.wrappers"},
}
