"""The workloads as a plain PyTorch loop in one process: what fedpkg is compared with.

python plain.py w1|w2|w3 [--json] [--keep-data] [--digest]

One model object is reused, the weights are averaged in place, nothing is isolated, written or checked. Like the clients
of the compute packages it makes a client's examples anew for every call; with ``--keep-data`` it makes them once.
"""

# ruff: noqa: E402 - importing is part of what is measured
import time

STARTED = time.perf_counter()

import argparse
import json
import random

import torch
from torch import nn
from torch.nn.functional import dropout, log_softmax, nll_loss, relu

IMPORTED = time.perf_counter()

NUM_EXAMPLES = 600


class Net(nn.Module):
    """784 inputs - 64 - 32 - 10 classes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 64)
        self.fc2 = nn.Linear(64, 32)
        self.fc3 = nn.Linear(32, 10)

    def forward(self, x):
        x = relu(self.fc1(x))
        x = dropout(x, p=0.5, training=self.training)
        x = relu(self.fc2(x))
        return log_softmax(self.fc3(x), dim=1)


class MlpClients:
    """W1 and W2: clients that train the MLP for an epoch."""

    def __init__(self, *, keep_data):
        self.keep_data = keep_data
        self.data = {}
        torch.manual_seed(0)
        self.model = Net()

    def seed_model(self):
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def train(self, partition_id, weights):
        x, y = self.examples(partition_id)
        self.model.load_state_dict(weights)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.model.train()
        for batch_x, batch_y in zip(x.split(32), y.split(32), strict=True):
            optimizer.zero_grad()
            nll_loss(self.model(batch_x), batch_y).backward()
            optimizer.step()
        return self.model.state_dict(), NUM_EXAMPLES

    def examples(self, partition_id):
        if partition_id in self.data:
            return self.data[partition_id]
        generator = torch.Generator().manual_seed(partition_id)
        x = torch.randn(NUM_EXAMPLES, 784, generator=generator)
        y = torch.randint(0, 10, (NUM_EXAMPLES,), generator=generator)
        if self.keep_data:
            self.data[partition_id] = (x, y)
        return x, y


class AddOneClients:
    """W3: clients that add 1 to every weight of a 100 MB model."""

    def __init__(self, *, tensors=10, elements=2_500_000):
        self.tensors, self.elements = tensors, elements
        self.weights = {f"tensor_{i}": torch.empty(elements) for i in range(tensors)}

    def seed_model(self):
        ramp = torch.arange(self.elements, dtype=torch.float32) / self.elements
        return {f"tensor_{i}": ramp + i for i in range(self.tensors)}

    def train(self, _partition_id, weights):
        for name, tensor in weights.items():
            torch.add(tensor, 1.0, out=self.weights[name])
        return self.weights, NUM_EXAMPLES


def run_round(clients, cohort, weights, mean):
    """Train the cohort on ``weights``; leave the mean, weighted by examples, in ``mean``."""
    total = 0
    for tensor in mean.values():
        tensor.zero_()
    for partition_id in cohort:
        update, examples = clients.train(partition_id, weights)
        for name, tensor in update.items():
            mean[name].add_(tensor, alpha=examples)
        total += examples
    for tensor in mean.values():
        tensor.div_(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=["w1", "w2", "w3"])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--keep-data", action="store_true", help="make a client's examples once, not for every call")
    parser.add_argument("--digest", action="store_true", help="also print what identifies the final weights")
    options = parser.parse_args()
    torch.set_num_threads(1)

    num_clients, cohort_size, rounds = {"w1": (10, 10, 5), "w2": (1000, 100, 3), "w3": (8, 8, 3)}[options.workload]
    clients = AddOneClients() if options.workload == "w3" else MlpClients(keep_data=options.keep_data)
    rng = random.Random(0)
    weights = clients.seed_model()
    mean = {name: torch.empty_like(tensor) for name, tensor in weights.items()}
    rounds_s = []
    for _ in range(rounds):
        started = time.perf_counter()
        run_round(clients, sorted(rng.sample(range(num_clients), cohort_size)), weights, mean)
        weights, mean = mean, weights
        rounds_s.append(time.perf_counter() - started)
    report = {"import_s": IMPORTED - STARTED, "rounds_s": rounds_s, "total_s": time.perf_counter() - STARTED}
    if options.digest:
        from checksum import identify

        report.update(identify(weights))
    if options.json:
        print(json.dumps(report))
    else:
        times = " ".join(f"{1000 * seconds:.1f}" for seconds in rounds_s)
        print(f"import {report['import_s']:.2f} s, rounds {times} ms, in all {report['total_s']:.2f} s")
        if options.digest:
            print(f"norm {report['norm']:.6f}, sha256 {report['sha256']}")


if __name__ == "__main__":
    main()
