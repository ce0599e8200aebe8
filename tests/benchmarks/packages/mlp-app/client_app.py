"""The client of the package mlp, which gets its model as a message."""

from entrypoint import NUM_EXAMPLES, Net, fit, make_examples
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    x, y = make_examples(context.node_config["partition-id"])
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    fit(model, x, y)
    metrics = MetricRecord({"num-examples": NUM_EXAMPLES})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=msg)
