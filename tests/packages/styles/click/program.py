"""A click program: python program.py train -P theta=0.01 MODEL MODEL."""

import json
from pathlib import Path

import click
import numpy as np


@click.group()
def main() -> None:
    pass


@main.command()
@click.argument("out_path")
def build(out_path: str) -> None:
    np.savez(out_path, w=np.zeros(3, np.float32))


@main.command()
@click.option("-P", "pairs", multiple=True, help="name=value")
@click.argument("in_path", type=click.Path(exists=True))
@click.argument("out_path")
def train(pairs: tuple[str, ...], in_path: str, out_path: str) -> None:
    settings = dict(pair.split("=", 1) for pair in pairs)
    with np.load(in_path, allow_pickle=False) as arrays:
        np.savez(out_path, w=arrays["w"] + np.float32(settings.get("theta", 1.0)))
    metadata = {"num_examples": 1, "note": settings.get("note", "plain")}
    Path(f"{out_path}-metadata").write_text(json.dumps(metadata))


@main.command()
@click.argument("in_path", type=click.Path(exists=True))
@click.argument("out_path")
def validate(in_path: str, out_path: str) -> None:
    with np.load(in_path, allow_pickle=False) as arrays:
        Path(out_path).write_text(json.dumps({"w": float(arrays["w"][0]), "num_examples": 1}))


if __name__ == "__main__":
    main()
