"""Which tensors of a seed model are buffers: its metadata says so, else the usual names, and the configuration adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedpkg.errors import ConfigError, ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.buffers import negative_variances, running_statistics
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
    return set(read_seed_model(path, buffers=patterns or None)[0].buffers)


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
    with pytest.raises(ModelFileError, match=r"lists '1\.runing_mean', which is not a tensor") as caught:
        read_seed_model(seed)
    assert "did you mean '1.running_mean'?" in caught.value.message
    assert str(metadata_path(seed)) in caught.value.message


def test_damaged_metadata_is_refused(seed: Path) -> None:
    metadata_path(seed).write_bytes(b"{")
    with pytest.raises(ModelFileError, match="is not JSON"):
        read_seed_model(seed)


def test_empty_list_says_that_there_are_none(seed: Path) -> None:
    write_metadata(seed, {"buffers": ["0.bias"]})
    assert read_seed_model(seed, buffers=[])[0].buffers == frozenset()


def test_buffers_of_keras_have_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, **{f"bn/{name}:0": np.ones(2) for name in ("gamma", "beta", "moving_mean", "moving_variance")})
    assert buffers(path) == {"bn/moving_mean:0", "bn/moving_variance:0"}


# ---- the pattern of BatchNorm, where nothing has a name


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {str(i): tensor for i, tensor in enumerate(model.state_dict().values())}


def trained(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for _ in range(3):
            model(torch.randn(8, 4) * 3 + 1)
    return model


def keras(*, scale: bool = True, dense_bias: bool = False) -> dict[str, torch.Tensor]:
    """What ``get_weights()`` has: kernel, (bias), (gamma), beta, moving_mean, moving_variance, kernel, bias."""
    zeros, ones = torch.zeros(5), torch.ones(5)
    found = [torch.randn(4, 5), *([zeros] if dense_bias else []), *([ones] if scale else []), zeros, zeros, ones]
    return {str(i): tensor for i, tensor in enumerate([*found, torch.randn(5, 3), torch.zeros(3)])}


BN = torch.nn.BatchNorm1d
PATTERNS = {
    "torch": (tensors(trained(torch.nn.Sequential(torch.nn.Linear(4, 5), BN(5), torch.nn.Linear(5, 2)))), ["4", "5"]),
    "torch, not affine": (
        tensors(trained(torch.nn.Sequential(torch.nn.Linear(4, 5), BN(5, affine=False)))),
        ["2", "3"],
    ),
    "torch, two layers": (
        tensors(trained(torch.nn.Sequential(BN(4), torch.nn.Linear(4, 5), BN(5)))),
        ["2", "3", "9", "10"],
    ),
    "keras": (keras(), ["3", "4"]),
    "keras after a dense layer with a bias": (keras(dense_bias=True), ["4", "5"]),
    "keras without scale": (keras(scale=False), ["2", "3"]),
    "keras without scale, with a bias": (keras(scale=False, dense_bias=True), ["3", "4"]),
    # What is none.
    "transformer": (tensors(torch.nn.TransformerEncoderLayer(8, 2, 16)), []),
    "rnn": (tensors(torch.nn.LSTM(4, 4)), []),
    "group norm and prelu": (tensors(torch.nn.Sequential(torch.nn.GroupNorm(1, 4), torch.nn.PReLU(4))), []),
    "layer norms": (tensors(torch.nn.Sequential(*(torch.nn.LayerNorm(4) for _ in range(3)))), []),
    "step counter": ({"0": torch.ones(3, 3), "1": torch.ones(3), "2": torch.tensor(7)}, []),
    "signed": ({"0": torch.ones(3), "1": -torch.ones(3), "2": torch.tensor(7)}, []),
    "flag": ({"0": torch.ones(3), "1": torch.ones(3), "2": torch.tensor(True)}, []),
    "empty": ({"0": torch.ones(0), "1": torch.ones(0), "2": torch.tensor(1)}, []),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_running_statistics_are_recognised_by_the_order_and_the_values_of_tensors(case: str) -> None:
    model, expected = PATTERNS[case]
    assert running_statistics(Weights(model)) == expected


def test_variances_that_fall_below_zero_are_found_by_name_place_or_buffers() -> None:
    def models(names: str, *, last: bool = False, told: bool = False) -> tuple[Weights, Weights]:
        values = [torch.zeros(3), torch.ones(3), *([torch.tensor(2)] if last else [])]
        before = Weights(dict(zip(names.split(), values, strict=False)), buffers=names.split()[:2] if told else [])
        mean, variance, *_rest = before
        return before, Weights({**before, mean: before[mean] - 1, variance: torch.tensor([1.0, -0.1, 1.0])})

    assert negative_variances(*models("bn.running_mean bn.running_var")) == ["bn.running_var"]
    assert negative_variances(*models("0 1 2", last=True)) == ["1"]
    assert negative_variances(*models("0 1", told=True)) == ["1"]
    assert negative_variances(*models("0 1")) == []
    _, after = models("0 1", told=True)
    assert negative_variances(after, after) == []  # it was said when it happened
