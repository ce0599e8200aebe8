"""A classifier with a normalising layer, whose training loop has the lines of MOON, FedLC and pFedMe.

python entrypoint.py train    IN OUT
python entrypoint.py validate IN OUT
"""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedpkg import client

CLASSES = 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, CLASSES)

    def features(self, x):
        return self.norm(self.body(x))


def data(who):
    """Clients see other places, and other classes more often."""
    generator = torch.Generator().manual_seed(who)
    labels = torch.tensor([0] * 8 + [1] * 3 + [2]) if who == 0 else torch.tensor([2] * 9 + [1] * 2 + [0])
    return 3 * who + torch.randn(len(labels), 4, generator=generator) + labels[:, None], labels


def train(model, given):
    x, labels = data(given.task.partition_id % 2)
    counts = client.class_counts(labels, CLASSES)
    moon, pfedme = client.Moon(model, given), client.PFedMe(model, given)
    for _ in range(3):
        model.zero_grad()
        z = model.features(x)
        logits = client.calibrated_logits(model.head(z), counts, given.parameters.get("fedlc_tau", 0.0))
        (cross_entropy(logits, labels) + moon.loss(z, lambda other: other.features(x))).backward()
        pfedme.correct_gradients()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        pfedme.step()
    moon.finish()
    pfedme.finish()


def main():
    command, in_path, out_path = sys.argv[1:4]
    model = Net()
    given = client.load(in_path, model)
    if command == "train":
        train(model, given)
        client.save(out_path, model, given, num_examples=12)
    else:
        own = client.personal_model(model)
        apart = max((own.state_dict()[name] - tensor).abs().max().item() for name, tensor in given.weights.items())
        client.save_metrics(out_path, {"apart": apart, "num_examples": 12})


if __name__ == "__main__":
    main()
