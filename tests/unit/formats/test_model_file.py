"""Model files in every form: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import detect_form, dump_model, read_model, read_seed_model, write_model
from fedpkg.weights.weights import Weights

NPZ, SAFETENSORS = ModelForm(".npz"), ModelForm(".safetensors")
FORMS = [ModelForm(suffix, keys) for suffix in (".npz", ".safetensors") for keys in ("names", "positions")]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mödels with spaces"
    folder.mkdir()
    return folder


def model() -> Weights:
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return Weights(
        {
            "fc.weight": weight,
            "fc/ünïcode": weight.t(),
            "scalar": torch.tensor(1.5, dtype=torch.float64),
            "empty": torch.zeros(0, 3),
            "tied": weight,
            "flags": torch.tensor([True, False, True]),
            "count": torch.tensor(7),
            "bytes": torch.arange(5, dtype=torch.uint8),
            "half": torch.tensor([1.0, -0.0, 65504.0]).half(),
            "nan": torch.tensor([float("nan"), float("inf")]),
            "short": torch.arange(3, dtype=torch.int16),
            "every other": torch.arange(10.0)[::2],
            "wave": torch.tensor([1 + 2j]).conj(),
        }
    )


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_keeps_every_bit(folder: Path, form: ModelForm) -> None:
    path = folder / f"global model{form.suffix}"
    write_model(path, model(), form, durable=True)
    again = read_model(path)
    expected = model()
    if form.keys == "positions":
        expected = Weights({str(i): tensor for i, tensor in enumerate(model().values())})
    assert list(again) == list(expected)
    assert again.equal(expected)
    assert detect_form(path) == form
    assert read_seed_model(path)[1] == form


DTYPES = {
    ".npz": "float16 float32 float64 complex64 complex128 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64",
    ".safetensors": "float16 float32 float64 complex64 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 bfloat16 "
    "float8_e4m3fn float8_e5m2",
}


@pytest.mark.parametrize("form", [NPZ, SAFETENSORS], ids=lambda form: form.suffix)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_model_survives_a_round_trip(tmp_path: Path, form: ModelForm, data: st.DataObject) -> None:
    tensors = {}
    names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
    for name in data.draw(st.lists(names, unique=True, max_size=6)):
        dtype = getattr(torch, data.draw(st.sampled_from(DTYPES[form.suffix].split())))
        shape = data.draw(st.lists(st.integers(0, 4), max_size=4))
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, [int(np.prod(shape)) * dtype.itemsize])
        tensors[name] = raw.to(torch.uint8).view(dtype).reshape(shape)
    path = tmp_path / "m"
    write_model(path, Weights(tensors), form)
    again = read_model(path)
    assert again.equal(Weights(tensors))
    if detect_form(path).keys == "names":
        assert list(again) == list(tensors)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_are_mapped_aligned_and_writable_without_touching_the_file(folder: Path, form: ModelForm) -> None:
    path = folder / "m"
    write_model(path, Weights({"odd": torch.ones(3).bool(), "w": torch.ones(1000), "n": torch.ones(3).int()}), form)
    before = path.read_bytes()
    path.chmod(0o444)
    weights = read_model(path)
    w = weights["w" if form.keys == "names" else "1"]
    assert w.data_ptr() % (64 if form.suffix == ".npz" else 4) == 0
    w.add_(1.0)
    assert w.sum() == 2000
    assert path.read_bytes() == before


# The sha256 of the file that write_model() makes of golden().
GOLDEN = {
    ".npz": "7023906b6ca1b1df3e5c1a6f8ff73d207e3cec9115749bb604726f752b41ae45",
    ".safetensors": "975dd3c6f481efcfea73d632ce9d8edb3b5e2e092db488244b1f66f0b266e835",
}


def golden() -> Weights:
    return Weights(
        {
            "fc.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
            "fc.bias": torch.tensor([0.5, -0.5]),
            "ü": torch.tensor(3),
        }
    )


@pytest.mark.parametrize("form", [NPZ, SAFETENSORS], ids=lambda form: form.suffix)
def test_bytes_of_a_model_never_change(folder: Path, form: ModelForm) -> None:
    path = folder / "m"
    write_model(path, golden(), form)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN[form.suffix]


class Digest(io.RawIOBase):
    """What a content-addressed store writes through."""

    def __init__(self) -> None:
        self.bytes = b""

    def write(self, data: object) -> int:
        self.bytes += bytes(data)  # type: ignore[call-overload]
        return len(self.bytes)


@pytest.mark.parametrize("form", FORMS)
def test_dump_writes_the_same_bytes_to_a_file_that_cannot_seek(folder: Path, form: ModelForm) -> None:
    weights = Weights({"big": torch.arange(300_000.0), "small": torch.ones(2), "big too": torch.arange(300_001.0)})
    write_model(folder / "m", weights, form)
    digest = Digest()
    dump_model(digest, weights, form)  # type: ignore[arg-type]
    assert digest.bytes == (folder / "m").read_bytes()
    assert read_model(folder / "m").equal(weights) or form.keys == "positions"


def test_npz_cannot_hold_bfloat16_and_says_what_can(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tensor 'w': an \.npz file cannot hold bfloat16") as caught:
        write_model(folder / "m.npz", Weights({"w": torch.ones(2).bfloat16()}), NPZ)
    assert "safetensors" in str(caught.value)
    assert str(folder / "m.npz") in caught.value.message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("form", [NPZ, SAFETENSORS], ids=lambda form: form.suffix)
def test_names_that_are_not_unicode_are_refused(folder: Path, form: ModelForm) -> None:
    with pytest.raises(ModelFileError, match="name"):
        write_model(folder / "m", Weights({"\ud800": torch.ones(2)}), form)


def test_writing_where_no_folder_can_be_is_a_model_file_error(folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_model(folder / "file" / "m.npz", golden(), NPZ)


def test_form_is_told_by_content_not_by_suffix(folder: Path) -> None:
    write_model(folder / "m.npz", golden(), SAFETENSORS)
    assert detect_form(folder / "m.npz") == SAFETENSORS
    assert read_model(folder / "m.npz").equal(golden())


def test_positions_come_in_numeric_order(folder: Path) -> None:
    np.savez(folder / "m.npz", **{str(i): np.full(1, i) for i in reversed(range(12))})
    assert detect_form(folder / "m.npz") == ModelForm(".npz", "positions")
    assert list(read_model(folder / "m.npz")) == [str(i) for i in range(12)]
    np.savez(folder / "m.npz", **{"0": np.ones(1), "2": np.ones(1)})
    assert detect_form(folder / "m.npz") == NPZ


@pytest.mark.parametrize("form", FORMS)
def test_limit_on_bytes(folder: Path, form: ModelForm) -> None:
    path = folder / "m"
    write_model(path, model(), form)
    assert len(read_model(path, max_bytes=model().num_bytes)) == len(model())
    with pytest.raises(ModelFileError, match=f"bigger than the limit of {model().num_bytes - 1} bytes"):
        read_model(path, max_bytes=model().num_bytes - 1)


@pytest.mark.parametrize("form", [NPZ, SAFETENSORS], ids=lambda form: form.suffix)
def test_file_cut_short_anywhere_is_an_error(folder: Path, form: ModelForm) -> None:
    path = folder / "m"
    write_model(path, golden(), form)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError) as caught:
            read_model(path)
        assert str(path) in caught.value.message
        if length > 9:
            assert "truncated" in caught.value.message


def test_what_is_not_a_model_file(folder: Path) -> None:
    path = folder / "m.npz"

    def message() -> str:
        with pytest.raises(ModelFileError) as caught:
            read_model(path)
        return str(caught.value)

    assert "No such file" in message()
    path.mkdir()
    assert "not a regular file" in message()
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in message()
    path.unlink()
    path.write_bytes(b"")
    assert "the file is empty" in message()
    path.write_bytes(b"hello, this is not a model")
    assert "neither an .npz nor a .safetensors file" in message()
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert caught.value.hint == (
        "write it with numpy.savez() or safetensors.torch.save_file(); if FEDn's binaryhelper, androidhelper or "
        "numpyarrayhelper wrote it, set that one: helper: binaryhelper"
    )
    path.write_bytes(pickle.dumps({"w": [1.0] * 100}))
    assert "Python pickle, which is never loaded" in message()
    with open(path, "wb") as file:
        np.save(file, np.ones(3))
    assert "single .npy array" in message()
    torch.save({"w": torch.ones(2)}, path)
    assert "a file of torch.save()" in message()


def _noise() -> st.SearchStrategy[bytes]:
    starts = [b"", b"PK\3\4", b"PK\5\6", b"\x93NUMPY\1\0", (20).to_bytes(8, "little") + b'{"a":']
    return st.builds(bytes.__add__, st.sampled_from(starts), st.binary(max_size=300))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_noise())
def test_noise_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    try:
        assert isinstance(read_model(tmp_path / "m"), Weights)
    except ModelFileError:
        pass


def _valid_files() -> list[bytes]:
    files = []
    for form in (NPZ, SAFETENSORS):
        file = io.BytesIO()
        dump_model(file, golden(), form)
        files.append(file.getvalue())
    arrays = {name: tensor.numpy() for name, tensor in golden().items()}
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)  # type: ignore[arg-type]
        files.append(file.getvalue())
    return files


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.sampled_from(_valid_files()),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
)
def test_mutated_file_is_an_error_or_a_model(tmp_path: Path, content: bytes, edits: list[tuple[float, bytes]]) -> None:
    mutated = bytearray(content)
    for where, piece in edits:
        start = int(where * (len(mutated) - len(piece)))
        mutated[start : start + len(piece)] = piece
    (tmp_path / "m").write_bytes(mutated)
    try:
        weights = read_model(tmp_path / "m", max_bytes=1 << 20)
    except ModelFileError:
        return
    weights.first_non_finite()
    assert weights.equal(weights.clone())


class TestSeedModels:
    def test_state_dict_is_staged_as_npz_with_names(self, folder: Path) -> None:
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        for suffix, content in (
            (".pt", module.state_dict()),
            (".pth", {"state_dict": module.state_dict(), "epoch": 3}),
        ):
            torch.save(content, folder / f"seed{suffix}")
            weights, form = read_seed_model(folder / f"seed{suffix}")
            assert form == NPZ
            assert weights.equal(Weights(module.state_dict()))

    def test_parameters_and_old_torch_files_are_accepted(self, folder: Path) -> None:
        torch.save({"w": torch.nn.Parameter(torch.ones(2))}, folder / "seed.pt", _use_new_zipfile_serialization=False)
        weights, _ = read_seed_model(folder / "seed.pt")
        assert not weights["w"].requires_grad

    def test_bfloat16_is_staged_as_safetensors(self, folder: Path) -> None:
        torch.save({"w": torch.ones(2).bfloat16()}, folder / "seed.pt")
        assert read_seed_model(folder / "seed.pt")[1] == SAFETENSORS

    @pytest.mark.parametrize("zipped", [True, False])
    def test_pickled_code_is_never_run(self, folder: Path, zipped: bool) -> None:
        canary = folder / "canary"
        torch.save({"w": Canary(str(canary))}, folder / "seed.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            ModelFileError, match="it contains other objects than tensors, which are never loaded"
        ) as caught:
            read_seed_model(folder / "seed.pt")
        assert not canary.exists()
        assert "weights_only" not in str(caught.value), "no advice to load it all the same"

    @pytest.mark.parametrize("content", [b"", b"junk", b"PK\3\4junk", b"\x80\x02junk"])
    def test_damaged_file_is_an_error(self, folder: Path, content: bytes) -> None:
        (folder / "seed.pt").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"cannot be read: (torch\.save\(\) did not|it is damaged)"):
            read_seed_model(folder / "seed.pt")

    @pytest.mark.parametrize("name", ["seed.pt", "seed.npz", "seed.safetensors"])
    def test_seed_model_without_tensors_is_an_error(self, folder: Path, name: str) -> None:
        if name == "seed.pt":
            torch.save({}, folder / name)
        else:
            write_model(folder / name, Weights({}), NPZ if name == "seed.npz" else SAFETENSORS)
        with pytest.raises(ModelFileError, match="contains no tensors"):
            read_seed_model(folder / name)

    def test_absent_file_is_an_error(self, folder: Path) -> None:
        with pytest.raises(ModelFileError, match="No such file"):
            read_seed_model(folder / "seed.pt")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ([torch.ones(1)], "contains a list"),
            ({"w": 3}, "entry 'w' is not a named dense tensor"),
            ({1: torch.ones(1)}, "entry 1 is not"),
            ({"w": torch.ones(2, 2).to_sparse()}, "entry 'w' is not"),
        ],
    )
    def test_what_is_not_a_dictionary_of_tensors(self, folder: Path, content: object, reason: str) -> None:
        torch.save(content, folder / "seed.pt")
        with pytest.raises(ModelFileError, match=reason):
            read_seed_model(folder / "seed.pt")


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path(self.path), "ran")
