"""Algorithms in the form of versions 1 to 3, with the mock clients and as sessions, against pandas on all rows."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from fedpkg.analytics import names
from fedpkg.analytics.legacy.mock import ClientMockProtocol, MockAlgorithmClient
from fedpkg.errors import ConfigError, FedpkgError
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of
from fedpkg.session.session import prepare
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

ALGORITHMS = Path(__file__).resolve().parents[2] / "algorithms"
HOSPITALS = 4


@dataclass(frozen=True)
class Case:
    """An algorithm, the call of its central function, and a check of the result against all rows."""

    folder: str
    module: str
    method: str
    check: Callable[[Any, pd.DataFrame, list[pd.DataFrame]], None]
    kwargs: dict[str, Any] = field(default_factory=dict)
    is_new_client: bool = False


def check_average(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    assert result == {"average": sum(float(one.age.sum()) for one in parts) / len(everything)}


def check_summary(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    age = everything.age
    assert result["number_of_rows"] == len(everything)
    assert result["stage"] == everything.stage.value_counts().sort_index().to_dict()
    assert (result["age"]["min"], result["age"]["max"], result["age"]["missing"]) == (age.min(), age.max(), 0)
    assert result["age"]["mean"] == sum(one.age.sum() for one in parts) / len(everything)
    assert result["age"]["std"] == pytest.approx(age.std(), rel=1e-13)


def check_nested(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    pairs = [pd.concat(parts[start : start + 2]) for start in range(0, HOSPITALS, 2)]
    best = int(np.argmax([one.age.mean() for one in pairs]))
    ids, mean = result
    assert ids[1] - ids[0] == 1 and ids[0] // 2 == best
    assert mean == pairs[best].age.sum() / len(pairs[best])


def check_crosstab(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    pd.testing.assert_frame_equal(result, pd.crosstab(everything.stage, everything.ward))


def check_variance(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    assert result["variance"] == pytest.approx(everything.age.var(), rel=1e-13)
    assert result["largest"].endswith(str(int(np.argmax([one.age.sum() for one in parts]))))
    assert result["asked_by"].endswith("0")


def check_regression(result: Any, everything: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    fitted = sm.Logit(everything.died, sm.add_constant(everything[["age", "size"]])).fit(disp=0, tol=1e-12)
    assert result["features"] == ["intercept", "age", "size"]
    assert isinstance(result["beta"], np.ndarray)
    np.testing.assert_allclose(result["beta"], fitted.params, rtol=1e-8)
    np.testing.assert_allclose(result["se"], fitted.bse, rtol=1e-6)


CASES = [
    Case("v1-average", "v6-average-py", "master", check_average, {"column_name": "age"}),
    Case("v2-summary", "summary_py", "master", check_summary, {"columns": {"age": "numeric", "stage": "category"}}),
    Case("v2-nested", "regions_py", "master", check_nested, {"column": "age"}),
    Case("v3-crosstab", "v6_crosstab_py", "crosstab", check_crosstab, {"rows": "stage", "columns": "ward"}),
    Case("v3-new-client", "spread_py", "variance", check_variance, {"column": "age"}, is_new_client=True),
    Case("v3-regression", "v6_regression_py", "fit", check_regression, {"features": ["age", "size"], "target": "died"}),
]
BY_NAME = {one.folder: one for one in CASES}


@pytest.fixture
def parts() -> list[pd.DataFrame]:
    """The patients of each hospital."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(HOSPITALS):
        rows = 40 + 7 * number
        age, size = rng.integers(30, 90, rows), rng.normal(2, 1, rows).round(3)
        risk = 1 / (1 + np.exp(-(0.04 * (age - 60) + 0.8 * (size - 2))))
        columns = {"age": age, "stage": rng.choice(["I", "II"], rows), "ward": rng.choice(["a", "b"], rows)}
        found.append(pd.DataFrame({**columns, "size": size, "died": (rng.random(rows) < risk).astype(int)}))
    return found


@pytest.fixture(autouse=True)
def published_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The names of vantage6, and the algorithms, can be imported in this process."""
    names.serve()
    for case in CASES:
        monkeypatch.syspath_prepend(str(ALGORITHMS / case.folder))
    yield
    for name in [one for one in sys.modules if one.partition(".")[0] in {case.module for case in CASES}]:
        del sys.modules[name]


@pytest.fixture
def pattern(parts: list[pd.DataFrame], tmp_path: Path) -> str:
    """The files of the hospitals."""
    folder = tmp_path / "Daten ü"
    folder.mkdir()
    for number, one in enumerate(parts):
        one.to_csv(folder / f"hospital-{number}.csv", index=False)
    return str(folder / "*.csv")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def run(case: Case, pattern: str, home: Home, *words: str, isolated: bool = True) -> Any:
    """What the case's central function returns as a session."""
    options = AlgorithmOptions(
        case.method,
        [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in case.kwargs.items()],
        databases={"default": pattern},
        isolated=isolated,
    )
    row = prepare(config_of_algorithm(ALGORITHMS / case.folder, options, words), home).run()
    assert row.status == "finished"
    return result_of(home, row)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder)
