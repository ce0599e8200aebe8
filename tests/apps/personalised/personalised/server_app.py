"""FedAvg over the body."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from personalised.task import make_net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord(make_net().body.state_dict())
    result = FedAvg().start(grid, arrays, num_rounds=context.run_config["num-server-rounds"])
    accuracy = {key: one["accuracy"] for key, one in result.evaluate_metrics_clientapp.items()}
    torch.save(
        {"body": result.arrays.to_torch_state_dict(), "accuracy": accuracy},
        Path(context.run_config["save-in"], "result.pt"),
    )
