"""Keeps its momentum, its numbers of rounds, and losses from round to round."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from advanced.task import load_data, loss_and_accuracy, make_model, step

app = ClientApp()


def load(msg, context):
    model = make_model()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    return model, load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def train(msg: Message, context: Context):
    model, data = load(msg, context)
    state = context.state
    velocity = state["velocity"].to_torch_state_dict() if "velocity" in state else {}
    if "history" not in state:
        state["history"] = ConfigRecord({"rounds": [], "losses": []})
    loss = step(model, data, msg.content["config"]["lr"], context.run_config["momentum"], velocity)
    state["velocity"] = ArrayRecord(velocity)
    history = state["history"]
    history["rounds"] = [*history["rounds"], msg.content["config"]["server-round"]]
    history["losses"] = [*history["losses"], loss]
    metrics = MetricRecord({"loss": loss, "seen": len(history["rounds"]), "num-examples": len(data[0])})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    model, data = load(msg, context)
    loss, accuracy = loss_and_accuracy(model, data)
    history = context.state["history"]
    metrics = {"loss": loss, "accuracy": accuracy, "num-examples": len(data[0]), "rounds": list(history["rounds"])}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
