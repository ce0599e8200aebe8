"""Named tensors: comparing, checking, ordering."""

from __future__ import annotations

import math

import pytest
import torch

from fedpkg.errors import ModelMismatch
from fedpkg.weights.weights import Weights, raw_bytes


def layer() -> Weights:
    return Weights(
        {"fc.weight": torch.ones(10, 32), "fc.bias": torch.zeros(10), "seen": torch.tensor(3)}, buffers=["seen"]
    )


def changed(**tensors: torch.Tensor) -> Weights:
    return Weights({**layer(), **{name.replace("_", "."): tensor for name, tensor in tensors.items()}})


def test_counts_bytes_of_all_tensors_and_parameters_without_buffers() -> None:
    assert layer().num_bytes == 4 * 330 + 8
    assert layer().num_parameters == 330
    assert list(layer()) == ["fc.weight", "fc.bias", "seen"]


def test_shares_its_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    assert Weights({"a": parameter})["a"] is parameter


def test_unknown_buffer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelMismatch, match=r"buffer 'sean' .* did you mean 'seen'\?"):
        Weights({"seen": torch.zeros(1)}, buffers=["sean"])


def test_clone_has_memory_of_its_own() -> None:
    weights = layer()
    clone = weights.clone()
    clone["fc.bias"].add_(1)
    assert weights["fc.bias"].sum() == 0
    assert clone.buffers == {"seen"}


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (layer(), None),
        (Weights(dict(reversed(list(layer().items())))), None),
        (Weights({"fc.bias": torch.zeros(10), "seen": torch.tensor(3)}), "missing tensor 'fc.weight'"),
        (changed(evil=torch.zeros(1)), "extra tensor 'evil'"),
        (
            changed(fc_weight=torch.ones(1, 32)),
            "tensor 'fc.weight' has shape (1, 32), the global model has (10, 32)",
        ),
        (changed(seen=torch.tensor([3])), "tensor 'seen' has shape (1,), the global model has ()"),
        (changed(fc_bias=torch.zeros(10).double()), "tensor 'fc.bias' has dtype float64, the global model has float32"),
        (Weights({}), "missing tensor 'fc.weight'"),
    ],
)
def test_mismatch_says_the_first_reason_in_words(weights: Weights, reason: str | None) -> None:
    assert weights.mismatch(layer()) == reason


def test_equal_compares_bits() -> None:
    nan = torch.tensor([math.nan, 0.0])
    assert Weights({"a": nan}).equal(Weights({"a": nan.clone()}))
    other_nan = nan.clone()
    other_nan.view(torch.int32)[0] += 1
    assert other_nan[0].isnan()
    assert not Weights({"a": nan}).equal(Weights({"a": other_nan}))
    assert not Weights({"a": torch.tensor(0.0)}).equal(Weights({"a": torch.tensor(-0.0)}))
    assert not Weights({"a": torch.zeros(1)}).equal(Weights({"a": torch.zeros(1).int()}))
    assert not Weights({"a": torch.zeros(1)}).equal(Weights({"a": torch.zeros(1), "b": torch.zeros(1)}))
    assert layer().equal(Weights(dict(reversed(list(layer().items())))))


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(), (1,), (3, 7), (257,)])
def test_first_non_finite_names_the_tensor(dtype: torch.dtype, bad: float, shape: tuple[int, ...]) -> None:
    good = torch.ones(shape).to(dtype)
    worse = torch.ones(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64).reshape(-1)
    worse[-1] = complex(0, bad) if dtype.is_complex else bad
    worse = worse.to(dtype)
    weights = Weights({"fine": good, "empty": good[None][:0], "bad": worse.reshape(shape), "later": worse})
    assert weights.first_non_finite() == "bad"
    assert Weights({"fine": good}).first_non_finite() is None


def test_huge_finite_values_and_integers_are_finite() -> None:
    weights = Weights(
        {
            "a": torch.full((1000,), torch.finfo(torch.float32).max),
            "b": torch.full((1000,), -65504.0).half(),
            "c": torch.full((3,), 2**31 - 1),
            "d": torch.tensor([True]),
            "e": torch.ones(4, 4).t()[1:],
        }
    )
    assert weights.first_non_finite() is None


def test_reordered_like_takes_order_and_buffers_of_the_template() -> None:
    shuffled = Weights(dict(reversed(list(layer().items()))))
    ordered = shuffled.reordered_like(layer())
    assert list(ordered) == list(layer())
    assert ordered.buffers == {"seen"}
    with pytest.raises(ModelMismatch, match="extra tensor 'evil'"):
        changed(evil=torch.zeros(1)).reordered_like(layer())


def test_raw_bytes_are_in_c_order() -> None:
    matrix = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    assert raw_bytes(matrix.t()).tolist() == [1, 3, 2, 4]
    assert raw_bytes(matrix).data_ptr() == matrix.data_ptr()
    assert raw_bytes(torch.tensor(1.0)).tolist() == [0, 0, 128, 63]
    assert raw_bytes(torch.tensor([1j]).conj()).tolist()[4:] == [0, 0, 128, 191]
