"""Tensors that formats find hard, each through every format, mapped where it can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, read_seed_model, read_sets, write_model, write_sets
from fedpkg.weights.weights import Weights

FORMATS = (".npz", ".safetensors", ".pt", "sets.npz", "sets.safetensors")
_TIED = torch.arange(6.0).reshape(2, 3)
ODD = {
    "float16": {"w": torch.tensor([1.0, -0.0, 65504.0, 6e-8, float("nan"), float("-inf")]).half()},
    "0-d": {"w": torch.tensor(1.5), "n": torch.tensor(7), "flag": torch.tensor(True)},
    "empty": {"w": torch.zeros(0), "rows": torch.zeros(0, 3).half(), "columns": torch.zeros(2, 0, dtype=torch.int64)},
    "transposed": {"w": torch.arange(12.0).reshape(3, 4).t()},
    "strided": {"w": torch.arange(10.0)[1::3], "image": torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last)},
    "strides of nothing": {"one": torch.arange(2.0)[::2], "none": torch.zeros(3, 4)[:, :0:2]},
    "expanded": {"w": torch.tensor([1.0, 2.0]).expand(3, 2)},
    "tied": {"encoder.weight": _TIED, "decoder.weight": _TIED, "part": _TIED[1]},
    "bfloat16": {"w": torch.tensor([1.0, -2.5, 3e38]).bfloat16(), "n": torch.tensor(1)},
}


def write(folder: Path, name: str, tensors: dict[str, Tensor]) -> Path:
    path = folder / f"möd el{name}"
    if name == ".pt":
        torch.save(tensors, path)
    elif name.startswith("sets"):
        write_sets(path, {"x": Weights(tensors), "y": Weights(tensors)}, ModelForm(path.suffix))  # type: ignore[arg-type]
    else:
        write_model(path, Weights(tensors), ModelForm(path.suffix))  # type: ignore[arg-type]
    return path


def read(path: Path) -> Weights:
    if "sets" in path.name:
        sets = read_sets(path)
        assert list(sets) == ["x", "y"]
        assert sets["x"].equal(sets["y"])
        return sets["y"]
    return read_seed_model(path)[0] if path.suffix == ".pt" else read_model(path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", ODD)
def test_odd_tensors_round_trip(tmp_path: Path, name: str, what: str) -> None:
    if what == "bfloat16" and name.endswith("npz"):
        with pytest.raises(ModelFileError, match=r"an \.npz file cannot hold bfloat16") as caught:
            write(tmp_path, name, ODD[what])
        assert caught.value.hint == "use .safetensors"
        assert list(tmp_path.iterdir()) == []
        return
    again = read(write(tmp_path, name, ODD[what]))
    assert list(again) == list(ODD[what])
    assert again.equal(Weights(ODD[what]))


@pytest.mark.parametrize("what", ODD)
def test_pt_seed_is_staged_bit_for_bit_in_the_form_that_can_hold_it(tmp_path: Path, what: str) -> None:
    weights, form = read_seed_model(write(tmp_path, ".pt", ODD[what]))
    assert form == ModelForm(".safetensors" if what == "bfloat16" else ".npz")
    write_model(tmp_path / "staged", weights, form)
    assert read_model(tmp_path / "staged").equal(Weights(ODD[what]))


@pytest.mark.parametrize("name", FORMATS)
def test_big_tensors_are_mapped_not_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, {"big": torch.rand(100_000), "other": torch.rand(300, 300)})
    before = path.read_bytes()
    for tensor in read(path).values():
        assert mapped_at(tensor.data_ptr()).endswith(path.name.rpartition(" ")[2])
        tensor.zero_()  # in memory alone
    assert path.read_bytes() == before


def mapped_at(address: int) -> str:
    """The file that lies at an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_rest = line.split()
        start, end = (int(word, 16) for word in span.split("-"))
        if start <= address < end:
            return line
    return ""


@pytest.mark.parametrize("tensor", [torch.empty(3, device="meta"), torch.eye(3).to_sparse()], ids=["meta", "sparse"])
def test_pt_tensor_that_is_not_plain_numbers_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    with pytest.raises(ModelFileError, match="entry 'w' is not a named dense tensor"):
        read(write(tmp_path, ".pt", {"w": tensor}))


def test_one_number_expanded_to_a_terabyte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="its tensors need 4000000000000 bytes, far more than the file has"):
        read(write(tmp_path, ".pt", {"w": torch.zeros(1).expand(10**12)}))


NOT_DENSE = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse_coo"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), "sparse_csr"),
    "meta": (lambda: torch.empty(3, device="meta"), "meta"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), "quantised"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch calls some of them beta
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".f32"])
@pytest.mark.parametrize("kind", NOT_DENSE)
def test_tensor_that_is_not_dense_is_refused_by_name(tmp_path: Path, kind: str, suffix: str) -> None:
    make, words = NOT_DENSE[kind]
    model = Weights({"fc.weight": make()})
    with pytest.raises(ModelFileError, match=rf"tensor 'fc.weight' is .*{words}") as caught:
        write_model(tmp_path / f"model{suffix}", model, ModelForm(suffix))  # type: ignore[arg-type]
    assert caught.value.hint and caught.value.fields["tensor"] == "fc.weight"
    assert list(tmp_path.iterdir()) == []
