"""Runs of the algorithms in tests/algorithms."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from fedpkg.config import RunConfig
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm

ALGORITHMS = Path(__file__).resolve().parents[2] / "algorithms"


def configured(hospitals: Path, method: str, *overrides: str, **options: object) -> RunConfig:
    """A run of tests/algorithms/probes at the hospitals, with two tasks at a time."""
    given = {"nodes": str(hospitals / "entities.yaml"), "databases": {"default": str(hospitals / "data/*.csv")}}
    asked = AlgorithmOptions(method, **{**given, **options})  # type: ignore[arg-type]
    config = config_of_algorithm(ALGORITHMS / "probes", asked, overrides)
    return replace(config, executor=replace(config.executor, workers=2))
