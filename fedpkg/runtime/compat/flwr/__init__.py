"""The modules of message apps under the names of their original, where that is not installed.

Each module below ``flwr`` is made from the table ``MODULES``; its names are those of ``fedpkg.apps`` and
``fedpkg.records``. A name that is not there raises an ImportError that lists those that are.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

from _fedpkg_names import Library  # type: ignore[import-not-found]

__version__ = "fedpkg"

_RECORDS = dict.fromkeys(("Array", "ArrayRecord", "ConfigRecord", "MetricRecord", "RecordDict"), "fedpkg.records")
_FORMER_RECORDS = dict.fromkeys(("ConfigsRecord", "MetricsRecord", "ParametersRecord", "RecordSet"), "fedpkg.records")
_MESSAGES = {
    **dict.fromkeys(("Error", "ErrorCode", "Message", "MessageType", "Metadata"), "fedpkg.apps.message"),
    "DEFAULT_TTL": "fedpkg.apps.message",
    "Context": "fedpkg.apps.context",
}
_APP = {**_RECORDS, **_MESSAGES}
_TYPES = dict.fromkeys(
    (
        *("Code", "Config", "EvaluateIns", "EvaluateRes", "FitIns", "FitRes", "Metrics", "MetricsAggregationFn"),
        *(
            "NDArray",
            "NDArrayFloat",
            "NDArrayInt",
            "NDArrays",
            "Parameters",
            "Properties",
            "Scalar",
            "Status",
            "UserConfig",
            "UserConfigValue",
        ),
    ),
    "fedpkg.apps.typing",
)
_VALUES = dict.fromkeys(
    (
        *("ConfigRecordValues", "ConfigScalar", "ConfigScalarList", "MetricRecordValues", "MetricScalar"),
        *("MetricScalarList", "UserConfig", "UserConfigValue"),
    ),
    "fedpkg.apps.typing",
)
_PARAMETERS = dict.fromkeys(
    ("bytes_to_ndarray", "ndarray_to_bytes", "ndarrays_to_parameters", "parameters_to_ndarrays"), "fedpkg.apps.typing"
)
_LOG = {"FLOWER_LOGGER": "fedpkg.apps.log:logger", **dict.fromkeys(("log", "logger"), "fedpkg.apps.log")}
_CONFIG = dict.fromkeys(("flatten_dict", "unflatten_dict"), "fedpkg.apps.config")
_CALLABLES = dict.fromkeys(("ClientAppCallable", "Mod"), "fedpkg.apps.typing")
_CLIENT_APP = {"ClientApp": "fedpkg.apps.client_app"}
_CLIENT_ERRORS = dict.fromkeys(("ClientAppException", "LoadClientAppError"), "fedpkg.apps.client_app")
_MODS = dict.fromkeys(
    ("LocalDpMod", "adaptiveclipping_mod", "arrays_size_mod", "fixedclipping_mod", "message_size_mod"),
    "fedpkg.apps.mods",
)
_SECURE_MODS = dict.fromkeys(("secagg_mod", "secaggplus_mod"), "fedpkg.apps.mods")
_SERVER_APP = {"ServerApp": "fedpkg.apps.server_app", "Grid": "fedpkg.apps.grid"}
_STRATEGIES = dict.fromkeys(
    (
        *(
            "Bulyan",
            "FedAdagrad",
            "FedAdam",
            "FedAvg",
            "FedAvgM",
            "FedMedian",
            "FedOpt",
            "FedProx",
            "FedTrimmedAvg",
            "FedXgbBagging",
        ),
        *("FedXgbCyclic", "FedYogi", "Krum", "MultiKrum", "QFedAvg", "Result", "Strategy"),
        "DifferentialPrivacyClientSideAdaptiveClipping",
        "DifferentialPrivacyClientSideFixedClipping",
        "DifferentialPrivacyServerSideAdaptiveClipping",
        "DifferentialPrivacyServerSideFixedClipping",
    ),
    "fedpkg.apps.strategy",
)
_OLDER_STRATEGIES = dict.fromkeys(
    (
        *("FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedMedian", "FedProx", "FedTrimmedAvg", "FedYogi", "Krum"),
        *("QFedAvg", "Strategy"),
    ),
    "fedpkg.apps.strategy.older",
)
_SERVER = {
    **_SERVER_APP,
    "Driver": "fedpkg.apps.grid:Grid",
    **dict.fromkeys(("ServerAppComponents", "ServerConfig"), "fedpkg.apps.server_app"),
}
_MANAGERS = dict.fromkeys(("ClientManager", "SimpleClientManager"), "fedpkg.apps.strategy.client_manager")

MODULES: dict[str, dict[str, str]] = {
    "flwr.app": {**_APP, **_VALUES},
    "flwr.app.exception": {"AppExitException": "fedpkg.apps.errors"},
    "flwr.app.message": _APP,
    "flwr.client": {**_CLIENT_APP, **dict.fromkeys(("Client", "NumPyClient"), "fedpkg.apps.numpy_client")},
    "flwr.client.mod": {**_MODS, **_SECURE_MODS, "parameters_size_mod": "fedpkg.apps.mods:arrays_size_mod"},
    "flwr.client.client_app": {**_CLIENT_APP, **_CLIENT_ERRORS},
    "flwr.client.typing": _CALLABLES,
    "flwr.clientapp": {**_CLIENT_APP},
    "flwr.clientapp.client_app": {**_CLIENT_APP, **_CLIENT_ERRORS},
    "flwr.clientapp.exception": _CLIENT_ERRORS,
    "flwr.clientapp.mod": _MODS,
    "flwr.clientapp.typing": _CALLABLES,
    "flwr.common": {
        **_APP,
        **_FORMER_RECORDS,
        **_TYPES,
        **_PARAMETERS,
        **_VALUES,
        "array_from_numpy": "fedpkg.records:Array",
        "log": "fedpkg.apps.log",
    },
    "flwr.common.config": _CONFIG,
    "flwr.common.constant": {"ErrorCode": "fedpkg.apps.message", "MessageType": "fedpkg.apps.message"},
    "flwr.common.logger": _LOG,
    "flwr.common.message": _MESSAGES,
    "flwr.common.parameter": {**_PARAMETERS, "Parameters": "fedpkg.apps.typing"},
    "flwr.common.record": {**_RECORDS, **_FORMER_RECORDS},
    "flwr.common.typing": _TYPES,
    "flwr.server": {**_SERVER, **_MANAGERS},
    "flwr.server.client_manager": _MANAGERS,
    "flwr.server.client_proxy": {"ClientProxy": "fedpkg.apps.strategy.client_manager"},
    "flwr.server.criterion": {"Criterion": "fedpkg.apps.strategy.client_manager"},
    "flwr.server.strategy": _OLDER_STRATEGIES,
    "flwr.server.strategy.aggregate": dict.fromkeys(
        ("aggregate", "aggregate_inplace", "weighted_loss_avg"), "fedpkg.apps.strategy.older"
    ),
    "flwr.serverapp": _SERVER_APP,
    "flwr.serverapp.exception": dict.fromkeys(
        ("AggregationError", "AppExitException", "InconsistentMessageReplies"), "fedpkg.apps.errors"
    ),
    "flwr.serverapp.strategy": _STRATEGIES,
    "flwr.serverapp.strategy.strategy_utils": {
        **dict.fromkeys(
            (
                *("aggregate_arrayrecords", "config_to_str", "log_strategy_start_info", "sample_nodes"),
                "validate_message_reply_consistency",
            ),
            "fedpkg.apps.strategy.parts",
        ),
        "aggregate_metricrecords": "fedpkg.apps.strategy",
    },
    "flwr.simulation": {},
}

_RUN = "an app is run by `fedpkg run APPDIR`, or from Python by fedpkg.run"
_SERIALISED = "it is of the methods of Client, which take serialised parameters; derive the client from NumPyClient"
_NO_SERVER = "write a ServerApp with @app.main(), or with server_fn"
_ACCOUNT = (
    "each DifferentialPrivacy… strategy keeps the account itself: with fedpkg[dp], each round shows the epsilon at "
    "delta=, which is also strategy.epsilon"
)
REASONS = {
    "flwr.client.start_client": _RUN,
    "flwr.client.start_numpy_client": _RUN,
    "flwr.server.start_server": _RUN,
    "flwr.simulation.run_simulation": _RUN,
    "flwr.simulation.start_simulation": _RUN,
    **{
        f"flwr.common{module}.Get{what}": _SERIALISED
        for module in ("", ".typing")
        for what in ("ParametersIns", "ParametersRes", "PropertiesIns", "PropertiesRes")
    },
    **dict.fromkeys(("flwr.server.Server", "flwr.server.server", "flwr.server.compat"), _NO_SERVER),
    **dict.fromkeys(
        ("flwr.server.History", "flwr.server.history"),
        "Result of a strategy has the metrics, and the session shows them",
    ),
    "flwr.server.LegacyContext": "its workflows are not supported; write a ServerApp with @app.main()",
    **dict.fromkeys(
        (
            *("flwr.serverapp.GaussianPrivacyEvent", "flwr.serverapp.NeighboringRelation"),
            *("flwr.serverapp.PrivacyAccountant", "flwr.serverapp.PrivacyConfig", "flwr.serverapp.PrivacySpent"),
            *("flwr.serverapp.RdpAccountant", "flwr.serverapp.SamplingMethod"),
        ),
        _ACCOUNT,
    ),
    "flwr.server.workflow": "workflows are not supported; write a ServerApp with @app.main()",
}


__getattr__ = Library("flwr", MODULES, REASONS).look_up
