"""The .safetensors format, against the library that defines it and against hostile headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.weights.weights import Weights

TENSORS = {
    "flags": torch.tensor([True, False, True]),
    "w": torch.arange(6.0).reshape(2, 3),
    "brain": torch.tensor([1.5, -2.0]).bfloat16(),
    "half": torch.ones(3).half(),
    "double": torch.tensor(2.0).double(),
    "empty": torch.zeros(0, 4),
    "count": torch.tensor([2**40]),
    "tiny": torch.ones(5).to(torch.float8_e4m3fn),
    "ünïcode": torch.ones(1, dtype=torch.uint8),
}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "modèle 1.safetensors"
    write_model(path, Weights(TENSORS), ModelForm(".safetensors"))
    assert Weights(safetensors.torch.load_file(path)).equal(Weights(TENSORS))


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"format": "pt"})
    weights = read_model(path)
    assert weights.equal(Weights(TENSORS))
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in weights.values())


def test_tensors_keep_their_order_and_are_aligned(tmp_path: Path) -> None:
    write_model(tmp_path / "m", Weights(TENSORS), ModelForm(".safetensors"))
    assert list(read_model(tmp_path / "m")) == list(TENSORS)
    header_bytes = int.from_bytes((tmp_path / "m").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "m").read_bytes()[8 : 8 + header_bytes])
    assert (8 + header_bytes) % 64 == 0
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def encode(header: str, data: bytes = bytes(8)) -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encode(json.dumps({"w": entry()})), None),
        (encode(json.dumps({"w": entry(), "__metadata__": {"format": "pt"}})), None),
        (encode(json.dumps({"w": entry()}), bytes(7)), "tensor 'w': reaches beyond the end of the file"),
        (encode(json.dumps({"w": entry()}), bytes(9)), "its last 1 bytes do not belong to a tensor"),
        (encode(json.dumps({"w": entry(), "v": entry()})), "do not begin at the end"),
        (encode(json.dumps({"w": entry(offsets=(4, 12))}), bytes(12)), "do not begin at the end"),
        (encode(json.dumps({"w": entry(shape=(3,))})), "tensor 'w': its shape (3,) does not fit its 8 bytes"),
        (encode(json.dumps({"w": entry(shape=(-2,))})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(shape=(2.0,))})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(shape=(True, 2))})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(shape="ab")})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(shape=[1] * 1000 + [2])})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(offsets=(8, 0))})), "does not fit its"),
        (encode(json.dumps({"w": entry(offsets=(0,))})), "entry in the header is damaged"),
        (encode(json.dumps({"w": [1]})), "entry in the header is damaged"),
        (encode(json.dumps({"w": entry(shape=(0, 2**63), offsets=(0, 0))}), b""), "tensor 'w'"),
        (encode(json.dumps({"w": entry(dtype="F4")})), "has the dtype 'F4', which fedpkg does not support"),
        (encode(json.dumps({"w": entry(dtype=["F32"])})), "which fedpkg does not support"),
        (encode(json.dumps({"w": entry(dtype="BOOL", shape=(8,))}), bytes(7) + b"\2"), "bytes other than 0 and 1"),
        (encode(json.dumps({"\ud800": entry()})), "entry in the header is damaged"),
        (encode('{"w": 1, "w": 2}'), "it contains a name twice"),
        (encode("{" + '"a":[' * 100_000), "header is damaged"),
        (encode('{"w": NaN}'), "entry in the header is damaged"),
        (encode("{nonsense}"), "header is damaged"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header reaches beyond its end"),
        (encode("{" + " " * (17 << 20) + "}"), "header has 17825794 bytes, more than allowed"),
    ],
    ids=range(26),
)
def test_hostile_header_is_refused_with_its_reason(tmp_path: Path, content: bytes, words: str | None) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    if words is None:
        assert read_model(path).equal(Weights({"w": torch.zeros(2)}))
        return
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_tensors_that_lie_unaligned_are_copied(tmp_path: Path) -> None:
    header = {"b": entry("U8", (1,), (0, 1)), "w": entry("F32", (2,), (1, 9))}
    (tmp_path / "m").write_bytes(encode(json.dumps(header), b"\7" + torch.tensor([1.5, 2.5]).numpy().tobytes()))
    weights = read_model(tmp_path / "m")
    assert weights["w"].tolist() == [1.5, 2.5]
    assert weights["w"].data_ptr() % 4 == 0


def test_dtype_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tensor 'w': a \.safetensors file cannot hold complex128"):
        write_model(tmp_path / "m", Weights({"w": torch.ones(1).to(torch.complex128)}), ModelForm(".safetensors"))
    with pytest.raises(ModelFileError, match="cannot hold this name"):
        write_model(tmp_path / "m", Weights({"__metadata__": torch.ones(1)}), ModelForm(".safetensors"))
