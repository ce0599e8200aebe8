"""Trains the adapters that come, and sends them back."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.config import unflatten_dict

from lora.task import Transformer, adapters, fit, load_text

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    settings = unflatten_dict(context.run_config)
    model = Transformer(**settings["model"])
    left = model.load_state_dict(msg.content["arrays"].to_torch_state_dict(), strict=False)
    assert not left.unexpected_keys
    tokens = load_text(context.node_config["partition-id"], settings["model"]["vocabulary"])
    loss = fit(model, tokens, settings["learning-rate"])
    metrics = MetricRecord({"num-examples": len(tokens), "loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(adapters(model)), "metrics": metrics}), reply_to=msg)
