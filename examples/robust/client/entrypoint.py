"""A client that learns handwritten digits; with the run_config ``{attack: NAME, attackers: N}`` the last N attack.

python entrypoint.py build    OUT
python entrypoint.py train    IN OUT
python entrypoint.py validate IN OUT
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from attacks import attacked, flipped
from learner import classify, first_model, minibatches, read_data, train


def load(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def save(model, path, **metadata):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.items()})
    Path(f"{path}-metadata").write_text(json.dumps(metadata))


def trained(model, clients, round_number, *, flips=False):
    images, labels = minibatches(clients, round_number)
    models = {name: tensor.expand(len(clients), *tensor.shape) for name, tensor in model.items()}
    return train(models, images, flipped(labels) if flips else labels)


def main():
    command, *paths = sys.argv[1:]
    if command == "build":
        save(first_model(), paths[0])
        return
    path = Path(os.environ["FEDN_DATA_PATH"])
    model, data = load(paths[0]), read_data(path)
    if command == "validate":
        _, _, x, y = data
        accuracy = (classify(model, x).argmax(dim=1) == y).float().mean().item()
        Path(paths[1]).write_text(json.dumps({"test_accuracy": accuracy, "num_examples": len(x)}))
        return
    task = json.loads(Path(os.environ["FEDPKG_TASK"]).read_text())
    number, round_number, config = task["partition_id"], task["round_number"], task["run_config"]
    attack, attackers = config.get("attack", "none"), config.get("attackers", 0)
    num_honest = task["num_partitions"] - attackers
    attacks = attack != "none" and number >= num_honest
    own = trained(model, [(number, data)], round_number, flips=attacks and attack in ("label_flip", "scaled"))
    update = {name: tensor[0] for name, tensor in own.items()}
    if attacks:
        honest = {}
        if attack in ("alie", "ipm"):  # the others' data lies beside its own
            files = sorted(path.parent.glob("*.npz"))[:num_honest]
            honest = trained(model, [(k, read_data(file)) for k, file in enumerate(files)], round_number)
        draw = torch.Generator().manual_seed(1000 * round_number + number)
        update = attacked(attack, model, update, honest, attackers=attackers, draw=draw)
    save(update, paths[1], num_examples=len(data[0]))


if __name__ == "__main__":
    main()
