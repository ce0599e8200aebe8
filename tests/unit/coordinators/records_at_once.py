"""An executor without processes whose clients answer records, as tests/packages/records-wire does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from at_once import InProcess

from fedpkg.client.records import load_records, save_records
from fedpkg.dispatch.site import Job
from fedpkg.waist.answer import Failure
from fedpkg.waist.order import Order

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "records-wire"


class RecordsAtOnce(InProcess):
    """``fails``: client@round."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def refusal(self, order: Order) -> Failure | None:
        self.asked.append((order.client_id, order.entry_point))
        fails = f"{order.client_id}@{order.round_number}" in self.fails or f"{order.client_id}@all" in self.fails
        return Failure("exit_code", "it fails " + "ü" * 1000) if fails else None

    def write(self, job: Job) -> None:
        assert job.model is not None
        asked, who = load_records(job.model), job.order.partition_id or 0
        told = asked.data or {}
        rng = np.random.default_rng(job.order.seed)
        arrays = asked.sets.get("arrays", {})
        sets = {"arrays": {name: 0.9 * one + rng.standard_normal(one.shape) + who for name, one in arrays.items()}}
        metrics = {"loss": 1.0 / (1 + who), "num-examples": 3 + who}
        data = {"client": job.order.client_id, "told": told.get("said")}
        if "message_app" in told:
            named = [{"name": "arrays", "kind": "arrays"}, {"name": "metrics", "kind": "metrics", "values": metrics}]
            data = {"message_app": 1, "records": named, "message": told["message"]}
        save_records(job.place.out, sets if arrays else {}, data, num_examples=3 + who, loss=metrics["loss"])
