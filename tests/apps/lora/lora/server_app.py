"""FedAvg over the adapters alone."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context
from flwr.common.config import unflatten_dict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lora.task import Transformer, adapters

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    model = Transformer(**unflatten_dict(context.run_config)["model"])
    arrays = ArrayRecord(adapters(model))
    rounds = context.run_config["num-server-rounds"]
    result = FedAvg(fraction_evaluate=0.0).start(grid, arrays, num_rounds=rounds)
    losses = [one["loss"] for one in result.train_metrics_clientapp.values()]
    torch.save(
        {"adapters": result.arrays.to_torch_state_dict(), "losses": losses},
        Path(context.run_config["save-in"], "result.pt"),
    )
