"""A strategy that changes FedAvg, and one written from nothing."""

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

app = ServerApp()


class Decaying(FedAvg):
    """The learning rate falls; the next arrays are half the mean and half what was sent."""

    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] = config["lr"] * 0.5
        self.sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        mixed = {name: (array.numpy() + self.sent[name].numpy()) / 2 for name, array in arrays.items()}
        return ArrayRecord(mixed), MetricRecord({"lr": metrics["lr"], "replies": len(list(replies))})


class Largest(Strategy):
    """Odd rounds ask odd nodes; the reply with the largest sum is next."""

    def configure_train(self, server_round, arrays, config, grid):
        content = RecordDict({"arrays": arrays, "config": config})
        nodes = [node for node in grid.get_node_ids() if node % 2 == server_round % 2]
        return [Message(content, node, "train") for node in nodes]

    def aggregate_train(self, server_round, replies):
        best = max(replies, key=lambda reply: reply.content["arrays"]["w"].numpy().sum())
        return best.content["arrays"], MetricRecord({"node": best.metadata.src_node_id})

    def configure_evaluate(self, server_round, arrays, config, grid):
        return []

    def aggregate_evaluate(self, server_round, replies):
        return None

    def summary(self):
        print("the largest")


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = {"decaying": Decaying, "largest": Largest}[context.run_config["strategy"]]()
    first = ArrayRecord({"w": np.ones(4)})
    result = strategy.start(grid=grid, initial_arrays=first, num_rounds=3, train_config=ConfigRecord({"lr": 0.8}))
    metrics = {key: dict(one) for key, one in result.train_metrics_clientapp.items()}
    text = json.dumps({"w": result.arrays["w"].numpy().tolist(), "train": metrics})
    Path(context.run_config["save-in"], "result.json").write_text(text)
