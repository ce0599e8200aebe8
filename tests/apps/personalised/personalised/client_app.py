"""Sends the body, and keeps the head in its state."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from personalised.task import accuracy, fit, load_data, make_net

app = ClientApp()


def load(msg: Message, context: Context):
    net = make_net()
    net.body.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    if "head" in context.state:
        net.head.load_state_dict(context.state["head"].to_torch_state_dict())
    return net, load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def train(msg: Message, context: Context) -> Message:
    net, data = load(msg, context)
    fit(net, data, context.run_config["learning-rate"])
    context.state["head"] = ArrayRecord(net.head.state_dict())
    metrics = MetricRecord({"num-examples": len(data[0])})
    return Message(RecordDict({"arrays": ArrayRecord(net.body.state_dict()), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    net, data = load(msg, context)
    metrics = MetricRecord({"num-examples": len(data[0]), "accuracy": accuracy(net, data)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
