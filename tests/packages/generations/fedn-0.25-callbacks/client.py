"""FEDn's client with callbacks, as it was written for an address and a token: models are files in memory."""

import argparse
import io
import os
import uuid

import numpy as np
from fedn.network.clients.fedn_client import ConnectToApiResult, FednClient

client = FednClient()


def load():
    with np.load(os.environ["FEDN_DATA_PATH"]) as data:
        return data["x"], data["y"]


def on_train(in_model, client_settings):
    weights = np.load(in_model)["0"]
    x, y = load()
    for epoch in range(args.epochs):
        weights = weights - client_settings.get("learning_rate", 0.1) * x.T @ (x @ weights - y) / len(y)
        client.log_metric({"train_mse": np.float32(np.mean((x @ weights - y) ** 2)), "epoch": epoch})
    client.log_attributes({"charging": "True"})
    client.log_telemetry({"temperature": 40.5})
    out = io.BytesIO()
    np.savez(out, **{"0": weights})
    return out, {"training_metadata": {"num_examples": len(y), "batch_size": 2}}


def on_validate(in_model):
    x, y = load()
    client.log_metric({"residual": 0.5}, step=7)
    return {"mse": float(np.mean((x @ np.load(in_model)["0"] - y) ** 2))}


def on_predict(in_model):
    return {"prediction": (load()[0] @ np.load(in_model)["0"]).tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-url", required=True)
    parser.add_argument("--api-port", type=int, required=True)
    parser.add_argument("--token", type=str, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    client.set_train_callback(on_train)
    client.set_validate_callback(on_validate)
    client.set_predict_callback(on_predict)
    name = f"client-{uuid.uuid4()}"
    client.set_name(name)
    client.set_client_id(str(uuid.uuid4()))
    config = {"name": name, "client_id": client.client_id, "package": "local", "preferred_combiner": ""}
    result, combiner = client.connect_to_api(f"{args.api_url}:{args.api_port}/", args.token, config)
    if result != ConnectToApiResult.Assigned:
        raise SystemExit("cannot connect")
    if not client.init_grpchandler(config=combiner, client_name=name, token=args.token):
        raise SystemExit("cannot connect to the combiner")
    client.run()
    raise SystemExit("FEDn's client runs until it is stopped")
