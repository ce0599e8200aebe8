"""Embeds its columns, and learns from the gradients that come back."""

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from vertical.task import load_columns, make_bottom

app = ClientApp()


def load(context: Context):
    partition_id = context.node_config["partition-id"]
    columns = load_columns(partition_id, context.node_config["num-partitions"])
    model = make_bottom(partition_id, columns.shape[1])
    if "model" in context.state:
        model.load_state_dict(context.state["model"].to_torch_state_dict())
    return model, columns


@app.query("generate_embeddings")
def generate_embeddings(msg: Message, context: Context) -> Message:
    model, columns = load(context)
    with torch.no_grad():
        embeddings = model(columns)
    return Message(RecordDict({"embeddings": ArrayRecord({"e": embeddings})}), reply_to=msg)


@app.train("apply_gradients")
def apply_gradients(msg: Message, context: Context) -> Message:
    model, columns = load(context)
    optimizer = torch.optim.SGD(model.parameters(), lr=context.run_config["learning-rate"])
    model(columns).backward(msg.content["gradients"].to_torch_state_dict()["g"])
    optimizer.step()
    context.state["model"] = ArrayRecord(model.state_dict())
    return Message(RecordDict(), reply_to=msg)


@app.query()
def weights(msg: Message, context: Context) -> Message:
    model, _ = load(context)
    return Message(RecordDict({"model": ArrayRecord(model.state_dict())}), reply_to=msg)