def test_mock_client_equals_the_pooled_computation(case: Case, parts: list[pd.DataFrame]) -> None:
    everything = pd.concat(parts, ignore_index=True)
    input_ = {"master": True, "method": case.method, "kwargs": case.kwargs}
    if case.is_new_client:
        new = MockAlgorithmClient([{"database": one} for one in parts], case.module)
        results = new.result.get(new.task.create(input_, [0])["id"])
    else:
        old = ClientMockProtocol(parts, case.module)
        results = old.get_results(old.create_new_task(input_, [0])["id"])
    assert len(results) == 1
    case.check(results[0], everything, parts)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder)
@pytest.mark.every_push("v1-average|v2-nested|v3-new-client")
def test_session_equals_the_pooled_computation(case: Case, parts: list[pd.DataFrame], pattern: str, home: Home) -> None:
    everything = pd.concat(parts, ignore_index=True)
    case.check(run(case, pattern, home, "executor.name=forkserver"), everything, parts)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["process", "resident"])
@pytest.mark.parametrize(
    "name",
    [
        "v1-average",
        "v2-nested",
        "v3-new-client",
        *(pytest.param(one, marks=pytest.mark.soak) for one in ("v2-summary", "v3-crosstab", "v3-regression")),
    ],
)
@pytest.mark.every_push("v1-average-process")
def test_session_of_another_executor_equals_the_pooled_computation(
    name: str, executor: str, parts: list[pd.DataFrame], pattern: str, home: Home
) -> None:
    everything = pd.concat(parts, ignore_index=True)
    result = run(BY_NAME[name], pattern, home, f"executor.name={executor}", isolated=executor != "resident")
    BY_NAME[name].check(result, everything, parts)


@pytest.mark.slow
def test_regions_of_a_nested_central_function_run_side_by_side(pattern: str, home: Home) -> None:
    """Three rounds: both regions, the two tasks that they want, and both regions again."""
    run(BY_NAME["v2-nested"], pattern, home)
    with open_store(home, read_only=True) as store:
        [session] = store.list_sessions()
        rounds = store.list_rounds(session.session_id)
    assert [one.round_number for one in rounds] == [1, 2, 3]


@pytest.mark.slow
def test_a_session_names_failed_organizations_and_has_warnings_in_its_log(
    tmp_path: Path, pattern: str, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "algorithm"
    folder.mkdir()
    (folder / "few.py").write_text(
        "def master(client, data):\n"
        "    return client.get_results(client.create_new_task({'method': 'count'})['id'])\n\n"
        "def RPC_count(data):\n"
        "    if len(data) < 50:\n"
        "        raise ValueError('too few rows')\n"
        "    return len(data)\n"
    )
    caplog.set_level(logging.INFO)
    config = config_of_algorithm(folder, AlgorithmOptions("master", databases={"default": pattern}))
    with pytest.raises(FedpkgError) as raised:
        prepare(config, home).run()
    assert "2 of 4 organizations have no result of task 1" in str(raised.value)
    assert "hospital-0 (id 1): failed" in str(raised.value)
    assert "ValueError: too few rows" in str(raised.value)
    assert "no result of hospital-1, task 1 (RPC_count): exit_code" in caplog.text
    assert "warning: the task 'count' names no organizations, so all of them run it" in caplog.text


@pytest.mark.slow
def test_a_file_of_the_algorithm_is_not_taken_for_its_result(tmp_path: Path, pattern: str, home: Home) -> None:
    folder = tmp_path / "algorithm"
    folder.mkdir()
    body = "    with open('result.json', 'w') as file:\n        file.write('[1]')\n    return {1, 2}\n"
    (folder / "writes.py").write_text(f"def master(client, data):\n{body}")
    row = prepare(config_of_algorithm(folder, AlgorithmOptions("master", databases={"default": pattern})), home).run()
    assert result_of(home, row) == {1, 2}


@pytest.mark.slow
def test_the_input_of_a_session_may_have_a_query_and_an_output_format(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "algorithm"
    folder.mkdir()
    (folder / "ages.py").write_text("def RPC_ages(data):\n    return data\n")
    for number in range(2):
        with sqlite3.connect(tmp_path / f"{number}.sqlite") as database:
            database.execute("create table patients (age integer)")
            database.executemany("insert into patients values (?)", [(20 + number,), (80 + number,)])
    words = ["strategy.input.query=select age from patients where age > 50", "strategy.input.output_format=json"]
    options = AlgorithmOptions("ages", databases={"default": str(tmp_path / "*.sqlite")})
    row = prepare(config_of_algorithm(folder, options, words), home).run()
    assert result_of(home, row) == {"0": {"age": {"0": 80}}, "1": {"age": {"0": 81}}}
    with pytest.raises(ConfigError, match="there is no key 'quary'"):
        prepare(config_of_algorithm(folder, options, ["strategy.input.quary=select 1"]), home).run()
