"""A client that takes part in any method by fedpkg.client: least squares in float64, by PyTorch.

python entrypoint.py build    OUT
python entrypoint.py train    IN OUT [--steps=5 --lr=0.05]
python entrypoint.py gradient IN OUT
python entrypoint.py prox     IN OUT
python entrypoint.py validate IN OUT

The loss of client i is (y - o_i)'A_i(y - o_i) / 2; its `rows` and `targets` are a root of A_i and root o_i.
"""

import sys

import torch
from torch import nn

from fedpkg import client

SIZE = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
        self.register_buffer("ema", torch.zeros(1))  # whose name does not tell that it is a buffer

    def forward(self, rows):
        return rows @ self.x


def data(who):
    generator = torch.Generator().manual_seed(1000 + who)
    rows = torch.eye(SIZE, dtype=torch.float64) + 0.3 * torch.randn(SIZE, SIZE, generator=generator).double()
    return rows, rows @ torch.randn(SIZE, generator=generator).double()


def loss_of(model, batch):
    rows, targets = batch
    return ((model(rows) - targets) ** 2).sum() / 2


def descend(model, batch, steps, lr, correct):
    for _ in range(steps):  # by hand: the first step of an optimiser takes longer than all else here
        model.zero_grad()
        loss_of(model, batch).backward()
        correct()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= lr * parameter.grad


def main():
    command, *words = sys.argv[1:]
    paths = [word for word in words if not word.startswith("--")]
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    steps, lr = int(options.get("steps", 5)), float(options.get("lr", 0.05))
    model = Net()
    if command == "build":
        client.save(paths[0], model)
        return
    given = client.load(paths[0], model)
    batch, examples = data(given.task.partition_id), {"num_examples": 10}
    if command == "validate":
        own = client.personal_model(model)
        losses = {"loss": loss_of(model, batch), "personal_loss": loss_of(own, batch)}
        client.save_metrics(paths[1], {**losses, **examples})
    elif command == "gradient":
        client.save(paths[1], given=given, sets=client.gradients(model, given, loss_of, [batch]), **examples)
    elif command == "prox":
        descend(model, batch, 400, lr, client.prox(model, given).correct_gradients)
        client.save(paths[1], model, given, **examples)
    else:
        parts = [client.fedprox(model, given), client.Scaffold(model, given), client.FedDyn(model, given)]
        mime, pfedme = client.Mime(model, given, loss_of), client.PFedMe(model, given)

        def correct():
            for part in (*parts, pfedme):
                part.correct_gradients()
            mime.correct_gradients(batch)

        descend(model, batch, steps, lr, correct)
        pfedme.step()
        ditto = client.Ditto(model, given)
        if ditto.active:
            descend(ditto.model, batch, steps, lr, ditto.correct_gradients)
        sets = parts[1].finish(learning_rate=lr)
        for part in (parts[2], pfedme, ditto):
            part.finish()
        client.save(paths[1], model, given, sets=sets, mean=model.x.mean(), **examples)


if __name__ == "__main__":
    main()
