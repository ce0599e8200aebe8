import sys

import torch
from data import load_data
from fedn.utils.helpers.helpers import save_metrics
from model import load_parameters


def predict(in_model_path, out_json_path, data_path=None):
    x, _ = load_data(data_path, is_train=False)
    model = load_parameters(in_model_path)
    with torch.no_grad():
        save_metrics({"predictions": model(x).argmax(1).tolist()}, out_json_path)


if __name__ == "__main__":
    predict(sys.argv[1], sys.argv[2])
