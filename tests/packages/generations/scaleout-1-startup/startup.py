"""Scaleout 1.x with its importer client: the file is imported, and its function registers callbacks."""

import os

import numpy as np
from model import load_parameters, save_parameters
from scaleout import EdgeClient, ScaleoutModel


def startup(client: EdgeClient):
    MyClient(client)


class MyClient:
    def __init__(self, client):
        self.client = client
        client.set_train_callback(self.train)
        client.set_validate_callback(self.validate)
        client.set_predict_callback(self.predict)

    def load_data(self):
        path = os.environ.get("FEDN_DATA_PATH", os.path.join(self.client.package_path, "data.npz"))
        with np.load(path) as data:
            return data["x"], data["y"]

    def train(self, scaleout_model: ScaleoutModel, settings, data_path=None, epochs=1):
        x, y = self.load_data()
        (w,) = load_parameters(scaleout_model)
        for _ in range(epochs):
            self.client.check_task_abort()
            w = w - settings.get("learning_rate", 0.1) * x.T @ (x @ w - y) / len(y)
            self.client.log_metric({"training_loss": float(np.mean((x @ w - y) ** 2))})
        self.client.log_telemetry(key="temperature", payload={"value": 41.5})
        return save_parameters([w]), {"training_metadata": {"num_examples": len(y)}}

    def validate(self, scaleout_model, data_path=None):
        x, y = self.load_data()
        (w,) = scaleout_model  # as in the versions that gave the arrays
        return {"mse": float(np.mean((x @ w - y) ** 2))}

    def predict(self, scaleout_model, data_path=None):
        return {"predictions": (self.load_data()[0] @ load_parameters(scaleout_model)[0]).tolist()}
