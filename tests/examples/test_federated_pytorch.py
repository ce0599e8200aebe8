"""examples/federated-pytorch: both algorithms train the same network, which is that of the pooled rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from lessons import ROOT
from sklearn.datasets import load_diabetes

from fedpkg.analytics import names

PREDICTORS = ["age", "bmi", "bp", "s5"]
FOLDER = ROOT / "examples" / "federated-pytorch"


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    names.serve()
    monkeypatch.syspath_prepend(str(FOLDER / "weights"))
    monkeypatch.syspath_prepend(str(FOLDER / "parameters"))


def hospitals() -> list[pd.DataFrame]:
    frame = load_diabetes(as_frame=True, scaled=False).frame[["target", *PREDICTORS]]
    return [frame[:300], frame[300:420], frame[420:].reset_index(drop=True)]


def of_version_4(tables: list[pd.DataFrame], **arguments: Any) -> Any:
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

    client = MockAlgorithmClient([[{"database": one, "db_type": "csv"}] for one in tables], "federated_network")
    [first, *_] = [one["id"] for one in client.organization.list()]
    kwargs = {"outcome": "target", "predictors": PREDICTORS, **arguments}
    task = client.task.create(input_={"method": "train", "kwargs": kwargs}, organizations=[first])
    return client.wait_for_results(task["id"])[0]


def of_versions_1_to_3(tables: list[pd.DataFrame], tmp_path: Any, **arguments: Any) -> Any:
    from vantage6.tools.mock_client import ClientMockProtocol

    paths = [tmp_path / f"{number}.csv" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_csv(path, index=False)
    client = ClientMockProtocol(datasets=list(map(str, paths)), module="v6-network-py")
    kwargs = {"outcome": "target", "predictors": PREDICTORS, **arguments}
    task = client.create_new_task(
        input_={"master": 1, "method": "master", "kwargs": kwargs},
        organization_ids=[client.get_organizations_in_my_collaboration()[0]["id"]],
    )
    return client.get_results(task["id"])[0]


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, tensor in wanted["weights"].items():
        torch.testing.assert_close(
            torch.as_tensor(found["weights"][name]), torch.as_tensor(tensor), atol=2e-5, rtol=1e-5
        )


def test_one_step_in_each_round_is_gradient_descent_on_the_pooled_rows():
    tables = hospitals()
    found = of_version_4(tables, rounds=6, steps=1)
    close(found, of_version_4([pd.concat(tables)], rounds=1, steps=6))
    assert found["losses"][-1] < 0.8 * found["losses"][0] and found["rows"] == 442


def test_both_algorithms_train_the_same_network(tmp_path):
    tables = hospitals()
    found = of_version_4(tables, rounds=3, steps=4)
    close(found, of_versions_1_to_3(tables, tmp_path, rounds=3, steps=4))


def test_momentum_of_the_server_changes_the_network():
    without, with_momentum = (
        of_version_4(hospitals(), rounds=6, steps=1, momentum=one)["losses"] for one in (0.0, 0.5)
    )
    assert with_momentum[:2] == without[:2] and with_momentum[-1] < without[-1]
