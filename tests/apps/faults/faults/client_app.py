"""The first client misbehaves as the message says; the others add their number to all elements."""

import os
import signal

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def ends(number):
    os.kill(os.getpid(), number)
    signal.pause()


# What becomes of the arrays and the metrics of a reply.
REPLIES = {
    "nan": lambda w, metrics: ({"w": np.full_like(w, np.nan)}, metrics),
    "infinite": lambda w, metrics: ({"w": w * np.inf}, metrics),
    "shape": lambda w, metrics: ({"w": w[:3]}, metrics),
    "broadcast": lambda w, metrics: ({"w": w[:1]}, metrics),
    "extra_array": lambda w, metrics: ({"w": w, "v": w}, metrics),
    "extra_metric": lambda w, metrics: ({"w": w}, {**metrics, "extra": 1.0}),
    "no_weight": lambda w, metrics: ({"w": w}, {"loss": 1.0}),
}
ENDS = {
    "none": lambda: None,
    "dictionary": lambda: {"w": 1},
    "raises": lambda: 1 // 0,
    "leaves": lambda: os._exit(0),
    "killed": lambda: ends(signal.SIGKILL),
    "segfault": lambda: ends(signal.SIGSEGV),
}


@app.train()
def train(msg: Message, context: Context) -> Message:
    number = context.node_config["partition-id"]
    fault = msg.content["config"].get("fault", "fine") if number == 0 else "fine"
    context.state.setdefault("calls", MetricRecord({"count": 0}))["count"] += 1
    if fault in ENDS:
        return ENDS[fault]()
    w = msg.content["arrays"]["w"].numpy() + 1 + number
    w += context.run_config["noise"] * np.random.standard_normal(w.shape)
    metrics = {"num-examples": 1 + number, "loss": 2.0, "calls": context.state["calls"]["count"]}
    arrays, metrics = REPLIES.get(fault, lambda w, metrics: ({"w": w}, metrics))(w, metrics)
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=msg)
