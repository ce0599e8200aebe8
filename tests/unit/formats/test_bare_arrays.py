"""Models of one bare array: FEDn's binaryhelper, androidhelper and numpyarrayhelper."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import BARE, ModelForm, Suffix
from fedpkg.formats.model_file import detect_form, read_model, read_seed_model, read_sets, write_model, write_sets
from fedpkg.weights.weights import Weights

ODD = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 0.0]


@pytest.mark.parametrize(("suffix", "dtype"), [(".f64", np.float64), (".f32", np.float32)])
def test_bytes_are_the_values(tmp_path: Path, suffix: Suffix, dtype: type) -> None:
    values = np.array([0.1, -2, 3e-5, 7], dtype)
    path = tmp_path / f"mödel{suffix}"
    path.write_bytes(values.tobytes())
    weights = read_model(path)
    assert list(weights) == ["0"] and np.array_equal(weights["0"].numpy(), values)
    assert detect_form(path) == ModelForm(suffix, "positions")
    write_model(tmp_path / f"again{suffix}", weights, detect_form(path))
    assert (tmp_path / f"again{suffix}").read_bytes() == values.tobytes()
    assert read_sets(path)[""].equal(weights)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (6, 1), (1, 6)])
def test_text_is_what_numpy_reads_and_writes_to_the_last_bit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savetxt(tmp_path / "m.txt", np.array(ODD).reshape(shape), header="a comment")
    weights = read_model(tmp_path / "m.txt")
    np.testing.assert_array_equal(weights["0"].numpy(), np.loadtxt(tmp_path / "m.txt"), strict=True)
    write_model(tmp_path / "again.txt", weights, ModelForm(".txt", "positions"))
    assert read_model(tmp_path / "again.txt").equal(weights)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "again.txt"), weights["0"].numpy(), strict=True)


def test_single_number_of_text_has_no_dimensions(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("3.5\n")
    assert read_model(tmp_path / "m.txt")["0"].shape == ()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("m.f64", b"123456789", "its 9 bytes are not a whole number of 8-byte values"),
        ("m.f32", b"12345", "its 5 bytes are not a whole number of 4-byte values"),
        ("m.f32", b"", "the file is empty"),
        ("m.txt", b"# nothing\n\n", "its text has no numbers"),
        ("m.txt", b"1 2\n3\n", "its text is not a table: the lines have different numbers"),
        ("m.txt", b"1 two\n", "its text is not a table of numbers"),
        ("m.txt", b"\xff\x00\n", "its text is not a table of numbers"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=error):
        read_model(tmp_path / name)


@pytest.mark.parametrize("suffix", BARE)
def test_more_values_than_allowed_are_refused(tmp_path: Path, suffix: Suffix) -> None:
    dtype = torch.float32 if suffix == ".f32" else torch.float64
    path = tmp_path / f"m{suffix}"
    write_model(path, Weights({"0": torch.zeros(10, dtype=dtype)}), ModelForm(suffix))
    read_model(path, max_bytes=80)
    with pytest.raises(ModelFileError, match="bigger than the limit of 39 bytes"):
        read_model(path, max_bytes=39)


@pytest.mark.parametrize(
    "tensors",
    [
        {"0": torch.zeros(2), "1": torch.zeros(2)},
        {"0": torch.zeros(2, dtype=torch.int64)},
        {"0": torch.zeros(2, 2, 2, dtype=torch.float64)},
        {"0": torch.zeros(0, dtype=torch.float64)},
    ],
)
@pytest.mark.parametrize("suffix", BARE)
def test_model_that_does_not_fit_the_form_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: Suffix
) -> None:
    with pytest.raises(ModelFileError, match=f"a {suffix} file holds one array"):
        write_model(tmp_path / f"m{suffix}", Weights(tensors), ModelForm(suffix))
    assert not (tmp_path / f"m{suffix}").exists()


def test_sets_have_no_bare_form(tmp_path: Path) -> None:
    sets = {"x": Weights({"0": torch.zeros(2)}), "y": Weights({"0": torch.zeros(2)})}
    with pytest.raises(ModelFileError, match="holds one array"):
        write_sets(tmp_path / "m.f32", sets, ModelForm(".f32"))


def test_seed_of_any_name_is_read_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    np.arange(4.0).tofile(tmp_path / "seed.npz")
    weights, form = read_seed_model(tmp_path / "seed.npz", bare=".f64")
    assert form == ModelForm(".f64", "positions") and weights["0"].tolist() == [0, 1, 2, 3]
    np.savez(tmp_path / "real.npz", **{"0": np.arange(4.0)})  # type: ignore[arg-type]
    weights, form = read_seed_model(tmp_path / "real.npz", bare=".f64")
    assert form == ModelForm(".f64", "positions") and weights["0"].tolist() == [0, 1, 2, 3]


def test_keras_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelFileError, match="HDF5 file, as written by Keras") as caught:
        read_seed_model(tmp_path / "model.h5")
    assert "model.get_weights()" in (caught.value.hint or "")


RANDOM = np.random.default_rng(7)
CONTENTS: dict[str, tuple[bytes, Suffix | None]] = {
    "weights of 8 bytes": (RANDOM.normal(0, 0.1, 500).tobytes(), ".f64"),
    "weights of 4 bytes": (RANDOM.normal(0, 0.1, 500).astype(np.float32).tobytes(), ".f32"),
    "an odd number of 4 bytes": (RANDOM.uniform(-1, 1, 101).astype(np.float32).tobytes(), ".f32"),
    "with zeros": (np.concatenate([np.zeros(50), RANDOM.normal(0, 1, 450)]).tobytes(), ".f64"),
    "text": (b"# weights\n1.5e-3 2\n-3 4.25\n", ".txt"),
    "ones, which are plausible in both": (np.ones(100, np.float32).tobytes(), None),
    "zeros, which are both": (np.zeros(100).tobytes(), None),
    "few values": (RANDOM.normal(0, 0.1, 3).tobytes(), None),
    "words": (b"hello " * 100, None),
    "nan": (np.full(100, np.nan).tobytes(), None),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_seed_without_a_suffix_is_read_as_what_its_content_shows(tmp_path: Path, what: str) -> None:
    content, suffix = CONTENTS[what]
    path = tmp_path / "seed"
    path.write_bytes(content)
    if suffix is None:
        with pytest.raises(ModelFileError, match=r"is neither an \.npz nor") as raised:
            read_seed_model(path)
        assert raised.value.hint is not None and "helper: binaryhelper" in raised.value.hint
        return
    weights, form = read_seed_model(path)
    assert form == ModelForm(suffix, "positions")
    (tmp_path / f"seed{suffix}").write_bytes(content)
    assert weights.equal(read_model(tmp_path / f"seed{suffix}"))


def test_seed_of_torch_is_known_by_its_content(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(2, 3)}, tmp_path / "seed")
    weights, form = read_seed_model(tmp_path / "seed")
    assert weights["fc.weight"].tolist() == [[1.0] * 3] * 2 and form == ModelForm(".npz")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(ModelFileError, match="contains no tensors"):
        read_seed_model(tmp_path / "empty.pt")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def _hostile(folder: Path) -> Iterator[Path]:
    """Seed models that cannot be used."""
    for name, what in {"a.pt": {"a": Hostile()}, "b.pt": [torch.ones(1)], "c.pt": {"a": 1}}.items():
        torch.save(what, folder / name)
        yield folder / name
    np.savez(folder / "objects.npz", **{"0": np.array([Hostile()], object)})
    (folder / "pickle").write_bytes(pickle.dumps(Hostile()))
    (folder / "header.safetensors").write_bytes(b"\xff" * 7 + b"\0{}")
    (folder / "empty.npz").touch()
    (folder / "folder.npz").mkdir()
    np.savez(folder / "whole.npz", **{"0": np.ones(100)})
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:200])
    with zipfile.ZipFile(folder / "big.npz", "w") as archive:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (250000000,), }"
        archive.writestr("0.npy", b"\x93NUMPY\x01\0v\0" + head.ljust(117) + b"\n")
    for name in ("objects.npz", "pickle", "header.safetensors", "empty.npz", "folder.npz", "cut.npz", "big.npz"):
        yield folder / name
    yield folder / "absent.npz"


def test_error_of_a_seed_always_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in _hostile(tmp_path):
        with pytest.raises(ModelFileError) as raised:
            read_seed_model(path)
        assert raised.value.message.startswith(f"{path}: "), path
        assert raised.value.hint, path
    assert not (tmp_path / "harm").exists()
