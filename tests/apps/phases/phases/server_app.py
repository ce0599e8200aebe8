"""A query; two rounds by hand; two strategies, one after the other."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedMedian

app = ServerApp()


def scaled(kind):
    """A strategy whose training messages are for the action `scaled`."""

    class Scaled(kind):
        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                message.metadata.message_type = "train.scaled"
                yield message

    return Scaled(fraction_evaluate=0.0)


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = list(grid.get_node_ids())
    replies = grid.send_and_receive([Message(RecordDict(), node, "query.sums") for node in nodes])
    told = [reply.content["sums"] for reply in replies]
    n = sum(one["n"] for one in told)
    mean = sum(np.array(one["x"]) for one in told) / n
    std = np.sqrt(sum(np.array(one["xx"]) for one in told) / n - mean**2)
    scale = ConfigRecord({"mean": mean, "std": std, "y": sum(one["y"] for one in told) / n})

    w = np.zeros(10)
    for number in range(2):
        content = RecordDict({"arrays": ArrayRecord([w]), "scale": scale})
        messages = [Message(content, node, "train", group_id=str(number)) for node in nodes]
        replies = list(grid.send_and_receive(messages))
        examples = [reply.content["metrics"]["num-examples"] for reply in replies]
        parts = [reply.content["arrays"].to_numpy_ndarrays()[0] for reply in replies]
        w = sum(count * part for count, part in zip(examples, parts, strict=True)) / sum(examples)

    first = scaled(FedAvg).start(grid, ArrayRecord([w]), num_rounds=2, train_config=scale)
    second = scaled(FedMedian).start(grid, first.arrays, num_rounds=1, train_config=scale)
    np.savez(
        Path(context.run_config["save-in"], "w.npz"),
        by_hand=w,
        mean=first.arrays["0"].numpy(),
        median=second.arrays["0"].numpy(),
    )
