"""Adds its update; a mod clips it."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod

from private.task import update

app = ClientApp(mods=[fixedclipping_mod])


@app.train()
def train(msg: Message, context: Context) -> Message:
    arrays = msg.content["arrays"]
    changed = update(context.node_config["partition-id"])
    arrays = ArrayRecord({name: array.numpy() + 0.1 * changed[name] for name, array in arrays.items()})
    metrics = MetricRecord({"num-examples": 1 + context.node_config["partition-id"]})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)
