"""Buffers of the global model: told apart once, when the seed is read, and known ever after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import MISBEHAVE, Federation

from fedpkg.errors import ConfigError, Interrupted
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.pipeline import Pipeline


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "Saat gut.npz"
    w = np.ones((10, 32), np.float32)
    np.savez(path, w=w, b=np.zeros(10, np.float32), steps=np.array(0, np.int64))
    Path(f"{path}-metadata").write_text(json.dumps({"buffers": ["b"]}))
    return path


class Looking(Pipeline):
    """FedAvg that notes which buffers the models have that it is shown."""

    seen: list[frozenset[str]] = []  # noqa: RUF012 - emptied by each test

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        self.seen.append(state["model"].buffers)
        return super().ask(state, rng)

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        def look() -> Iterator[Reply]:
            for reply in replies:
                self.seen.append(reply.weights.buffers)
                yield reply

        return super().tell(state, look())


LOOKING = {"name": "test_model_buffers:Looking"}


@pytest.fixture
def seen() -> list[frozenset[str]]:
    Looking.seen.clear()
    return Looking.seen


def test_buffers_are_right_in_every_round_also_when_the_seed_is_gone(
    federation: Federation, seed: Path, seen: list[frozenset[str]]
) -> None:
    def stop_at_once(event: Any) -> None:
        raise KeyboardInterrupt

    config = federation.config(seed_model=str(seed), buffers=["st*"], clients=18, rounds=2, strategy=LOOKING)
    with pytest.raises(Interrupted):
        federation.run(config, watch=stop_at_once)
    seed.unlink()
    Path(f"{seed}-metadata").unlink()
    session_id = federation.store.list_sessions()[0].session_id
    federation.resume(session_id)
    federation.resume(session_id, rounds=3)
    assert [row.buffers for row in federation.store.list_models(session_id)] == [["b", "steps"]] * 4
    assert len(seen) == 3 * (1 + 18)  # more replies than are kept open
    assert set(seen) == {frozenset({"b", "steps"})}


def test_build_entry_point_tells_its_buffers(federation: Federation, tmp_path: Path) -> None:
    package = tmp_path / "Paket"
    package.mkdir()
    (package / "fedn.yaml").write_text(
        "entry_points:\n  build: {command: python build.py}\n  train: {command: python misbehave.py train}\n"
    )
    (package / "misbehave.py").write_text((MISBEHAVE / "entrypoint.py").read_text())
    (package / "build.py").write_text(
        "import json, sys, numpy as np\n"
        "np.savez(sys.argv[1], w=np.ones((2, 2), np.float32), steps=np.array(0))\n"
        "json.dump({'buffers': ['steps']}, open(sys.argv[1] + '-metadata', 'w'))\n"
    )
    session = federation.run(package=str(package))
    assert [row.buffers for row in federation.store.list_models(session.session_id)] == [["steps"]] * 2


def test_pattern_that_matches_nothing_begins_no_session(federation: Federation, seed: Path) -> None:
    with pytest.raises(ConfigError, match=r"buffers: 'stebs' matches no tensor of Saat gut\.npz; did you mean 'steps'"):
        federation.run(seed_model=str(seed), buffers=["stebs"])
    assert federation.store.list_sessions() == []
