"""Evaluates on the server, keeps the best model, and stops early."""

import json
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from advanced.task import loss_and_accuracy, make_model, wines

app = ServerApp()


class Keeping(FedAvg):
    """Saves the best model as it goes, and stops once the loss is low enough."""

    def __init__(self, folder, stop_below, **more):
        super().__init__(**more)
        self.folder, self.stop_below, self.best = Path(folder), stop_below, float("inf")

    def evaluate(self, server_round, arrays):
        model = make_model()
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = loss_and_accuracy(model, wines())
        if loss < self.best:
            self.best = loss
            torch.save(model.state_dict(), self.folder / "best_model.pt")
            log(20, "round %d: the best model so far", server_round)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    def should_stop(self, server_round, result):
        return result.evaluate_metrics_serverapp[server_round]["loss"] < self.stop_below


@app.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    torch.manual_seed(7)
    strategy = Keeping(settings["save-in"], settings["stop-below"])
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(make_model().state_dict()),
        num_rounds=settings["num-server-rounds"],
        train_config=ConfigRecord({"lr": settings["learning-rate"]}),
        evaluate_fn=strategy.evaluate,
    )
    told = {
        "train": result.train_metrics_clientapp,
        "evaluate": result.evaluate_metrics_clientapp,
        "server": result.evaluate_metrics_serverapp,
    }
    text = json.dumps({name: {key: dict(one) for key, one in rounds.items()} for name, rounds in told.items()})
    (strategy.folder / "results.json").write_text(text)
