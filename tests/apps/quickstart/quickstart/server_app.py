"""FedAvg from a random model."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quickstart.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    model, folder = Net(), context.run_config["save-in"]
    torch.save(model.state_dict(), f"{folder}/first_model.pt")
    result = FedAvg(fraction_evaluate=context.run_config["fraction-evaluate"]).start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        train_config=ConfigRecord({"lr": context.run_config["learning-rate"]}),
        num_rounds=context.run_config["num-server-rounds"],
    )
    torch.save(result.arrays.to_torch_state_dict(), f"{folder}/final_model.pt")
