"""A contingency table of two databases of each organisation: its patients, and their treatments."""

import pandas as pd
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client, data


@algorithm_client
def crosstab(client: AlgorithmClient, row: str, column: str) -> dict:
    """Count pairs of values over all organisations: ``row`` is of the patients, ``column`` of the treatments."""
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create({"method": "partial_crosstab", "args": [row, column]}, ids)
    total: dict = {}
    for counts in client.wait_for_results(task["id"]):
        for one, inner in counts.items():
            for other, number in inner.items():
                total.setdefault(one, {}).setdefault(other, 0)
                total[one][other] += number
    return total


@data(2)
def partial_crosstab(patients: pd.DataFrame, treatments: pd.DataFrame, row: str, column: str) -> dict:
    """Count pairs of values here."""
    joined = patients[["id", row]].merge(treatments[["id", column]], on="id")
    table = pd.crosstab(joined[row], joined[column])
    return {str(one): {str(other): int(number) for other, number in inner.items()} for one, inner in table.T.items()}
