"""Strategies of message apps: what a ServerApp asks of the nodes in each round, and what it makes of their replies.

    strategy = FedAvg(fraction_train=0.5)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=3)

docs/reference/message-app-strategies.md describes all of them. They run in the server's program alone. Importing this
package loads neither PyTorch nor fedpkg's own strategies: each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpkg.apps.strategy.any_strategy import FedStrategy
    from fedpkg.apps.strategy.base import Result, Strategy
    from fedpkg.apps.strategy.fedavg import FedAvg
    from fedpkg.apps.strategy.fedopt import FedAdagrad, FedAdam, FedAvgM, FedOpt, FedYogi
    from fedpkg.apps.strategy.fedprox import FedProx
    from fedpkg.apps.strategy.metrics import aggregate_metricrecords
    from fedpkg.apps.strategy.private import (
        DifferentialPrivacyClientSideAdaptiveClipping,
        DifferentialPrivacyClientSideFixedClipping,
        DifferentialPrivacyServerSideAdaptiveClipping,
        DifferentialPrivacyServerSideFixedClipping,
    )
    from fedpkg.apps.strategy.qfedavg import QFedAvg
    from fedpkg.apps.strategy.robust import Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum
    from fedpkg.apps.strategy.xgboost import FedXgbBagging, FedXgbCyclic

_HOMES = {
    "Bulyan": "robust",
    "DifferentialPrivacyClientSideAdaptiveClipping": "private",
    "DifferentialPrivacyClientSideFixedClipping": "private",
    "DifferentialPrivacyServerSideAdaptiveClipping": "private",
    "DifferentialPrivacyServerSideFixedClipping": "private",
    "FedAdagrad": "fedopt",
    "FedAdam": "fedopt",
    "FedAvg": "fedavg",
    "FedAvgM": "fedopt",
    "FedMedian": "robust",
    "FedOpt": "fedopt",
    "FedProx": "fedprox",
    "FedStrategy": "any_strategy",
    "FedTrimmedAvg": "robust",
    "FedXgbBagging": "xgboost",
    "FedXgbCyclic": "xgboost",
    "FedYogi": "fedopt",
    "Krum": "robust",
    "MultiKrum": "robust",
    "QFedAvg": "qfedavg",
    "Result": "base",
    "Strategy": "base",
    "aggregate_metricrecords": "metrics",
}
__all__ = [
    "Bulyan",
    "DifferentialPrivacyClientSideAdaptiveClipping",
    "DifferentialPrivacyClientSideFixedClipping",
    "DifferentialPrivacyServerSideAdaptiveClipping",
    "DifferentialPrivacyServerSideFixedClipping",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedOpt",
    "FedProx",
    "FedStrategy",
    "FedTrimmedAvg",
    "FedXgbBagging",
    "FedXgbCyclic",
    "FedYogi",
    "Krum",
    "MultiKrum",
    "QFedAvg",
    "Result",
    "Strategy",
    "aggregate_metricrecords",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
