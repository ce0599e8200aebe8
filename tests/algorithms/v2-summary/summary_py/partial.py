import numpy
from vantage6.tools.util import info


def RPC_summary(data, columns):
    """Statistics of an organisation's columns; they are NumPy's numbers, as pandas makes them."""
    unknown = numpy.setdiff1d(list(columns), list(data.columns))
    if len(unknown):
        return {"column_names_correct": False, "column_names_not_in_dataset": list(unknown)}
    info(f"{len(data)} rows")
    statistics = {}
    for name, kind in columns.items():
        values = data[name]
        if kind == "category":
            statistics[name] = values.value_counts().to_dict()
            continue
        mean = values.mean()
        statistics[name] = {
            "min": values.min(),
            "max": values.max(),
            "missing": values.isna().sum(),
            "n": values.count(),
            "sum": values.sum(),
            "mean": mean,
            "squares": (values - mean).pow(2).sum(),
        }
    return {"column_names_correct": True, "number_of_rows": len(data), "statistics": statistics}
