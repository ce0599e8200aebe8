"""A small network that organizations train together, written for versions 1 to 3: a master, and functions RPC_…"""

import time

import torch
from torch import nn
from vantage6.tools.util import info


def master(client, data, outcome, predictors, rounds=5, steps=5, learning_rate=0.1):
    """Federated averaging: each organization trains the global parameters, and their average is the next."""
    columns = [outcome, *predictors]
    sums = ask(client, "sums", columns=columns)
    rows = sum(one["rows"] for one in sums)
    mean = sum(one["sum"] for one in sums) / rows
    spread = (sum(one["squares"] for one in sums) / rows - mean**2).sqrt()

    model = Network(len(predictors))
    losses = []
    for number in range(rounds):
        info(f"round {number + 1} of {rounds}")
        parameters = [parameter.detach() for parameter in model.parameters()]
        how = {"parameters": parameters, "steps": steps, "learning_rate": learning_rate}
        results = ask(client, "train", columns=columns, mean=mean, spread=spread, **how)
        counts = [one["rows"] for one in results]
        average_parameters_weighted(model, [one["parameters"] for one in results], counts)
        losses.append(sum(one["loss"] * one["rows"] for one in results) / sum(counts))
    return {"weights": model.state_dict(), "losses": losses, "rows": rows}


def ask(client, method, **arguments):
    """The result of a function at each organization."""
    ids = [one["id"] for one in client.get_organizations_in_my_collaboration()]
    task = client.create_new_task(input_={"method": method, "kwargs": arguments}, organization_ids=ids)
    while not task.get("complete"):
        task = client.get_task(task.get("id"))
        time.sleep(1)
    return client.get_results(task_id=task.get("id"))


def average_parameters_weighted(model, parameters, weights):
    """Set a model's parameters to the weighted average of those of organizations."""
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            terms = (one[place] * weight for one, weight in zip(parameters, weights, strict=True))
            parameter.copy_(sum(terms) / sum(weights))


def RPC_sums(data, columns):
    """Sums and sums of squares of columns."""
    values = torch.tensor(data[columns].dropna().to_numpy(dtype="float64"))
    return {"rows": len(values), "sum": values.sum(0), "squares": values.square().sum(0)}


def RPC_train(data, columns, mean, spread, parameters, steps, learning_rate):
    """Steps of gradient descent over all rows, from given parameters."""
    values = (torch.tensor(data[columns].dropna().to_numpy(dtype="float64")) - mean) / spread
    y, x = values.float().split([1, len(columns) - 1], dim=1)
    model = Network(x.shape[1])
    average_parameters_weighted(model, [parameters], [1])
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return {
        "parameters": [parameter.detach() for parameter in model.parameters()],
        "loss": losses[0],
        "rows": len(x),
    }


class Network(nn.Sequential):
    """The same network, with the same first parameters, wherever it is made."""

    def __init__(self, inputs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 1))
