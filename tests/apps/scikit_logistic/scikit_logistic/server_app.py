"""FedAvg over a list of arrays."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    first = ArrayRecord([np.zeros((1, 30)), np.zeros((1,))])
    rounds = context.run_config["num-server-rounds"]
    result = FedAvg(fraction_train=1.0, fraction_evaluate=1.0).start(grid, first, num_rounds=rounds)
    coef, intercept = result.arrays.to_numpy_ndarrays()
    accuracy = [one["accuracy"] for one in result.evaluate_metrics_clientapp.values()]
    np.savez(Path(context.run_config["save-in"], "model.npz"), coef=coef, intercept=intercept, accuracy=accuracy)
