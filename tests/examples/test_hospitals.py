"""examples/hospitals: what the policies of its nodes allow, refuse and hide."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lessons import ROOT

from fedpkg.errors import SessionFailed
from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of
from fedpkg.session.session import prepare
from fedpkg.stores.home import Home

STATISTICS = ROOT / "examples" / "federated-statistics"
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "examples" / "hospitals", tmp_path / "hospitals")
    monkeypatch.chdir(tmp_path / "hospitals")
    subprocess.run([sys.executable, "make_data.py"], check=True, capture_output=True)
    return tmp_path / "hospitals"


def run(folder: Path, method: str, *arguments: str) -> Any:
    options = AlgorithmOptions(method, arguments, str(folder / "entities.yaml"), node_config=folder / "nodes")
    home = Home.open(folder / "home")
    return result_of(home, prepare(config_of_algorithm(STATISTICS, options), home).run())


def test_a_function_that_one_hospital_does_not_allow_fails_with_its_name_and_rule(folder: Path) -> None:
    with pytest.raises(SessionFailed) as error:
        run(folder, "quantiles", "column=bmi", "probabilities=0.5")
    assert "coast, task 1 (partial_counts_below): not_allowed: " in error.value.message
    assert "allowed_functions: partial_counts_below is not in the list" in error.value.message
    assert "north, task 1" not in error.value.message and "1 of 3 organizations have no result" in error.value.message


@pytest.mark.soak
def test_a_hospital_that_wants_company_is_not_asked_with_one_other(folder: Path) -> None:
    with pytest.raises(SessionFailed, match="minimum_organizations"):
        run(folder, "mean_and_variance", "columns=age", "organizations=1,3")


@pytest.mark.soak
def test_a_column_that_a_hospital_hides_is_not_there(folder: Path) -> None:
    with pytest.raises(SessionFailed, match="there is no column 'glucose'"):
        run(folder, "mean_and_variance", "columns=glucose")


def test_small_counts_of_each_hospital_are_left_out_of_the_sum(folder: Path) -> None:
    found = run(folder, "histogram", "column=bmi", "bins=12", "organizations=1,2")
    counts = [
        np.histogram(pd.read_csv(f"data/{hospital}.csv")["bmi"], bins=found["edges"])[0].tolist()
        for hospital in ("north", "south")
    ]
    wanted = [None if any(0 < one < 5 for one in both) else sum(both) for both in zip(*counts, strict=True)]
    assert found["counts"] == wanted and None in wanted and any(wanted)
