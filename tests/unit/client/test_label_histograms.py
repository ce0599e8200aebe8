"""Label histograms as clients write them: counts, a minimum, and noise that a seed repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg import client

LABELS = [0, 0, 0, 2, 2, 3]


def written(folder: Path, patch: pytest.MonkeyPatch, labels: Any, *, seed: int = 7, **parameters: float) -> list[float]:
    (folder / "task.json").write_text(json.dumps({"seed": seed, "parameters": parameters}))
    patch.setenv("FEDPKG_TASK", str(folder / "task.json"))
    client.save_label_histogram(folder / "out.json", labels, 4)
    found = json.loads((folder / "out.json").read_text())
    assert list(found) == ["label_histogram"], "the number of examples is not told"
    counts: list[float] = found["label_histogram"]
    return counts


def test_small_counts_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(tmp_path, monkeypatch, LABELS) == [3, 0, 2, 1]
    assert written(tmp_path, monkeypatch, torch.tensor(LABELS), minimum=2) == [3, 0, 2, 0]
    assert written(tmp_path, monkeypatch, np.array(LABELS, dtype=np.uint8), minimum=9) == [0, 0, 0, 0]
    assert written(tmp_path, monkeypatch, []) == [0, 0, 0, 0]


def test_noise_is_laplacian_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [0] * 1000 + [1] * 1000 + [2] * 1000 + [3] * 1000
    rows = [written(tmp_path, monkeypatch, many, seed=seed, noise=20.0) for seed in range(400)]
    assert rows[3] == written(tmp_path, monkeypatch, many, seed=3, noise=20.0)
    errors = np.array(rows).reshape(-1) - 1000
    assert abs(errors.mean()) < 3 and abs(np.abs(errors).mean() - 20) < 2  # E |X| is the scale
    assert (errors == np.round(errors)).all() and (np.abs(errors) > 60).mean() == pytest.approx(np.exp(-3), abs=0.02)
    few = np.array([written(tmp_path, monkeypatch, LABELS, seed=seed, noise=20.0, minimum=5) for seed in range(50)])
    assert ((few == 0) | (few >= 5)).all(), "the minimum holds for what is sent"


@pytest.mark.parametrize("labels", [[4], [-1], [0.5], ["a"]], ids=str)
def test_labels_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: Any) -> None:
    with pytest.raises(client.ClientError, match="the labels are not whole numbers from 0 to 3"):
        written(tmp_path, monkeypatch, labels)
