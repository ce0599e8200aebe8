"""Moves a vector towards its own; how far is in the message."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    w = msg.content["arrays"]["w"].numpy()
    own = np.arange(4.0) * (1 + context.node_config["partition-id"])
    w = w + msg.content["config"]["lr"] * (own - w)
    metrics = MetricRecord(
        {"num-examples": 10 * (1 + context.node_config["partition-id"]), "lr": msg.content["config"]["lr"]}
    )
    return Message(RecordDict({"arrays": ArrayRecord({"w": w}), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    w = msg.content["arrays"]["w"].numpy()
    return Message(RecordDict({"metrics": MetricRecord({"sum": w.sum(), "num-examples": 1})}), reply_to=msg)
