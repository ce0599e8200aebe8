"""Print the accuracy of the last round's model for each aggregator and attack, in percent of all test images.

python table.py [--aggregators median krum …] [--attacks alie …] [--rounds N] [KEY=VALUE of run.yaml …]

Data, training, attacks and strategies are those of `fedpkg run`, but all federations train side by side in this
process, and no files are written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedpkg.controller.seeds import step_rng
from fedpkg.data.clients import client_groups, prepare_clients
from fedpkg.session.configuration import load
from fedpkg.strategies import make_strategy
from fedpkg.strategies.base import Client, Reply, Request, StepContext, take_step
from fedpkg.strategies.traits import traits_of
from fedpkg.weights.weights import Weights

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "client"))

from attacks import ATTACKS, attacked, flipped  # noqa: E402
from learner import classify, first_model, minibatches, read_data, train  # noqa: E402

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "weighted_mean": {"aggregator": "weighted_mean"},
    "median": {"aggregator": "median"},
    "trimmed_mean": {"aggregator": {"name": "trimmed_mean", "beta": 0.3}},
    "krum": {"aggregator": {"name": "krum", "attackers": 9}},
    "multi_krum": {"aggregator": {"name": "multi_krum", "attackers": 9}},
    "geometric_median": {"aggregator": "geometric_median"},
    "fltrust": {"name": "fltrust"},
    "bulyan": {"aggregator": {"name": "bulyan", "attackers": 4}},
    "bucketing": {"aggregator": {"name": "bucketing", "inner": "median", "size": 2}},
    "centered_clipping": {"aggregator": "centered_clipping"},
    "norm_bounding": {"aggregator": "norm_bounding"},
}


class Federation:
    """A strategy and its clients; it does the work of the controller without processes and files."""

    def __init__(self, section: Mapping[str, Any], clients: Mapping[str, int], groups: Mapping[str, Sequence[str]]):
        self.clients = clients  # and their numbers of examples
        self.groups = groups
        self.strategy = make_strategy(section)
        self.sampled = traits_of(self.strategy).sampled(clients, groups)
        self.state = self.strategy.init(Weights(first_model()))

    def step(self, round_number: int, updates: Mapping[str, Weights]) -> None:
        """Take the step of a round with the replies of the clients."""
        clients = tuple(Client(name, num_examples=number) for name, number in self.clients.items())
        rng = step_rng(0, round_number, "ask")
        step = take_step(
            self.strategy, self.state, StepContext(round_number, rng, clients, lambda: tuple(self.sampled))
        )
        replies: Any = None
        try:
            while True:
                replies = tuple(self._replies(request, updates) for request in step.send(replies))
        except StopIteration as stop:
            self.state = stop.value.state

    def _replies(self, request: Request, updates: Mapping[str, Weights]) -> Iterator[Reply]:
        cohort = self.sampled if request.group is None else self.groups[request.group]
        for position, name in enumerate(cohort):
            if updates[name].first_non_finite() is None:  # else fedpkg refuses it
                yield Reply(request.request_id, position, name, {"": updates[name]}, self.clients[name])


def federate(
    strategies: Iterable[str], attacks: Sequence[str], *, rounds: int | None = None, overrides: Sequence[str] = ()
) -> tuple[dict[tuple[str, str], Federation], dict[str, dict[str, float]]]:
    """The federations by strategy and attack after their rounds, and their accuracy in percent."""
    torch.set_num_threads(1)
    config = load(HERE / "run.yaml", overrides).config
    with tempfile.TemporaryDirectory() as cache:
        parts = prepare_clients(config.clients, cache=Path(cache), seed=config.seed)
        data = [read_data(part.path) for part in parts]
    names = [part.client_id for part in parts]
    clients = {name: len(x) for name, (x, *_) in zip(names, data, strict=True)}
    groups = client_groups(config.clients, names)
    cells = {(name, attack): Federation(STRATEGIES[name], clients, groups) for name in strategies for attack in attacks}
    attackers = int(str(config.run_config["attackers"]))
    num_honest = len(names) - attackers
    for round_number in range(1, 1 + (rounds or config.rounds)):
        images, labels = minibatches(list(enumerate(data)), round_number)
        wrong = torch.cat([labels[:num_honest], flipped(labels[num_honest:])])
        given = torch.stack([wrong if attack in ("label_flip", "scaled") else labels for _, attack in cells])
        models = [cell.state["model"] for cell in cells.values()]
        stacked = {key: torch.stack([model[key] for model in models])[:, None] for key in first_model()}
        trained = train({key: tensor.expand(-1, len(names), -1, -1) for key, tensor in stacked.items()}, images, given)
        for number, ((_, attack), cell) in enumerate(cells.items()):
            sent = [{key: tensor[number, k] for key, tensor in trained.items()} for k in range(len(names))]
            if attack != "none":
                honest = {key: tensor[number, :num_honest] for key, tensor in trained.items()}
                for k in range(num_honest, len(names)):
                    draw = torch.Generator().manual_seed(1000 * round_number + k)
                    sent[k] = attacked(attack, models[number], sent[k], honest, attackers=attackers, draw=draw)
            cell.step(round_number, {name: Weights(update) for name, update in zip(names, sent, strict=True)})
    x, y = (torch.cat([one[part] for one in data]) for part in (2, 3))
    found: dict[str, dict[str, float]] = {}
    for (name, attack), cell in cells.items():
        right = classify(cell.state["model"], x).argmax(dim=1) == y
        found.setdefault(name, {})[attack] = 100 * float(right.double().mean())
    return cells, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aggregators", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args()
    _, found = federate(options.aggregators, options.attacks, rounds=options.rounds, overrides=options.overrides)
    print(f"| {'aggregator':17} | {' | '.join(f'{attack:>10}' for attack in options.attacks)} |")
    print(f"|{'-' * 19}|{'-----------:|' * len(options.attacks)}")
    for name, row in found.items():
        print(f"| {name:17} | {' | '.join(f'{value:10.1f}' for value in row.values())} |")


if __name__ == "__main__":
    main()
