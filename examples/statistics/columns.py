"""Mean, variance and histogram of columns, one column per round. The session has no model."""

import torch

from fedpkg.strategies import StepResult, Traits, register_strategy
from fedpkg.strategies.base import Request
from fedpkg.types import ReplyKind
from fedpkg.weights import Records, Weights


@register_strategy("columns")
class Columns:
    """Ask all clients for the range of a column, then for its sums, and its counts between common edges."""

    traits = Traits(entry_points=("column-range", "column-sums"), has_model=False)

    def __init__(self, columns: list[int], bins: int = 10):
        self.columns, self.bins = columns, bins

    def init(self, seed_model):
        return {"counts": {}}

    def step(self, state, ctx):
        column = self.columns[ctx.round_number - 1]
        ranges = yield self.question("column-range", Records(data={"column": column}))
        ends = [reply.records.sets["column"] for reply in ranges]
        low, high = min(float(one["low"]) for one in ends), max(float(one["high"]) for one in ends)

        edges = torch.linspace(low, high, self.bins + 1, dtype=torch.float64)
        histogram = {"histogram": Weights({"edges": edges})}
        n, total, squares, counts = 0.0, 0.0, 0.0, torch.zeros(self.bins, dtype=torch.int64)
        for reply in (yield self.question("column-sums", Records(histogram, {"column": column}))):
            told = reply.records.sets["column"]
            n += reply.num_examples
            total += float(told["sum"])
            squares += float(told["sum of squares"])
            counts = counts + told["counts"]
        mean = total / n
        found = {"column": column, "rows": n, "mean": mean, "variance": squares / n - mean**2}
        shown = {**found, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}
        is_last = ctx.round_number == len(self.columns)
        kept = {**state["counts"], str(column): Weights({"counts": counts})}
        return StepResult({"counts": kept}, metrics=shown, finished="all columns are done" if is_last else None)

    def question(self, entry_point, records):
        return Request(payload=records, entry_point=entry_point, reply_kind=ReplyKind.RECORDS)
