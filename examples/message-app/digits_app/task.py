"""The model, the partition of a node, and what is done with both."""

import torch
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner
from torch import nn


class Net(nn.Module):
    """A small CNN for images of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        )
        self.classifier = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images):
        return self.classifier(self.features(images).flatten(1))


def load_data(partition_id, num_partitions, config):
    """The training and test examples of a partition, as tensors."""
    partitioner = IidPartitioner(num_partitions)
    if config["partitioner"] == "dirichlet":
        partitioner = DirichletPartitioner(num_partitions, "label", alpha=config["alpha"], min_partition_size=20)
    dataset = FederatedDataset(dataset="sklearn/digits", partitioners={"train": partitioner})
    parts = dataset.load_partition(partition_id).train_test_split(test_size=0.2, seed=42)
    return tensors(parts["train"]), tensors(parts["test"])


def tensors(dataset):
    rows = dataset.with_format("torch")[:]
    return rows["x"].float().reshape(-1, 1, 8, 8) / 16, rows["label"].long()


def fit(model, data, epochs, lr, batch_size):
    """Train the model, and return the mean loss of the last epoch."""
    images, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / len(labels)


def measure(model, data):
    """The loss and the accuracy of the model."""
    images, labels = data
    with torch.no_grad():
        scores = model(images)
    loss = nn.functional.cross_entropy(scores, labels).item()
    return loss, (scores.argmax(1) == labels).float().mean().item()
