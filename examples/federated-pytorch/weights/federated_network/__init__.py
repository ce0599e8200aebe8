"""A small network that organizations train together, written for version 4, with the arithmetic of fedpkg's Weights.

JSON has no tensors, so that weights travel as nested lists. A float32 keeps all its bits on this way.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import nn
from vantage6.algorithm.tools.decorators import algorithm_client, data

from fedpkg import Weights


@algorithm_client
def train(
    client: Any,
    outcome: str,
    predictors: list[str],
    rounds: int = 5,
    steps: int = 5,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
) -> dict[str, Any]:
    """Federated averaging [McMahan et al. 2017], with momentum at the server [Hsu et al. 2019]."""
    columns = [outcome, *predictors]
    sums = ask(client, "partial_sums", columns=columns)
    rows = sum(one["rows"] for one in sums)
    mean = sum(torch.tensor(one["sum"]) for one in sums) / rows
    spread = (sum(torch.tensor(one["squares"]) for one in sums) / rows - mean**2).sqrt()
    fixed = {"columns": columns, "mean": mean.tolist(), "spread": spread.tolist()}

    weights = Weights.from_model(network(len(predictors))).detach()
    velocity, losses = weights.zeros_like(), []
    for _ in range(rounds):
        how = {"weights": told(weights), "steps": steps, "learning_rate": learning_rate}
        results = ask(client, "partial_train", **how, **fixed)
        counts = [one["rows"] for one in results]
        average = Weights.mean([read(one["weights"]) for one in results], counts)
        velocity = momentum * velocity + (average - weights)
        weights = weights + velocity
        losses.append(sum(one["loss"] * one["rows"] for one in results) / sum(counts))
    return {"weights": told(weights), "losses": losses, "rows": rows}


def ask(client: Any, method: str, **arguments: Any) -> list[Any]:
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create(input_={"method": method, "kwargs": arguments}, organizations=ids, name=method)
    results = client.wait_for_results(task_id=task["id"])
    if len(results) < len(ids):
        raise RuntimeError(f"{method}: {len(ids) - len(results)} of {len(ids)} organizations have no result")
    return results


@data(1)
def partial_sums(frame: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Sums and sums of squares of columns."""
    values = torch.tensor(frame[columns].dropna().to_numpy(dtype="float64"))
    return {"rows": len(values), "sum": values.sum(0).tolist(), "squares": values.square().sum(0).tolist()}


@data(1)
def partial_train(
    frame: pd.DataFrame,
    columns: list[str],
    mean: list[float],
    spread: list[float],
    weights: dict[str, Any],
    steps: int,
    learning_rate: float,
) -> dict[str, Any]:
    """Steps of gradient descent over all rows, from given weights."""
    values = (torch.tensor(frame[columns].dropna().to_numpy(dtype="float64")) - torch.tensor(mean)) / torch.tensor(
        spread
    )
    y, x = values.float().split([1, len(columns) - 1], dim=1)
    model = network(x.shape[1])
    read(weights).to_model(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return {"weights": told(Weights.from_model(model)), "loss": losses[0], "rows": len(x)}


def network(inputs: int) -> nn.Module:
    """The same network, with the same first weights, wherever it is made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 1))


def told(weights: Weights) -> dict[str, Any]:
    """Weights as JSON."""
    return {name: tensor.tolist() for name, tensor in weights.items()}


def read(weights: dict[str, Any]) -> Weights:
    """The inverse of `told`."""
    return Weights({name: torch.tensor(values) for name, values in weights.items()})
