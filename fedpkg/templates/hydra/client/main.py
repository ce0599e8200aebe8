"""A client whose settings are hydra's: python main.py task=train in=MODEL out=MODEL optimizer.lr=0.1"""

import hydra
import torch
from fedpkg import client
from torch import nn
from torch.nn.functional import cross_entropy


def load_data(part):
    """The images and labels of this client; ``part`` is train or test."""
    arrays = client.open_data()
    x = torch.tensor(arrays[f"x_{part}"], dtype=torch.float32).reshape(-1, 64) / 16
    return x, torch.tensor(arrays[f"y_{part}"], dtype=torch.int64)


def train(model, given, settings):
    x, y = load_data("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.optimizer.lr)
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(x)).split(settings.batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    client.save(settings.out, model, given, num_examples=len(x), train_loss=loss.item())


def validate(model, settings):
    x, y = load_data("test")
    with torch.no_grad():
        scores = model(x)
    accuracy = (scores.argmax(dim=1) == y).float().mean()
    client.save_metrics(settings.out, {"test_loss": cross_entropy(scores, y), "test_accuracy": accuracy})


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(settings):
    model = nn.Sequential(nn.Linear(64, settings.model.hidden), nn.ReLU(), nn.Linear(settings.model.hidden, 10))
    if settings.task == "build":
        client.save(settings.out, model)
        return
    given = client.load(settings["in"], model)
    if settings.task == "train":
        train(model, given, settings)
    else:
        validate(model, settings)


if __name__ == "__main__":
    main()
