import pandas as pd
from vantage6.algorithm.decorator.action import federated
from vantage6.algorithm.decorator.data import dataframe


@federated
@dataframe(1)
def partial_average(df: pd.DataFrame, column_name: str) -> dict:
    """The sum and the number of the values of a column."""
    return {"sum": float(df[column_name].sum()), "count": int(df[column_name].count())}
