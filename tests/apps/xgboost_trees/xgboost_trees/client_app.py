"""Grows a tree, and sends it (bagging) or all trees (cyclic)."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from xgboost_trees.task import grown, load_data

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    data = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    raw = msg.content["arrays"]["0"].numpy().tobytes()
    raw = grown(raw, data, context.run_config["way"] == "bagging")
    metrics = MetricRecord({"num-examples": data.num_row()})
    arrays = ArrayRecord([np.frombuffer(raw, np.uint8)])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)
