import pandas as pd
from vantage6.algorithm.tools.decorators import data
from vantage6.algorithm.tools.exceptions import UserInputError
from vantage6.algorithm.tools.util import info


@data(1)
def partial_average(df: pd.DataFrame, column_name: str) -> dict:
    """The sum and the number of the values of a column."""
    if column_name not in df.columns:
        raise UserInputError(f"there is no column {column_name!r}")
    values = pd.to_numeric(df[column_name]).dropna()
    info(f"{len(values)} values")
    return {"sum": float(values.sum()), "count": int(values.count())}
