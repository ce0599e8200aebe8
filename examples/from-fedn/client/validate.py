import sys

import torch
from data import load_data
from fedn.utils.helpers.helpers import save_metrics
from model import load_parameters


def validate(in_model_path, out_json_path, data_path=None):
    model = load_parameters(in_model_path)
    model.eval()
    report = {}
    for name, is_train in (("training", True), ("test", False)):
        x, y = load_data(data_path, is_train=is_train)
        with torch.no_grad():
            out = model(x)
        report[f"{name}_loss"] = torch.nn.functional.cross_entropy(out, y).item()
        report[f"{name}_accuracy"] = (out.argmax(1) == y).float().mean().item()
    save_metrics(report, out_json_path)


if __name__ == "__main__":
    validate(sys.argv[1], sys.argv[2])
