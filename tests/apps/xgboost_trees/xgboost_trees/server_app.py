"""Bagging or cyclic training of trees."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    way, rounds = context.run_config["way"], context.run_config["num-server-rounds"]
    strategy = FedXgbBagging(fraction_evaluate=0.0) if way == "bagging" else FedXgbCyclic(fraction_evaluate=0.0)
    result = strategy.start(grid, ArrayRecord([np.zeros(0, np.uint8)]), num_rounds=rounds)
    Path(context.run_config["save-in"], "booster.json").write_bytes(result.arrays["0"].numpy().tobytes())
