"""Which tensors of a seed model are buffers: its metadata says so, else the usual names, and the configuration adds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedpkg.errors import ConfigError, ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.metadata import metadata_path, write_metadata
from fedpkg.formats.model_file import read_seed_model, write_model
from fedpkg.types import Json
from fedpkg.weights.weights import Weights

USUAL = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.fixture(params=[".npz", ".safetensors", ".pt"])
def seed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"Saat gut{request.param}"
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    if request.param == ".pt":
        torch.save(net.state_dict(), path)
    else:
        write_model(path, Weights(net.state_dict()), ModelForm(request.param))
    return path


def buffers(path: Path, *patterns: str) -> set[str]:
    return set(read_seed_model(path, buffers=patterns)[0].buffers)


def test_usual_names_are_buffers_where_nothing_else_is_said(seed: Path) -> None:
    assert buffers(seed) == USUAL
    write_metadata(seed, {"num_examples": 3})
    assert buffers(seed) == USUAL


def test_only_the_last_part_of_a_name_counts(tmp_path: Path) -> None:
    names = ("running_mean", "a.b.running_var", "running_mean.weight", "x_running_mean", "num_batches_tracked")
    write_model(tmp_path / "m.npz", Weights({name: torch.ones(1) for name in names}), ModelForm(".npz"))
    assert buffers(tmp_path / "m.npz") == {"running_mean", "a.b.running_var", "num_batches_tracked"}


def test_metadata_decides_over_the_usual_names(seed: Path) -> None:
    write_metadata(seed, {"buffers": ["0.bias"]})
    assert buffers(seed) == {"0.bias"}
    write_metadata(seed, {"buffers": []})
    assert buffers(seed) == set()


def test_patterns_of_the_configuration_add(seed: Path) -> None:
    assert buffers(seed, "0.b*", "1.running_*") == {*USUAL, "0.bias"}
    write_metadata(seed, {"buffers": ["1.weight"]})
    assert buffers(seed, "0.*") == {"0.weight", "0.bias", "1.weight"}


def test_positions_are_told_by_metadata_or_configuration_alone(tmp_path: Path) -> None:
    path = tmp_path / "seed.npz"
    write_model(
        path, Weights({name: torch.ones(1) for name in ("w", "running_mean", "b")}), ModelForm(".npz", "positions")
    )
    assert buffers(path) == set()
    assert buffers(path, "2") == {"2"}
    write_metadata(path, {"buffers": ["1"]})
    assert buffers(path) == {"1"}


def test_pattern_that_matches_nothing_names_what_is_near(seed: Path) -> None:
    with pytest.raises(ConfigError, match=r"buffers: '1\.runing_mean' matches no tensor of Saat gut\S+") as caught:
        read_seed_model(seed, buffers=["1.runing_mean"])
    assert "did you mean '1.running_mean'?" in caught.value.message
    assert "0.weight, 0.bias" in (caught.value.hint or "")


@pytest.mark.parametrize("listed", ["1.running_mean", {"1.running_mean": 1}, [1], None])
def test_metadata_that_lists_no_names_is_refused(seed: Path, listed: Json) -> None:
    write_metadata(seed, {"buffers": listed})
    with pytest.raises(ModelFileError, match="'buffers' must be a list of tensor names"):
        read_seed_model(seed)


def test_metadata_that_names_a_stranger_is_refused(seed: Path) -> None:
    write_metadata(seed, {"buffers": ["1.runing_mean"]})
    with pytest.raises(ModelFileError, match=r"lists '1\.runing_mean', which is no tensor") as caught:
        read_seed_model(seed)
    assert "did you mean '1.running_mean'?" in caught.value.message
    assert str(metadata_path(seed)) in caught.value.message


def test_damaged_metadata_is_refused(seed: Path) -> None:
    metadata_path(seed).write_bytes(b"{")
    with pytest.raises(ModelFileError, match="is not JSON"):
        read_seed_model(seed)
