"""Writes a model's predictions as JSON."""

import json
import sys

import yaml
from data_loader import read_data
from fedn.utils.numpymodel import NumpyHelper

if __name__ == "__main__":
    with open("settings.yaml") as file:
        x, _ = read_data(yaml.safe_load(file))
    with open(sys.argv[2], "w") as file:
        json.dump((x @ NumpyHelper().load_model(sys.argv[1])).tolist(), file)
