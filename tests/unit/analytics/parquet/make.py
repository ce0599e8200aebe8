"""Writes the files of this folder, with pandas and pyarrow: what pandas reads from them is `frame` of this module.

python make.py
"""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def frame():
    time = ["2020-01-01 10:00", None, "1999-01-01 00:00"]
    return pd.DataFrame(
        {
            "int8": np.array([1, 2, 3], "int8"),
            "int64": [1, 2, 2**60],
            "uint16": np.array([1, 2, 3], "uint16"),
            "float32": np.array([1.5, np.nan, 2], "float32"),
            "float64": [0.1, np.nan, 1e300],
            "bool": [True, False, True],
            "bool or None": [True, None, False],
            "text": ["a", None, "ü"],
            "date": [datetime.date(2020, 1, 1), None, datetime.date(1900, 1, 1)],
            "time": pd.to_datetime(time),
            "time in ms": pd.to_datetime(time).astype("datetime64[ms]"),
            "nullable": pd.array([1, None, 3], "Int64"),
            "boolean": pd.array([True, None, False], "boolean"),
            "string": pd.array(["x", None, "y"], "string"),
        }
    )


def plain():
    """What another program wrote, without the notes of pandas."""
    return pd.DataFrame(
        {"a": [1.0, np.nan, 3.0], "ms": np.array([1, 2, "NaT"], "datetime64[ms]"), "nothing": [None, None, None]}
    )


if __name__ == "__main__":
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame().to_parquet(HERE / "columns.parquet")
    frame().set_index(["text", "int64"]).to_parquet(HERE / "index.parquet")
    frame()[["float64"]].iloc[::2].to_parquet(HERE / "every second.parquet")
    frame()[["text"]].astype("category").to_parquet(HERE / "category.parquet")
    pd.DataFrame({"b": [1], "B": [2]}).to_parquet(HERE / "case.parquet")
    table = {
        "a": pa.array([1, None, 3], pa.int32()),
        "ms": pa.array([1, 2, None], pa.timestamp("ms")),
        "nothing": pa.nulls(3),
    }
    pq.write_table(pa.table(table), HERE / "plain.parquet")
    for name, expected in (("columns", frame()), ("plain", plain())):
        pd.testing.assert_frame_equal(pd.read_parquet(HERE / f"{name}.parquet"), expected, check_exact=True)
