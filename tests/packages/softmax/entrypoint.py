"""Softmax regression on a client's images and labels (an .npz file with x, y, x_test, y_test). NumPy only.

python entrypoint.py build           OUT
python entrypoint.py train           IN OUT   --steps=20 --lr=0.5
python entrypoint.py validate        IN OUT   the accuracy on the test images
python entrypoint.py label_histogram IN OUT
"""

import json
import os
import sys

import numpy as np

from fedpkg import client

CLASSES, PIXELS = 10, 64


def softmax(model, x):
    scores = x @ model["weight"].T + model["bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def main():
    command, *words = sys.argv[1:]
    paths = [word for word in words if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    if command == "build":
        np.savez(paths[0], weight=np.zeros((CLASSES, PIXELS)), bias=np.zeros(CLASSES))
        return
    with np.load(os.environ["FEDN_DATA_PATH"]) as arrays:
        data = dict(arrays)
    if command == "label_histogram":
        client.save_label_histogram(paths[1], data["y"], CLASSES)
        return
    with np.load(paths[0]) as arrays:
        model = dict(arrays)
    if command == "validate":
        is_right = softmax(model, data["x_test"]).argmax(axis=1) == data["y_test"]
        with open(paths[1], "w") as file:
            json.dump({"accuracy": float(is_right.mean()), "num_examples": len(is_right)}, file)
        return
    if client.task().client_id in options.get("fails", "").split(","):
        sys.exit(3)
    for _ in range(int(options.get("steps", 20))):
        error = softmax(model, data["x"]) - np.eye(CLASSES)[data["y"]]
        model["weight"] -= float(options.get("lr", 0.5)) * error.T @ data["x"] / len(error)
        model["bias"] -= float(options.get("lr", 0.5)) * error.mean(axis=0)
    np.savez(paths[1], **model)
    with open(f"{paths[1]}-metadata", "w") as file:
        json.dump({"num_examples": len(data["y"])}, file)


main()
