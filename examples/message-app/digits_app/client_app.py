"""The ClientApp: trains and evaluates on the partition of its node."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits_app.task import Net, fit, load_data, measure

app = ClientApp()


def prepare(message: Message, context: Context):
    """The model of the message, and the examples of this node."""
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    node = context.node_config
    return model, load_data(node["partition-id"], node["num-partitions"], context.run_config)


@app.train()
def train(message: Message, context: Context):
    model, (data, _) = prepare(message, context)
    config = context.run_config
    loss = fit(model, data, config["local-epochs"], message.content["config"]["lr"], config["batch-size"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data[1])})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context):
    model, (_, data) = prepare(message, context)
    loss, accuracy = measure(model, data)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(data[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
