"""Answers a query with histograms of its table; rows never leave it."""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_iris

app = ClientApp()


@app.query()
def query(msg: Message, context: Context) -> Message:
    data = load_iris()
    rows = data.data[context.node_config["partition-id"] :: context.node_config["num-partitions"]]
    edges, told = msg.content["config"], MetricRecord()
    for column, name in zip(rows.T, data.feature_names, strict=True):
        counts, _ = np.histogram(column, bins=context.run_config["bins"], range=(edges["low"], edges["high"]))
        told[name] = counts
    return Message(RecordDict({"query_results": told}), reply_to=msg)
