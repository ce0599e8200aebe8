"""Updates side by side: read piece by piece, mapped, few files open, and on disk when they are not mapped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cohorts import close, replies, stacked, told, weights

from fedpkg.errors import AggregationError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.strategies.updates import held
from fedpkg.strategies.updates.held import Updates
from fedpkg.weights.weights import Weights


def big(seed: int, elements: int = 40_000) -> Weights:
    return Weights({"w": torch.randn(elements, generator=torch.Generator().manual_seed(seed)), "n": torch.tensor(seed)})


def mapped(folder: Path, update: Weights, name: str, *, numpys_own: bool = False) -> Weights:
    path = folder / f"{name}.npz"
    if numpys_own:
        np.savez(path, **{key: tensor.numpy() for key, tensor in update.items()})
    else:
        write_model(path, update, ModelForm(".npz", "names"))
    return Weights(read_model(path))


def test_thousands_of_updates_need_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "update.npz"
    write_model(path, big(1, 100), ModelForm(".npz", "names"))
    before = len(os.listdir("/proc/self/fd"))
    many = [Weights(read_model(path)) for _ in range(3000)]
    updates = Updates(replies(many), big(0, 100))
    assert len(updates) == 3000
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    made = told({"name": "median"}, big(0, 100), many)
    assert torch.equal(made["w"], big(1, 100)["w"])


@pytest.mark.parametrize("numpys_own", [False, True])
def test_mapped_and_copied_updates_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpys_own: bool
) -> None:
    monkeypatch.setattr(held, "_OWN_BYTES", 0)  # whatever is in memory moves to disk at once
    plain = [big(seed) for seed in range(7)]
    files = [mapped(tmp_path, update, f"{n} ü", numpys_own=numpys_own) for n, update in enumerate(plain)]
    for name in ("median", "multikrum", "bulyan", "rfa"):
        made = told({"name": name}, big(99), files)
        monkeypatch.setattr(held, "_OWN_BYTES", 1 << 40)
        assert made.equal(told({"name": name}, big(99), plain)), name
        monkeypatch.setattr(held, "_OWN_BYTES", 0)


def test_updates_in_memory_move_to_files_that_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_OWN_BYTES", 1 << 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    updates = Updates(replies(padded(n) for n in range(30)), padded(0))
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before
    kept_in_memory = sum(
        tensor.untyped_storage().resizable() for update in updates._held for tensor in update.values() if tensor.numel()
    )
    assert 0 < kept_in_memory < 30 * len(padded(0)) / 2
    made = updates.with_rest(updates.made(updates.model.parameters, lambda rows, _: held.middle(rows)))
    close(made, stacked(padded(n) for n in range(30)).quantile(0.5, dim=0))


def padded(seed: int) -> Weights:
    update = weights(seed)
    return Weights({**update, "more": torch.full((20_000,), float(seed))}, buffers=update.buffers)


def test_full_disk_for_updates_in_memory_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_OWN_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(AggregationError, match="do not fit into /dev/shm: No space left") as caught:
        Updates(replies([big(1)]), big(0))
    assert "TMPDIR" in (caught.value.hint or "")


def own_memory() -> int:
    """Bytes that are no part of a mapped file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedmedian", "multikrum", "rfa", "norm_bounding"])
def test_memory_does_not_grow_with_the_clients(tmp_path: Path, name: str) -> None:
    """24 updates of 8 MB, mapped: what is allocated stays below five of them."""
    elements = 2_000_000
    model = Weights({"w": torch.zeros(elements)})
    files = []
    for n in range(24):
        path = tmp_path / f"{n}.safetensors"
        write_model(path, Weights({"w": torch.randn(elements)}), ModelForm(".safetensors", "names"))
        files.append(path)
    told({"name": name}, model, [Weights(read_model(path)) for path in files[:7]])
    before = own_memory()
    peak = 0

    def watched() -> None:
        nonlocal peak
        peak = max(peak, own_memory())

    original = held.Updates._pieces

    def pieces(self, *args):  # type: ignore[no-untyped-def]
        for number, found in enumerate(original(self, *args)):
            if number % 40 == 0:
                watched()
            yield found

    held.Updates._pieces = pieces  # type: ignore[method-assign]
    try:
        told({"name": name}, model, [Weights(read_model(path)) for path in files])
    finally:
        held.Updates._pieces = original  # type: ignore[method-assign]
    assert peak - before < 5 * 4 * elements
