"""Run with: python -m pytest"""

import sys
from pathlib import Path

import pandas as pd
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

PROJECT = Path(__file__).parents[1]
TABLES = sorted((PROJECT / "data").glob("*.csv"))
sys.path.insert(0, str(PROJECT / "algorithm"))


def average(column):
    client = MockAlgorithmClient([[{"database": path, "db_type": "csv"}] for path in TABLES], "template_app")
    input_ = {"method": "average", "kwargs": {"column": column}}
    task = client.task.create(input_=input_, organizations=[client.organization_id])
    return client.wait_for_results(task_id=task["id"])[0]


def test_average_is_that_of_all_rows():
    rows = pd.concat([pd.read_csv(path) for path in TABLES])
    found = average("age")
    assert found["count"] == len(rows)
    assert abs(found["mean"] - rows["age"].mean()) < 1e-9


def test_missing_values_do_not_count():
    rows = pd.concat([pd.read_csv(path) for path in TABLES])
    assert average("weight")["count"] == rows["weight"].count() < len(rows)
