"""A program that takes its settings as hydra does: python start.py task=train theta=0.01 in=MODEL out=MODEL."""

import json
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(settings: DictConfig) -> None:
    if settings.task == "build":
        np.savez(settings.out, w=np.zeros(3, np.float32))
        return
    with np.load(settings["in"], allow_pickle=False) as arrays:
        w = arrays["w"]
    if settings.task == "validate":
        Path(settings.out).write_text(json.dumps({"w": float(w[0]), "num_examples": 1}))
        return
    np.savez(settings.out, w=w + np.float32(settings.theta) * len(settings.layers))
    metadata = {"num_examples": 1, "note": settings.note, "lr": settings.optimizer.lr}
    Path(f"{settings.out}-metadata").write_text(json.dumps(metadata))


if __name__ == "__main__":
    main()
