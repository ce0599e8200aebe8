"""FEDn's aggregators as sections ``strategy`` of a run.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPTIMISERS = {"adam": "fedadam", "yogi": "fedyogi", "adagrad": "fedadagrad"}
_FEDOPT = {"serveropt": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99, "tau": 1e-4}  # FEDn's defaults


def strategy_of(aggregator: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy that corresponds to an aggregator of FEDn; other names and parameters are those of a strategy."""
    options = {**_FEDOPT, **kwargs}
    optimiser = _OPTIMISERS.get(options["serveropt"])
    if aggregator == "splitlearningagg":
        return {"name": "split", **kwargs}
    if aggregator != "fedopt" or optimiser is None or options.keys() != _FEDOPT.keys():
        return {"name": aggregator, **kwargs}
    betas = {"beta_1": options["beta1"], "beta_2": options["beta2"]}
    if optimiser == "fedadagrad":
        del betas["beta_2"]
    return {"name": optimiser, "learning_rate": options["learning_rate"], **betas, "tau": options["tau"]}
