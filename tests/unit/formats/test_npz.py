"""The .npz format, against numpy's own reader and writer and against hostile files."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.formats.npz import dump_npz
from fedpkg.weights.weights import Weights

ARRAYS = {
    "fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.float64),
    "odd name": np.array([1, 2, 3], dtype=np.int16),
    "scalar": np.array(2.5, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
    "flags": np.array([True, False]),
    "unsigned": np.array([1, 65535], dtype=np.uint16),
    "big endian": np.arange(4, dtype=">f4").reshape(2, 2),
    "big endian too": np.asfortranarray(np.array([[1 + 2j, 3 - 4j]], dtype=">c16")),
    "half": np.array([1.5, -0.0], dtype=np.float16),
    "ünïcode/äöü": np.ones(3),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "übung 1.npz"
    save(path, **ARRAYS)
    weights = read_model(path)
    assert list(weights) == list(ARRAYS)
    for name, array in ARRAYS.items():
        tensor = weights[name]
        assert tensor.shape == array.shape
        assert str(tensor.dtype) == f"torch.{array.dtype.name}"
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % tensor.element_size() == 0
        np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_a_model_big_enough_for_several_steps(tmp_path: Path, save: Callable[..., None]) -> None:
    array = np.random.default_rng(0).normal(size=(500, 700)).astype(np.float32)
    save(tmp_path / "m.npz", w=array, zeros=np.zeros(1_000_000))
    weights = read_model(tmp_path / "m.npz", max_bytes=array.nbytes + 8_000_000)
    np.testing.assert_array_equal(weights["w"].numpy(), array)
    assert weights["zeros"].sum() == 0


@pytest.mark.parametrize("zip64_above", [0xFFFFFFFE, 0, 200])
def test_numpy_reads_what_we_write_with_and_without_zip64(tmp_path: Path, zip64_above: int) -> None:
    path = tmp_path / "m.npz"
    tensors = {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in ARRAYS.items()}
    with open(path, "wb") as file:
        dump_npz(file, tensors.items(), zip64_above=zip64_above)
    with np.load(path, allow_pickle=False) as loaded:
        assert loaded.files == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert read_model(path).equal(Weights(tensors))
    for tensor in read_model(path).values():
        assert tensor.numel() == 0 or tensor.data_ptr() % 64 == 0


def test_model_without_tensors(tmp_path: Path) -> None:
    write_model(tmp_path / "m.npz", Weights({}), ModelForm(".npz"))
    assert len(read_model(tmp_path / "m.npz")) == 0
    with np.load(tmp_path / "m.npz") as loaded:
        assert loaded.files == []


# ---------------------------------------------------------------------------------------------------- hostile files


def npy(descr: str = "'<f4'", shape: str = "(2,)", order: str = "False", data: bytes = bytes(8)) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def archive(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, content in members.items():
            out.writestr(f"{name}.npy", content)
    return file.getvalue()


def reason(tmp_path: Path, content: bytes, max_bytes: int | None = None) -> str:
    path = tmp_path / "update.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        read_model(path, max_bytes=max_bytes)
    assert str(path) in caught.value.message
    return caught.value.message


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pickle_inside_an_npz_is_never_run(tmp_path: Path, save: Callable[..., None]) -> None:
    canary = tmp_path / "canary"
    file = io.BytesIO()
    save(file, w=np.array([Canary(canary)], dtype=object))
    message = reason(tmp_path, file.getvalue())
    assert "tensor 'w': contains a pickle" in message
    assert not canary.exists()
    bare = archive(w=b"\x80\x04cos\nsystem\n")
    assert "tensor 'w': is not a .npy array" in reason(tmp_path, bare)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (npy(descr="[('a', '<f4'), ('b', '<i4')]"), "structured dtype"),
        (npy(descr="('<f4', (2,))"), "structured dtype"),
        (npy(descr="'<U4'"), "numpy dtype '<U4'"),
        (npy(descr="'|V2'"), "need .safetensors"),
        (npy(descr="'<M8[s]'"), "numpy dtype"),
        (npy(descr="'<f16'"), "numpy dtype"),
        (npy(descr="''"), "numpy dtype"),
        (npy(descr="'|O'"), "contains a pickle"),
        (npy(descr="'O'"), "contains a pickle"),
        (npy(shape="(3,)"), "its shape (3,) needs 12 bytes, but it has 8"),
        (npy(shape="(1,)"), "needs 4 bytes"),
        (npy(shape="(-2,)"), "header is damaged"),
        (npy(shape="(2.0,)"), "header is damaged"),
        (npy(shape="[2]"), "header is damaged"),
        (npy(shape="(" + "1," * 65 + "2)"), "66 dimensions"),
        (npy(shape="(0, 99999999999999999999)", data=b""), "tensor 'w'"),
        (npy(shape="(0, 4611686018427387904, 4611686018427387904)", data=b""), "tensor 'w'"),
        (npy(shape="(" + "9" * 5000 + ",)"), "tensor 'w'"),
        (npy(shape="(" + "9" * 4000 + ", " + "9" * 4000 + ")"), "a shape that tensors cannot have"),
        (npy(order="None"), "header is damaged"),
        (npy(descr="__import__('os')"), "header is damaged"),
        (npy(descr="'|b1'", data=b"\1\2"), "bytes other than 0 and 1"),
        (npy().replace(b"NUMPY\1\0", b"NUMPY\4\0"), ".npy version 4.0, which is unknown"),
        (npy()[:20], "truncated or too long"),
        (npy()[:9], "not a .npy array"),
        (b"", "not a .npy array"),
        (b"\x93NUMPY\2\0" + struct.pack("<L", 1 << 31) + bytes(100), "truncated or too long"),
        (b"\x93NUMPY\1\0" + struct.pack("<H", 60_000) + b" " * 60_000, "truncated or too long"),
        (b"\x93NUMPY\1\0" + struct.pack("<H", 4) + b"    ", "header is damaged"),
        (b"\x93NUMPY\1\0" + struct.pack("<H", 0) + bytes(10), "header is damaged"),
        (b"\x93NUMPY\3\0" + struct.pack("<L", 4) + b"\xff\xff\xff\xff", "tensor 'w'"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unusable_array_is_refused_with_its_reason(tmp_path: Path, member: bytes, words: str, method: int) -> None:
    message = reason(tmp_path, archive(method, fine=npy(), w=member))
    assert "tensor 'w'" in message
    assert words in message


def test_headers_of_other_writers_are_read(tmp_path: Path) -> None:
    header = b"""{"shape": (2 ,), "descr": "<f4", 'fortran_order' : False}"""
    for version, length in ((1, struct.pack("<H", len(header))), (2, struct.pack("<L", len(header)))):
        (tmp_path / "m").write_bytes(archive(w=b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(8)))
        assert read_model(tmp_path / "m").equal(Weights({"w": torch.zeros(2)}))


def test_archive_must_hold_arrays_only_once_each_and_open(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("w.npy", npy())
        out.writestr("readme.txt", "hello")
    assert "member 'readme.txt' is not a .npy array" in reason(tmp_path, file.getvalue())

    twice = archive(v=npy(), w=npy()).replace(b"v.npy", b"w.npy")
    assert "tensor 'w': the file contains it twice" in reason(tmp_path, twice)

    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "has a compression method" in reason(tmp_path, archive(method, w=npy()))

    encrypted = bytearray(archive(w=npy()))
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    assert "tensor 'w': is encrypted" in reason(tmp_path, bytes(encrypted))


def test_zip_header_must_agree_with_the_directory(tmp_path: Path) -> None:
    content = archive(w=npy())
    assert "differ" in reason(tmp_path, content.replace(b"w.npy", b"v.npy", 1))
    assert "zip header is damaged" in reason(tmp_path, archive(v=npy()) + content.replace(b"PK\3\4", b"PK\3\3"))

    directory = content.index(b"PK\1\2")
    for offset, field in ((20, "compressed size"), (24, "size"), (42, "offset")):
        hostile = bytearray(content)
        hostile[directory + offset : directory + offset + 4] = struct.pack("<L", 0x7FFFFFFF)
        assert reason(tmp_path, bytes(hostile)), field


def test_compressed_member_never_grows_beyond_its_shape(tmp_path: Path) -> None:
    bomb = archive(zipfile.ZIP_DEFLATED, w=npy(shape="(2,)", data=bytes(50_000_000)))
    assert len(bomb) < 100_000
    assert "needs 8 bytes, but it has 50000000" in reason(tmp_path, bomb)

    # The same, with a directory that lies about the size.
    hostile = bytearray(bomb)
    size_at = hostile.index(b"PK\1\2") + 24
    hostile[size_at : size_at + 4] = struct.pack("<L", len(npy()))
    assert "contain more than its shape needs" in reason(tmp_path, bytes(hostile))

    honest = archive(zipfile.ZIP_DEFLATED, w=npy(shape="(12500000,)", data=bytes(50_000_000)))
    assert "bigger than the limit of 1000000 bytes" in reason(tmp_path, honest, max_bytes=1_000_000)

    # A shape and a directory that agree on an impossible size.
    impossible = bytearray(archive(zipfile.ZIP_DEFLATED, w=npy(shape="(1000000000,)")))
    size_at = impossible.index(b"PK\1\2") + 24
    impossible[size_at : size_at + 4] = struct.pack("<L", len(npy(shape="(1000000000,)")) - 8 + 4_000_000_000)
    assert "cannot have the size that" in reason(tmp_path, bytes(impossible))


def test_damaged_compressed_bytes_are_noticed(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=1000).astype("<f4").tobytes()
    content = bytearray(archive(zipfile.ZIP_DEFLATED, w=npy(shape="(1000,)", data=data)))
    content[2000] ^= 0x10
    message = reason(tmp_path, bytes(content))
    assert any(words in message for words in ("checksum is wrong", "are damaged", "truncated", "contain more"))


def test_huge_directory_is_refused(tmp_path: Path) -> None:
    content = archive(w=npy())
    directory = content.index(b"PK\1\2")
    size = 17 << 20
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, directory, 0)
    assert "zip directory has" in reason(tmp_path, content[:directory] + bytes(size) + end)


def test_file_without_a_zip_directory_says_that_it_is_truncated(tmp_path: Path) -> None:
    content = archive(w=npy())
    assert "truncated or damaged: its zip directory" in reason(tmp_path, content[: len(content) // 2])
    assert "not a usable zip file" in reason(tmp_path, b"PK\5\6" + bytes(10))
