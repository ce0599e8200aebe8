"""Algorithms in the shape of published ones give the same on the mock, on the real runner, and on pooled data."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import ALGORITHMS, Federation, Hospitals, on_mock, on_runner

from fedpkg.stores.home import Home


def hospitals() -> Hospitals:
    rng = np.random.default_rng(7)
    sizes = (40, 2, 25)
    frames = []
    for size in sizes:
        age = rng.integers(20, 90, size)
        visits = rng.poisson(np.exp(0.2 + 0.01 * age))
        stage = rng.choice(["I", "II", "III"], size)
        frames.append({"default": pd.DataFrame({"id": range(size), "age": age, "visits": visits, "stage": stage})})
    return frames


def with_treatments() -> Hospitals:
    rng = np.random.default_rng(8)
    found = []
    for one in hospitals():
        patients = one["default"]
        drugs = pd.DataFrame({"id": patients["id"], "drug": rng.choice(["a", "b"], len(patients))})
        found.append({"patients": patients, "treatments": drugs})
    return found


def pooled() -> pd.DataFrame:
    return pd.concat([one["default"] for one in hospitals()])


@pytest.fixture(
    params=["mock", "forkserver", *(pytest.param(one, marks=pytest.mark.soak) for one in ("process", "resident"))]
)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Runs a central function: on the mock, or in a session with an executor."""
    return on_mock if request.param == "mock" else in_session(tmp_path, request.param)


def in_session(tmp_path: Path, executor: str) -> Any:
    federation = Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))
    return partial(on_runner, federation, executor=executor)


@pytest.mark.parametrize("folder", ["v4-average", "v5-average"])
def test_the_mean_is_that_of_all_rows(run: Any, folder: str) -> None:
    found = run(folder, "central_average", hospitals(), column_name="age")
    assert found["average"] == pooled()["age"].mean()


@pytest.mark.parametrize("executor", ["process", "resident"])
@pytest.mark.parametrize("folder", ["v4-average", "v5-average"])
@pytest.mark.every_push("v5-average-process")
def test_the_mean_of_another_executor_is_that_of_all_rows(tmp_path: Path, folder: str, executor: str) -> None:
    found = in_session(tmp_path, executor)(folder, "central_average", hospitals(), column_name="age")
    assert found["average"] == pooled()["age"].mean()


@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("process")
def test_an_installed_library_is_not_used_as_its_client_would_look_for_a_server(tmp_path: Path, executor: str) -> None:
    folder = tmp_path / "v4-average"
    shutil.copytree(ALGORITHMS / "v4-average", folder)
    (folder / "vantage6/algorithm").mkdir(parents=True)
    (folder / "vantage6/algorithm/__init__.py").write_text("raise RuntimeError('theirs')\n")
    found = in_session(tmp_path, executor)(folder, "central_average", hospitals(), column_name="age")
    assert found["average"] == pooled()["age"].mean()


def test_a_summary_in_two_rounds_is_that_of_all_rows(run: Any) -> None:
    found = run("v4-summary", "summary", hospitals(), columns=["age", "visits"])
    for column in ("age", "visits"):
        values = pooled()[column]
        assert found[column]["count"] == len(values)
        assert found[column]["mean"] == pytest.approx(values.mean(), rel=1e-14)
        assert found[column]["variance"] == pytest.approx(values.var(), rel=1e-13)
        assert (found[column]["min"], found[column]["max"]) == (values.min(), values.max())


def test_the_first_of_two_frames_is_the_database_that_is_named_first(run: Any) -> None:
    found = run("v4-crosstab", "crosstab", with_treatments(), row="stage", column="drug")
    joined = pd.concat([one["patients"].merge(one["treatments"], on="id") for one in with_treatments()])
    wanted = pd.crosstab(joined["stage"], joined["drug"])
    assert found == {
        stage: {drug: number for drug, number in row.items() if number} for stage, row in wanted.T.to_dict().items()
    }


def test_metadata_are_those_of_each_organization(run: Any) -> None:
    found = run("v4-shapes", "who", hospitals())
    assert [one["rows"] for one in found] == [40, 2, 25]
    assert len({one["organization"] for one in found}) == len({one["name"] for one in found}) == 3
    assert all(one["is_node"] and one["collaboration"] == 1 and all(one["files"]) for one in found)
    assert all(all(one["token"]) for one in found), "the token of a task is in its file"


def test_loops_that_wait_end_at_once(run: Any) -> None:
    assert run("v4-shapes", "polled", hospitals()) == [[40, 2, 25], [40, 2, 25]]


def test_a_task_that_fails_at_one_organization_has_the_results_of_the_others_and_its_reason(run: Any) -> None:
    found = run("v4-shapes", "survey", hospitals())
    assert found["results"] == [40, 25]
    assert found["status"] == "failed"
    assert [word == "completed" for word in found["runs"].values()] == [True, False, True]
    [reason] = found["reasons"]
    assert "DataError: 2 rows are fewer than 3" in reason


def test_a_central_function_as_a_task_runs_where_it_was_sent(run: Any) -> None:
    found = run("v4-shapes", "nested", hospitals())
    assert found["rows"] == 67 and found["asked_by"] in (2, 3)  # ids count from 0 in the mock of version 4


def test_a_result_that_json_lacks_is_a_failure_that_names_function_and_place(
    run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("v4-shapes", "sends_numbers", hospitals()) == []


def test_keys_and_tuples_are_what_json_makes_of_them(run: Any) -> None:
    assert run("v4-shapes", "round_trip", hospitals()) == {"value": {"1": [2, 3]}, "4": [5, None]}


def test_a_generalised_linear_model_is_that_of_all_rows(run: Any) -> None:
    import statsmodels.api as sm

    found = run("v5-glm", "glm", hospitals(), outcome="visits", predictors=["age"])
    data = pooled()
    constant = sm.add_constant(data["age"].astype(float))
    model = sm.GLM(data["visits"], constant, family=sm.families.Poisson()).fit(tol=1e-14)
    assert list(found["beta"].values()) == pytest.approx(list(model.params), rel=1e-8)
