"""A client with data (or, without, the numbers from 0 to 9) whose model is their mean. NumPy only.

python client.py build            OUT
python client.py train         IN OUT   half of the way to the mean of the data
python client.py validate      IN OUT   the share of the data that lies within 5 of the model
python client.py predict       IN OUT   how far each number is from the model
"""

import json
import os
import sys

import numpy as np


def main():
    command, *paths = sys.argv[1:]
    if command == "build":
        np.savez(paths[0], **{"0": np.zeros(1)})
        return
    place = os.environ.get("FEDN_DATA_PATH")
    data = np.loadtxt(place) if place else np.arange(10.0)
    with np.load(paths[0]) as arrays:
        mean = arrays["0"]
    if command == "train":
        with open(paths[1], "wb") as file:
            np.savez(file, **{"0": (mean + data.mean()) / 2})
        report, target = {"num_examples": len(data)}, f"{paths[1]}-metadata"
    elif command == "validate":
        report, target = {"test_accuracy": float((abs(data - mean) <= 5).mean())}, paths[1]
    else:
        report, target = {"prediction": abs(data - mean).tolist()}, paths[1]
    with open(target, "w") as file:
        json.dump(report, file)


main()
