"""A contingency table: partial results are DataFrames, and so is the result."""

import pandas as pd
from vantage6.client import ContainerClient
from vantage6.common import info


def crosstab(client: ContainerClient, data: pd.DataFrame, rows: str, columns: str, organization_ids=None):
    ids = organization_ids or [one["id"] for one in client.get_organizations_in_my_collaboration()]
    task = client.create_new_task(
        input_={"method": "table", "kwargs": {"rows": rows, "columns": columns}}, organization_ids=ids
    )
    info("waiting for the tables")
    tables = client.get_results(task_id=task["id"])
    total = tables[0]
    for table in tables[1:]:
        total = total.add(table, fill_value=0)
    return total.fillna(0).astype(int)


def RPC_table(data: pd.DataFrame, rows: str, columns: str):
    return pd.crosstab(data[rows], data[columns])
