"""Fits two more iterations."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from scikit_logistic.task import fit, get_model, load_data

app = ClientApp()


def load(msg: Message, context: Context):
    data = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    return get_model(msg.content["arrays"].to_numpy_ndarrays()), data


@app.train()
def train(msg: Message, context: Context) -> Message:
    model, (x, y) = load(msg, context)
    arrays = ArrayRecord(fit(model, x, y))
    metrics = MetricRecord({"num-examples": len(x), "train_loss": log_loss(y, model.predict_proba(x))})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    model, (x, y) = load(msg, context)
    metrics = MetricRecord({"num-examples": len(x), "accuracy": model.score(x, y)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
