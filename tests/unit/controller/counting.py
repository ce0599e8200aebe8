"""A strategy without a model, and a package with one entry point of a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from fedpkg.strategies import StepResult, Traits
from fedpkg.strategies.base import Request
from fedpkg.types import ReplyKind
from fedpkg.weights import Records, Weights

PLAIN = """
import json, os, sys
import numpy as np
who = json.load(open(os.environ["FEDPKG_TASK"]))["client_id"]
arrays = {"a/b": np.nan}
if who == "client-0":
    arrays = {"%json": np.frombuffer(b'{"num_examples": 0}', np.uint8)}
elif who == FAILS:
    arrays = {"w": np.ones(3)}
np.savez(sys.argv[2], **arrays)
"""


def make_package(folder: Path, *, fails: str = "client-2") -> str:
    """The reply of the client that ``fails`` is no file of records."""
    folder.mkdir()
    (folder / "fedn.yaml").write_text("entry_points: {how-is.it: {command: python plain.py}}")
    (folder / "plain.py").write_text(PLAIN.replace("FAILS", repr(fails)))
    return str(folder)


class Counting:
    """Asks every client how it is, in one request a round."""

    traits = Traits(entry_points=("how-is.it",), has_model=False)
    request: ClassVar[dict[str, Any]] = {}
    metrics: ClassVar[Any] = {}

    def init(self, seed_model: Weights) -> dict[str, Any]:
        assert seed_model is None
        return {"step": 0}

    def step(self, state: dict[str, Any], ctx: Any) -> Iterator[Any]:
        plain = {"payload": Records({"x": Weights({"w": torch.ones(2)})}), "reply_kind": ReplyKind.RECORDS}
        replies = yield Request(**{**plain, "entry_point": "how-is.it", **self.request})
        found = {reply.client_id: reply.num_examples for reply in replies}
        return StepResult({"step": state["step"] + 1}, metrics={"weights": found, **self.metrics})


class WithPrivacy(Counting):
    """Says more of a model than it has."""

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        return Traits(has_model=False, treatment="step")
