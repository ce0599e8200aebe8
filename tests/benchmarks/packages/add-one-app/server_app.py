"""Federated averaging of 25 million weights."""

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    ramp = np.arange(2_500_000, dtype=np.float32) / np.float32(2_500_000)
    arrays = ArrayRecord({f"tensor_{i}": Array(ramp + np.float32(i)) for i in range(10)})
    FedAvg(fraction_evaluate=0.0).start(
        grid=grid, initial_arrays=arrays, num_rounds=context.run_config["num-server-rounds"]
    )
