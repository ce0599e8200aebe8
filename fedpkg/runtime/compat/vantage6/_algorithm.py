"""The names of versions 4 and 5: ``vantage6.algorithm`` and ``vantage6.common``.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

_V4, _V5, _ERRORS, _WORDS = (
    "fedpkg.analytics.v4",
    "fedpkg.analytics.v5",
    "fedpkg.analytics.errors",
    "fedpkg.analytics.words",
)
_VERSION = {"__version__": _WORDS}
_LOG = dict.fromkeys(("debug", "error", "info"), "fedpkg.analytics.log")
_UTIL = dict.fromkeys(
    ("check_envvar_value_positive", "error", "get_action", "get_env_var", "info", "warn"), _V4 + ".util"
)
_EXCEPTIONS = dict.fromkeys(
    (
        *("AlgorithmError", "AlgorithmExecutionError", "AlgorithmInitializationError", "AlgorithmModuleNotFoundError"),
        *("AlgorithmRuntimeError", "ClientError", "CollectOrganizationError", "CollectResultsError"),
        *("ConvergenceError", "DataError", "DataFrameNotFound", "DataReadError", "DataTypeError"),
        *("DeserializationError", "DeserializationException", "EnvironmentVariableError"),
        *("EnvironmentVariableNotFoundError", "InputError", "MaxIterationsReached", "MethodNotFoundError"),
        *("NodePermissionException", "PrivacyThresholdViolation", "PrivacyViolation", "SessionActionMismatchError"),
        *("SubtakCreationError", "UserInputError"),
    ),
    _ERRORS,
)
_DECORATORS = dict.fromkeys(
    (
        *("OHDSIMetaData", "RunMetaData", "_get_user_database_labels", "algorithm_client", "data"),
        *("database_connection", "get_ohdsi_metadata", "metadata"),
    ),
    _V4 + ".decorators",
)
_WRAPPERS = dict.fromkeys(
    (
        *("DatabaseType", "get_column_names", "load_csv_data", "load_data", "load_excel_data", "load_parquet_data"),
        *("load_sparql_data", "load_sql_data"),
    ),
    _V4 + ".wrappers",
)
_PREPROCESSING_4 = dict.fromkeys(("dummy_preprocess", "filter_range"), _V4 + ".preprocessing")
_ACTIONS = dict.fromkeys(("central", "data_extraction", "federated", "preprocessing"), _V5 + ".decorators")
_FRAMES = dict.fromkeys(("dataframe", "dataframes"), _V5 + ".decorators")
_CLIENT_5 = {"algorithm_client": _V5 + ".decorators"}
_OMOP = {"omop_data_extraction": _V5 + ".decorators"}
_MOCK = {
    "MockNetwork": _V5 + ".network",
    "MockAlgorithmClient": _V5 + ".network",
    "MockUserClient": _V5 + ".network",
    "MockNode": _V5 + ".network:NodeOfMock",
    "MockHQ": _V5 + ".network:HQ",
}
_EXTRACTION = dict.fromkeys(
    ("read_csv", "read_excel", "read_parquet", "read_sparql_database", "read_sql_database"), _V5 + ".not_there"
)
_PREPROCESSING_5 = {
    "aggregation": ("collapse", "group_statistics"),
    "column": ("assign_column", "change_column_type", "redefine_column", "rename_columns"),
    "datetime": ("calculate_age", "timedelta", "to_datetime", "to_timedelta"),
    "encoding": (
        *("discretize_column", "encode", "extract_from_string", "impute", "min_max_scale", "one_hot_encode"),
        "standard_scale",
    ),
    "filtering": ("drop_columns", "filter_by_date", "filter_range", "select_columns", "select_rows"),
}
_GLOBALS = dict.fromkeys(
    (
        *("APPNAME", "AuthStatus", "ContainerEnvNames", "DATAFRAME_BETWEEN_GROUPS_SEPARATOR"),
        *("DATAFRAME_MULTIPLE_KEYWORD", "DATAFRAME_WITHIN_GROUP_SEPARATOR", "ENV_VAR_EQUALS_REPLACEMENT"),
        "STRING_ENCODING",
    ),
    _WORDS,
)
_STATUS = dict.fromkeys(("TaskStatus", "has_task_failed", "has_task_finished"), _WORDS)
_ENUMS = dict.fromkeys(("AlgorithmStepType", "DatabaseType", "RunStatus", "TaskStatus"), _WORDS)
_COMMON = dict.fromkeys(("base64s_to_bytes", "bytes_to_base64s", "echo", "logger_name"), "fedpkg.analytics.common")

MODULES = {
    "vantage6.algorithm": {},
    "vantage6.algorithm.client": {"AlgorithmClient": _V4 + ".client", **_VERSION},
    "vantage6.algorithm.tools": {"AlgorithmClient": _V4 + ".client", **_VERSION},
    "vantage6.algorithm.tools.decorators": _DECORATORS,
    "vantage6.algorithm.tools.error_handling": dict.fromkeys(
        ("handle_data_errors", "handle_pandas_errors"), "fedpkg.analytics.errors"
    ),
    "vantage6.algorithm.tools.exceptions": _EXCEPTIONS,
    "vantage6.algorithm.tools.mock_client": {"MockAlgorithmClient": _V4 + ".mock_client"},
    "vantage6.algorithm.tools.preprocessing": {"preprocess_data": _V4 + ".preprocessing"},
    "vantage6.algorithm.tools.preprocessing.functions": _PREPROCESSING_4,
    "vantage6.algorithm.tools.util": _UTIL,
    "vantage6.algorithm.tools.wrap": dict.fromkeys(("load_input", "wrap_algorithm"), _V4 + ".wrap"),
    "vantage6.algorithm.tools.wrappers": _WRAPPERS,
    "vantage6.algorithm.decorator": {
        **_ACTIONS,
        **_FRAMES,
        **_CLIENT_5,
        **_OMOP,
        "metadata": _V5 + ".decorators",
    },
    "vantage6.algorithm.decorator.action": _ACTIONS,
    # Modules of the names of their decorators: as an attribute of the package, the name is the decorator.
    "vantage6.algorithm.decorator.algorithm_client": _CLIENT_5,
    "vantage6.algorithm.decorator.data": _FRAMES,
    "vantage6.algorithm.decorator.metadata": dict.fromkeys(("RunMetaData", "metadata"), _V5 + ".decorators"),
    "vantage6.algorithm.decorator.ohdsi": {**_OMOP, "OHDSIMetaData": _V4 + ".decorators"},
    "vantage6.algorithm.data_extraction": _EXTRACTION,
    "vantage6.algorithm.preprocessing": {},
    **{
        "vantage6.algorithm.preprocessing." + inner: dict.fromkeys(names, _V5 + ".not_there")
        for inner, names in _PREPROCESSING_5.items()
    },
    "vantage6.algorithm.mock": {"MockNetwork": _V5 + ".network"},
    "vantage6.algorithm.mock.client": {name: _MOCK[name] for name in ("MockAlgorithmClient", "MockUserClient")},
    "vantage6.algorithm.mock.hq": {"MockHQ": _MOCK["MockHQ"]},
    "vantage6.algorithm.mock.network": {"MockNetwork": _MOCK["MockNetwork"]},
    "vantage6.algorithm.mock.node": {"MockNode": _MOCK["MockNode"]},
    "vantage6.common": {**_COMMON, **_LOG, "warning": "fedpkg.analytics.log", "STRING_ENCODING": _WORDS},
    "vantage6.common.client": {},
    "vantage6.common.client.client_base": {"ClientBase": _V4 + ".client:Client"},
    "vantage6.common.client.deserialization": {"deserialize": "fedpkg.analytics.common"},
    "vantage6.common.enum": _ENUMS,
    "vantage6.common.globals": _GLOBALS,
    "vantage6.common.serialization": {"serialize": "fedpkg.analytics.common"},
    "vantage6.common.task_status": _STATUS,
}
_NO_SERVER = "a server, a node or a user's client is not needed here: 'fedpkg algorithm run' runs an algorithm"
_NO_SESSIONS = "there are no sessions; the runner reads each node's databases itself"
REASONS = {
    "vantage6.algorithm.data_extraction.mock_extract": _NO_SESSIONS,
    "vantage6.algorithm.preprocessing.algorithm_json_data": "it describes functions for a store, which is not there",
    "vantage6.common.context": _NO_SERVER,
    "vantage6.common.docker": _NO_SERVER,
    "vantage6.common.encryption": _NO_SERVER,
    "vantage6.common.client.node_client": _NO_SERVER,
    "vantage6.cli": _NO_SERVER,
    "vantage6.node": _NO_SERVER,
    "vantage6.server": _NO_SERVER,
}
