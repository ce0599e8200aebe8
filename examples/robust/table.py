"""Every aggregator under every attack: the accuracy of the last round's model, in percent of all test images.

python table.py [--rounds 10] [--aggregators median krum …] [--attacks alie …]

The clients' training and attacks are those of client/, the splitting of the data and the strategies those of fedpkg;
but all federations train side by side in this process, and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedpkg.assemble import load
from fedpkg.controller.seeds import step_rng
from fedpkg.data.clients import client_groups, prepare_clients
from fedpkg.strategies import make_strategy
from fedpkg.strategies.base import Client, Reply, Request, State, StepContext, take_step
from fedpkg.weights.weights import Weights

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "client"))

from attacks import ATTACKS, attacked, flipped  # noqa: E402
from learner import classify, first_model, minibatches, read_data, train  # noqa: E402

ATTACKERS = 9  # the last of thirty clients
AGGREGATORS: Mapping[str, Mapping[str, Any]] = {
    "weighted_mean": {},
    "median": {},
    "trimmed_mean": {"beta": 0.3},
    "krum": {"attackers": ATTACKERS},
    "multi_krum": {"attackers": ATTACKERS},
    "geometric_median": {},
    "fltrust": {},
    "bulyan": {"attackers": 4},
    "bucketing": {"inner": "median", "size": 2},
    "centered_clipping": {},
    "norm_bounding": {},
}


def strategy_of(name: str) -> dict[str, Any]:
    """What a run.yaml's ``strategy`` says."""
    if name == "fltrust":
        return {"name": "fltrust"}
    return {"aggregator": {"name": name, **AGGREGATORS[name]}}


class Federation:
    """One strategy under one attack: what the controller does in a session, without processes and files."""

    def __init__(self, section: Mapping[str, Any], attack: str, clients: Sequence[Client], server: str) -> None:
        self.attack = attack
        self.clients = clients
        self.strategy = make_strategy(section)
        self.state: State = self.strategy.init(Weights(first_model()))
        self.sampled = [
            client.client_id for client in clients if section.get("name") != "fltrust" or client.client_id != server
        ]

    def step(self, round_number: int, updates: Mapping[str, Weights]) -> None:
        """Take the step of a round, with what the clients send."""
        rng = step_rng(0, round_number, "ask")
        context = StepContext(round_number, rng, tuple(self.clients), lambda: tuple(self.sampled))
        step = take_step(self.strategy, self.state, context)
        try:
            asks = next(step)
            while True:
                asked = [asks] if isinstance(asks, Request) else asks
                replies = tuple(self.replies(request, context, updates) for request in asked)
                asks = step.send(replies[0] if isinstance(asks, Request) else replies)
        except StopIteration as stop:
            self.state = stop.value

    def replies(self, request: Request, context: StepContext, updates: Mapping[str, Weights]) -> Iterator[Reply]:
        cohort = context.group(request.group) if request.group else request.clients or self.sampled
        for position, client_id in enumerate(cohort):
            if updates[client_id].first_non_finite() is None:  # else fedpkg refuses it
                yield Reply(request.request_id, position, client_id, {"": updates[client_id]}, 1.0)


def measure(
    aggregators: Iterable[str], attacks: Sequence[str], *, rounds: int = 10, overrides: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Accuracy in percent by aggregator and attack."""
    torch.set_num_threads(1)
    config = load(HERE / "run.yaml", overrides).config
    with tempfile.TemporaryDirectory() as cache:
        parts = prepare_clients(config.clients, cache=Path(cache), seed=config.seed)
        data = [read_data(part.path) for part in parts]
    names = [part.client_id for part in parts]
    groups = client_groups(config.clients, names)
    clients = [Client(name, tuple(group for group in groups if name in groups[group])) for name in names]
    cells = {
        (aggregator, attack): Federation(strategy_of(aggregator), attack, clients, groups["server"][0])
        for aggregator in aggregators
        for attack in attacks
    }
    num_honest = len(clients) - ATTACKERS
    for round_number in range(1, rounds + 1):
        images, labels = minibatches(list(enumerate(data)), round_number)
        wrong = torch.cat([labels[:num_honest], flipped(labels[num_honest:])])
        all_labels = [wrong if cell.attack in ("label_flip", "scaled") else labels for cell in cells.values()]
        models = {
            name: torch.stack([cell.state["model"][name].expand(len(clients), *tensor.shape) for cell in cells.values()])
            for name, tensor in first_model().items()
        }
        trained = train(models, images, torch.stack(all_labels))
        for number, cell in enumerate(cells.values()):
            w = {name: cell.state["model"][name] for name in trained}
            updates = {}
            for k, name in enumerate(names):
                update = {tensor: trained[tensor][number, k] for tensor in trained}
                if k >= num_honest and cell.attack != "none":
                    honest = {tensor: trained[tensor][number, :num_honest] for tensor in trained}
                    draw = torch.Generator().manual_seed(1000 * round_number + k)
                    update = attacked(cell.attack, w, update, honest, attackers=ATTACKERS, draw=draw)
                updates[name] = Weights(update)
            cell.step(round_number, updates)
    x, y = (torch.cat([one[part] for one in data]) for part in (2, 3))
    found: dict[str, dict[str, float]] = {}
    for (aggregator, attack), cell in cells.items():
        right = classify(dict(cell.state["model"]), x).argmax(dim=1) == y
        found.setdefault(aggregator, {})[attack] = 100 * float(right.double().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--aggregators", nargs="+", default=list(AGGREGATORS), choices=AGGREGATORS)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of run.yaml")
    options = parser.parse_args()
    found = measure(options.aggregators, options.attacks, rounds=options.rounds, overrides=options.overrides)
    print(f"| {'aggregator':17} | {' | '.join(f'{attack:>10}' for attack in options.attacks)} |")
    print(f"|{'-' * 19}|{''.join('-----------:|' for _ in options.attacks)}")
    for aggregator, row in found.items():
        print(f"| {aggregator:17} | {' | '.join(f'{row[attack]:10.1f}' for attack in options.attacks)} |")


if __name__ == "__main__":
    main()
