import sys

import torch
from data import load_data
from fedn.utils.helpers.helpers import save_metadata
from model import load_parameters, save_parameters


def train(in_model_path, out_model_path, data_path=None, batch_size=32, epochs=1, lr=0.05):
    x_train, y_train = load_data(data_path)
    model = load_parameters(in_model_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    n_batches = len(x_train) // batch_size
    criterion = torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        for b in range(n_batches):
            batch = slice(b * batch_size, (b + 1) * batch_size)
            optimizer.zero_grad()
            loss = criterion(model(x_train[batch]), y_train[batch])
            loss.backward()
            optimizer.step()
    save_metadata({"num_examples": len(x_train), "batch_size": batch_size, "epochs": epochs, "lr": lr}, out_model_path)
    save_parameters(model, out_model_path)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
