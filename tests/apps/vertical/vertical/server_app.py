"""The rest of the net and the labels; each node gets the gradient of its own embeddings."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import nn

from vertical.task import WIDTH, load_labels, make_top

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = list(grid.get_node_ids())
    top, labels, losses = make_top(len(nodes)), load_labels(), []
    optimizer = torch.optim.SGD(top.parameters(), lr=context.run_config["learning-rate"])
    for _ in range(context.run_config["num-server-rounds"]):
        asked = [Message(RecordDict(), node, "query.generate_embeddings") for node in nodes]
        replies = grid.send_and_receive(asked)
        parts = [reply.content["embeddings"].to_torch_state_dict()["e"] for reply in replies]
        joined = torch.cat(parts, dim=1).requires_grad_()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(top(joined), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        gradients = joined.grad.split(WIDTH, dim=1)
        grid.send_and_receive(
            Message(RecordDict({"gradients": ArrayRecord({"g": gradient})}), node, "train.apply_gradients")
            for node, gradient in zip(nodes, gradients, strict=True)
        )
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes])
    bottoms = [reply.content["model"].to_torch_state_dict() for reply in replies]
    torch.save(
        {"losses": losses, "top": top.state_dict(), "bottoms": bottoms},
        Path(context.run_config["save-in"], "result.pt"),
    )
