"""Sessions whose clients are softmax regressions on digits, in groups that disagree; they run without processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from at_once import InProcess
from digits import Data, trained
from federation import Federation

from fedpkg.controller.events import Event
from fedpkg.dispatch.site import Job
from fedpkg.formats.model_file import read_model
from fedpkg.session import executors
from fedpkg.stores.base import SessionRow
from fedpkg.stores.models import ModelStore
from fedpkg.waist.answer import Failure
from fedpkg.waist.order import Order
from fedpkg.weights.weights import Weights

SOFTMAX = Path(__file__).resolve().parents[2] / "packages" / "softmax"
STEPS = 10


class Digits(InProcess):
    """Client k trains on three quarters of ``data[k]``, and validates on the rest.

    ``fails``: client@round. ``counts``: what a client writes as its label histogram. ``dtype``: of the model.
    """

    def __init__(self, data: Sequence[Data], *, fails: Sequence[str] = ()) -> None:
        self.data = [(images[: _cut(labels)], labels[: _cut(labels)]) for images, labels in data]
        self.tests = [(images[_cut(labels) :], labels[_cut(labels) :]) for images, labels in data]
        self.fails = frozenset(fails)
        self.counts: Callable[[Order], Any] = self._counts
        self.dtype: type[np.floating[Any]] = np.float32
        self.asked: list[tuple[int, str, str]] = []

    def refusal(self, order: Order) -> Failure | None:
        is_to_fail = f"{order.client_id}@{order.round_number}" in self.fails and order.entry_point == "train"
        return Failure("exit_code", "it fails") if is_to_fail else None

    def write(self, job: Job) -> None:
        order, out, number = job.order, job.place.out, job.order.partition_id
        self.asked.append((order.round_number, order.entry_point, order.client_id))
        if order.entry_point == "build":
            np.savez(out, weight=np.zeros((10, 64), dtype=self.dtype), bias=np.zeros(10, dtype=self.dtype))
            return
        if order.entry_point == "label_histogram":
            out.write_text(json.dumps({"label_histogram": self.counts(order)}))
            return
        assert job.model is not None
        model = Weights({name: tensor.float() for name, tensor in read_model(Path(job.model)).items()})
        if order.entry_point == "validate":
            number_right = accuracy(model, self.tests[number])
            out.write_text(json.dumps({"accuracy": number_right, "num_examples": len(self.tests[number][1])}))
            return
        after = trained(model, self.data[number], STEPS)
        np.savez(out, **{name: tensor.numpy().astype(self.dtype) for name, tensor in after.items()})
        Path(f"{out}-metadata").write_text(json.dumps({"num_examples": len(self.data[number][1])}))

    def _counts(self, order: Order) -> list[int]:
        return torch.bincount(self.data[order.partition_id][1], minlength=10).tolist()


def _cut(labels: torch.Tensor) -> int:
    return len(labels) * 3 // 4


def accuracy(model: Mapping[str, torch.Tensor], data: Data) -> float:
    images, labels = data
    return float((images @ model["weight"].T + model["bias"]).argmax(dim=1).eq(labels).float().mean())


def run(
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    clients: Digits,
    infer: Mapping[str, Any] | None,
    /,
    *,
    watch: Callable[[Event], None] | None = None,
    **more: Any,
) -> SessionRow:
    """A session of these clients, whose clusters are found as ``infer`` says."""
    monkeypatch.setattr(executors, "make_executor", clients.make)
    if infer is not None:
        more["topology"] = {"infer": infer, **more.get("topology", {})}
    config = federation.config(**{"package": str(SOFTMAX), "clients": len(clients.data), **more})
    return federation.run(config, watch=watch)


def places(federation: Federation, session: SessionRow) -> dict[str, list[int]]:
    """The numbers of the clients of each cluster, by its path."""
    saved = federation.store.load_strategy_state(session.session_id)
    assert saved is not None
    found: dict[str, list[int]] = {}
    for client_id, path in saved[1]["infer"]["places"].items():
        found.setdefault(path, []).append(int(client_id.removeprefix("client-")))
    return {path: sorted(numbers) for path, numbers in sorted(found.items())}


def models(federation: Federation, session: SessionRow) -> dict[str, Weights]:
    """The current model of each cluster, by its path."""
    store = ModelStore(federation.home.models)
    rows = federation.store.list_clusters(session.session_id)
    return {row.cluster: Weights(read_model(store.path(row.digest, row.suffix))).clone() for row in rows}
