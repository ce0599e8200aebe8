"""Differential privacy around FedAvg."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    strategy = DifferentialPrivacyClientSideFixedClipping(
        FedAvg(fraction_evaluate=0.0),
        noise_multiplier=settings["noise-multiplier"],
        clipping_norm=settings["clipping-norm"],
        num_sampled_clients=4,
    )
    first = ArrayRecord({"w": np.zeros(5), "b": np.zeros(1)})
    result = strategy.start(grid=grid, initial_arrays=first, num_rounds=settings["num-server-rounds"])
    np.savez(Path(settings["save-in"], "model.npz"), **{name: one.numpy() for name, one in result.arrays.items()})
