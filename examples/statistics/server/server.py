"""The statistics of ../columns.py by a coordinator, a separate program that needs only NumPy."""

import numpy as np

from fedpkg.client import Records, coordinator

for step in coordinator.rounds():
    columns, bins = step.parameters["columns"], step.parameters["bins"]
    data = {"column": columns[step.round_number - 1]}
    [ranges] = step.ask("column-range", reply_kind="records", payload=Records(data=data))
    ends = [reply.records().sets["column"] for reply in ranges]
    low, high = min(one["low"] for one in ends), max(one["high"] for one in ends)

    edges = np.linspace(low, high, bins + 1)
    question = Records({"histogram": {"edges": edges}}, data)
    [replies] = step.ask("column-sums", reply_kind="records", payload=question)
    told = [reply.records().sets["column"] for reply in replies]
    n = sum(reply.num_examples for reply in replies)
    mean = float(sum(one["sum"] for one in told)) / n
    variance = float(sum(one["sum of squares"] for one in told)) / n - mean**2
    counts = sum(one["counts"] for one in told)
    shown = {**data, "rows": n, "mean": mean, "variance": variance}
    shown["histogram"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    is_last = step.round_number == len(columns)
    step.commit(metrics=shown, finished="all columns are done" if is_last else None)
