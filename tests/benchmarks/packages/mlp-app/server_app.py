"""Federated averaging of the MLP."""

import torch
from entrypoint import Net
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    torch.manual_seed(0)
    FedAvg(fraction_train=context.run_config["fraction-train"], fraction_evaluate=0.0).start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
    )
