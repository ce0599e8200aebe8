"""An experiment that the tests of this room change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ROOT = """
defaults: [data: iid, method: fedavg, _self_]
package: client
rounds: 3
clients: {count: 4}
params: {lr: 0.1, mu: 0.01}
arguments: {train: {lr: "${lr}", batch: 8}}
"""
FILES = {
    "experiment.yaml": ROOT,
    "data/iid.yaml": "clients: {data: {dataset: sklearn/digits, partition: {name: iid}}}",
    "data/dirichlet.yaml": "clients: {data: {dataset: sklearn/digits, partition: {name: dirichlet, alpha: 0.3}}}",
    "method/fedavg.yaml": "",
    "method/fedprox.yaml": "strategy:\n  name: fedprox\n  proximal_mu: ${mu}\n",
    "method/scaffold.yaml": "strategy: {name: scaffold}\nrounds: 5",
    "executor/one.yaml": "workers: 1\nname: process",
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
