"""Says its sums, and trains on standardised features."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from phases.task import load_data, step

app = ClientApp()


def data_of(context: Context):
    return load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.query("sums")
def sums(msg: Message, context: Context) -> Message:
    x, y = data_of(context)
    told = MetricRecord({"n": len(y), "x": x.sum(0), "xx": (x**2).sum(0), "y": y.sum()})
    return Message(RecordDict({"sums": told}), reply_to=msg)


@app.train()
def train(msg: Message, context: Context) -> Message:
    x, y = data_of(context)
    scale = msg.content["scale"]
    x = (x - np.array(scale["mean"])) / np.array(scale["std"])
    [w] = msg.content["arrays"].to_numpy_ndarrays()
    w = step(w, x, y - scale["y"], context.run_config["learning-rate"])
    metrics = MetricRecord({"num-examples": len(y)})
    return Message(RecordDict({"arrays": ArrayRecord([w]), "metrics": metrics}), reply_to=msg)


@app.train("scaled")
def train_scaled(msg: Message, context: Context) -> Message:
    """For strategies, whose messages have one record of configuration."""
    content = RecordDict({"arrays": msg.content["arrays"], "scale": msg.content["config"]})
    reply = train(Message(content, 1, "train"), context)
    return Message(reply.content, reply_to=msg)
