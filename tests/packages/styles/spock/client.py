"""A spock program: python client.py -c config.yaml --ClientConfig.client_id client-0 …"""

import json
from pathlib import Path

import numpy as np
from spock import SpockBuilder, spock


@spock
class ClientConfig:
    task: str
    client_id: str
    in_path: str = "none"
    out_path: str
    theta: float = 1.0
    note: str = "plain"


def main() -> None:
    settings = SpockBuilder(ClientConfig, desc="one call of a client").generate().ClientConfig
    if settings.task == "build":
        np.savez(settings.out_path, w=np.zeros(3, np.float32))
        return
    with np.load(settings.in_path, allow_pickle=False) as arrays:
        w = arrays["w"]
    if settings.task == "validate":
        Path(settings.out_path).write_text(json.dumps({"w": float(w[0]), "num_examples": 1}))
        return
    np.savez(settings.out_path, w=w + np.float32(settings.theta))
    metadata = {"num_examples": 1, "note": settings.note, "client": settings.client_id}
    Path(f"{settings.out_path}-metadata").write_text(json.dumps(metadata))


if __name__ == "__main__":
    main()
