"""Mods of the whole app and of one function. Numbers show in which order they ran."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod, message_size_mod
from flwr.clientapp.typing import ClientAppCallable


def adding(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    message.content["config"]["x"] += 1
    reply = call_next(message, context)
    reply.content["metrics"]["y"] += 1
    context.state.setdefault("calls", MetricRecord({"count": 0}))["count"] += 1
    reply.content["metrics"]["calls"] = context.state["calls"]["count"]
    return reply


def doubling(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    message.content["config"]["x"] *= 2
    reply = call_next(message, context)
    reply.content["metrics"]["y"] *= 2
    return reply


app = ClientApp(mods=[adding, message_size_mod])


def answer(msg: Message) -> Message:
    metrics = MetricRecord({"x": msg.content["config"]["x"], "y": 10, "num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(dict(msg.content["arrays"])), "metrics": metrics}), reply_to=msg)


@app.train(mods=[doubling, arrays_size_mod])
def train(msg: Message, context: Context) -> Message:
    return answer(msg)


@app.query()
def query(msg: Message, context: Context) -> Message:
    return answer(msg)
