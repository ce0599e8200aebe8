"""What a client does with a message: it trains or evaluates the model in it."""

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from template_app.task import Net, fit, load_data, measure

app = ClientApp()


def model_in(message):
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model


def data_of(context):
    return load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def train(message, context):
    """Train the model on this client's examples; send it back with the number of examples, its weight in the mean."""
    model, (data, _) = model_in(message), data_of(context)
    values = context.run_config
    learning_rate = message.content["config"].get("lr", values["learning-rate"])
    loss = fit(model, data, values["local-epochs"], values["batch-size"], learning_rate)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data[0])})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    """Evaluate the model on this client's test examples."""
    _, data = data_of(context)
    loss, accuracy = measure(model_in(message), data)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(data[0])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
