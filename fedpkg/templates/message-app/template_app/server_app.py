"""What the server does: it makes the first model, and lets a strategy run the rounds."""

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from template_app.task import Net

app = ServerApp()


@app.main()
def main(grid, context):
    values = context.run_config
    strategy = FedAvg(fraction_train=values["fraction-train"])
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": values["learning-rate"]}),
        num_rounds=values["num-server-rounds"],
    )
