"""Algorithms in the shape of published ones (tests/algorithms), on the mock of their version and on the real runner."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from msgspec.structs import replace

from fedpkg.analytics import names
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federation import Federation

ALGORITHMS = Path(__file__).resolve().parents[2] / "algorithms"
Hospitals = Sequence[Mapping[str, pd.DataFrame]]  # the frames of each by label


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """The module of an algorithm can be imported, and is forgotten afterwards."""
    names.serve()
    path, before = str(ALGORITHMS / folder), set(sys.modules)
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(sys.modules[name].__file__).startswith(path):
                del sys.modules[name]


def module_of(folder: str) -> str:
    version, _, name = folder.partition("-")
    return f"{name}_{version}"


def on_mock(folder: str, method: str, hospitals: Hospitals, *, on_failure: str = "record", **arguments: Any) -> Any:
    """The result of a central function, on the mock of its version."""
    with importable(folder):
        if folder.startswith("v5"):
            from vantage6.algorithm.mock import MockNetwork  # type: ignore[import-not-found]

            network = MockNetwork(module_of(folder), hospitals, on_failure=on_failure)
            labels = [{"label": label} for label in hospitals[0]]
            client: Any = network.user_client
            task = client.task.create([1], method, arguments=arguments, databases=labels)
        else:
            client = mock_client(folder, hospitals, on_failure=on_failure)
            task = client.task.create({"method": method, "kwargs": arguments}, [0])
        [run] = client.run.from_task(task["id"])
        assert run["status"] == "completed", run["log"]
        [result] = client.wait_for_results(task["id"])
        return result


def mock_client(folder: str, hospitals: Hospitals, **more: Any) -> Any:
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient  # type: ignore[import-not-found]

    datasets = [[{"database": frame, "label": label} for label, frame in one.items()] for one in hospitals]
    return MockAlgorithmClient(datasets, module_of(folder), **more)


def on_runner(
    federation: Federation, folder: str | Path, method: str, hospitals: Hospitals, *, executor: str, **arguments: Any
) -> Any:
    """The result of a central function in a session, whose nodes have the frames as CSV files."""
    data = federation.home.root.parent / "data"
    for number, one in enumerate(hospitals):
        for label, frame in one.items():
            (data / label).mkdir(parents=True, exist_ok=True)
            frame.to_csv(data / label / f"hospital-{number}.csv", index=False)
    options = AlgorithmOptions(
        method,
        [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()],
        nodes=str(len(hospitals)),
        databases={label: str(data / label / "*.csv") for label in hospitals[0]},
        isolated=executor != "resident",  # which cannot isolate tasks
    )
    config = config_of_algorithm(ALGORITHMS / folder, options, [f"executor.name={executor}"])
    row = federation.run(replace(config, executor=replace(config.executor, workers=2)))
    return result_of(federation.home, row)
