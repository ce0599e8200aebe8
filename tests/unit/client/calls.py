"""Calls of entry points in this process, as a task sees them: a task.json, a state folder for each client, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

Vector = np.ndarray[Any, np.dtype[np.float64]]
SIZE = 5


class Point(nn.Module):
    """A model that is one vector, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))


@dataclass
class Quadratic:
    """f(x) = x'A x / 2 - b'x."""

    a: Vector
    b: Vector

    def __call__(self, model: nn.Module, batch: Any = None) -> torch.Tensor:
        x = model.x
        return x @ torch.from_numpy(self.a) @ x / 2 - torch.from_numpy(self.b) @ x

    def gradient(self, x: Vector) -> Vector:
        return self.a @ x - self.b

    @property
    def solution(self) -> Vector:
        return np.linalg.solve(self.a, self.b)


def losses(number: int = 3) -> list[Quadratic]:
    """Of clients that do not agree."""
    rng = np.random.default_rng(7)
    roots = [rng.standard_normal((SIZE, SIZE)) for _ in range(number)]
    return [Quadratic(np.eye(SIZE) + 0.3 * root @ root.T, 3 * rng.standard_normal(SIZE)) for root in roots]


def whole(of: Sequence[Quadratic]) -> Quadratic:
    return Quadratic(np.mean([loss.a for loss in of], axis=0), np.mean([loss.b for loss in of], axis=0))


def descend(
    model: nn.Module, loss: Callable[[nn.Module], torch.Tensor], steps: int, rate: float, *corrects: Callable[[], None]
) -> None:
    """A training loop such as a person has."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        for correct in corrects:
            correct()
        optimizer.step()


class Calls:
    """Runs functions as tasks: ``calls(train, {"x": x}, parameters={…})`` is what ``train(in, out)`` wrote."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.metadata: dict[str, Any] = {}

    def __call__(
        self,
        function: Callable[[str, str], Any],
        arrays: Mapping[str, Any],
        *,
        client: str = "client-0",
        suffix: str = ".npz",
        **facts: Any,
    ) -> dict[str, Any]:
        folder = self.folder / "ein Ordner ü"
        folder.mkdir(exist_ok=True)
        sets = list(dict.fromkeys(key.partition("/")[0] for key in arrays if "/" in key))
        record = {"client_id": client, "entry_point": "train", "reply": "weights", "input_sets": sets, **facts}
        (folder / "task.json").write_text(json.dumps(record))
        self._patch.setenv("FEDPKG_TASK", str(folder / "task.json"))
        self._patch.setenv("FEDPKG_STATE_DIR", str(self.folder / "state" / client))
        given, out = folder / f"in{suffix}", folder / f"out{suffix}"
        out.unlink(missing_ok=True)
        if suffix == ".npz":
            np.savez(given, **arrays)
        else:
            from safetensors.torch import save_file

            save_file(dict(arrays), given)
        function(str(given), str(out))
        if not out.exists():
            return {}
        self.metadata = json.loads(Path(f"{out}-metadata").read_text())
        if suffix == ".npz":
            with np.load(out, allow_pickle=False) as found:
                return dict(found)
        from safetensors.torch import load_file

        return dict(load_file(out))
