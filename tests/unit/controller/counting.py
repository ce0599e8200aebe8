"""A strategy without a model, and a package with one entry point of a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from fedpkg.strategies import StepResult, Traits
from fedpkg.strategies.base import Arrived, Request
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


class Polling(Counting):
    """Asks in the first round, and takes the answers in the second; it keeps records of odd names meanwhile."""

    def step(self, state: dict[str, Any], ctx: Any) -> Iterator[Any]:
        if ctx.round_number == 1:
            odd, numbered = torch.tensor([float("nan"), 2.0]), {"1": torch.ones(1), "0": torch.ones(2)}
            sets = {"a/b %": Weights({"": odd}), "": Weights({}), "$weights": Weights(numbered)}
            question = Records(sets, {"$weights": [None]})
            plain = {"payload": question, "reply_kind": ReplyKind.RECORDS, "entry_point": "how-is.it"}
            for client in ctx.clients:
                yield Request(**plain, clients=(client.client_id,), wait="nothing")
            return {"kept": question}
        answers = yield Arrived(len(ctx.clients))
        kept: Records = state["kept"]
        names = [[name, list(one)] for name, one in kept.sets.items()]
        found = {reply.client_id: reply.num_examples for replies in answers for reply in replies}
        return StepResult(state, metrics={"weights": dict(sorted(found.items())), "kept": [names, kept.data]})


class WithPrivacy(Counting):
    """Says more of a model than it has."""

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        return Traits(has_model=False, treatment="step")
