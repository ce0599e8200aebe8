"""A client that only adds 1 to every weight of a 100 MB model."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    arrays = {name: Array(one.numpy() + np.float32(1.0)) for name, one in msg.content["arrays"].items()}
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 600})})
    return Message(content, reply_to=msg)
