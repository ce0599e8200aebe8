"""Answers records with records, as the client program of a message app does; data["plan"] says what goes wrong."""

import os
import sys
import time

import numpy as np

from fedpkg import client


def main(in_path, out_path):
    task = client.task()
    asked = client.load_records(in_path)
    told = asked.data or {}
    plan = told.get("plan", {}).get(task.client_id, "")
    if plan == "fails":
        sys.exit("no data here")
    if plan == "sleeps":
        time.sleep(600)
    rng, who = np.random.default_rng(int(os.environ["FEDPKG_SEED"])), task.partition_id
    arrays = asked.sets.get("arrays", {})
    sets = {"arrays": {name: 0.9 * one + rng.standard_normal(one.shape) + who for name, one in arrays.items()}}
    metrics = {"loss": 1.0 / (1 + who), "num-examples": 3 + who}
    if "message_app" in told:
        named = [{"name": "arrays", "kind": "arrays"}, {"name": "metrics", "kind": "metrics", "values": metrics}]
        data = {"message_app": 1, "records": named, "message": told["message"]}
    else:
        data = {"client": task.client_id, "told": told.get("said")}
    client.save_records(out_path, sets if arrays else {}, data, num_examples=3 + who, loss=metrics["loss"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
