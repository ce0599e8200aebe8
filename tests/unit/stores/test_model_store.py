"""Model files: whole, read-only, named by their content."""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.errors import NotFound, StoreError
from fedpkg.stores.models import ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "die Modelle ✓")


def files(store: ModelStore) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_file_is_named_by_its_content_and_read_only(store: ModelStore) -> None:
    digest, path, size_bytes = store.put(".npz", lambda file: file.writelines([b"weights", b"!"]))
    assert digest == hashlib.sha256(b"weights!").hexdigest()
    assert path == store.path(digest, ".npz") == store.folder / digest[:2] / f"{digest}.npz"
    assert path.read_bytes() == b"weights!"
    assert size_bytes == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert store.verify(digest) == path
    assert files(store) == [path]


def test_same_content_is_not_written_again(store: ModelStore) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"same")

    digest, path, _ = store.put(".npz", write)
    before = path.stat()
    assert store.put(".npz", write) == (digest, path, 4)
    assert path.stat().st_ino == before.st_ino
    assert files(store) == [path]


@pytest.mark.parametrize("compressed", [False, True])
def test_numpy_writes_archives_into_it(store: ModelStore, compressed: bool) -> None:
    arrays = {"w": np.arange(100_000, dtype=np.float32), "bias/ü": np.zeros((0, 3)), "n": np.int64(3)}
    save = np.savez_compressed if compressed else np.savez
    digest, path, size_bytes = store.put(".npz", lambda file: save(file, **arrays))  # zip goes back to its headers
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.stat().st_size == size_bytes
    assert zipfile.ZipFile(path).testzip() is None
    with np.load(path) as loaded:
        assert {name: loaded[name].tobytes() for name in loaded} == {
            n: np.asarray(a).tobytes() for n, a in arrays.items()
        }
    assert store.verify(digest) == path


def test_single_array_passes_through_the_hash(store: ModelStore) -> None:
    array = np.arange(1000.0)
    digest, path, _ = store.put(".npy", lambda file: np.save(file, array))
    expected = io.BytesIO()
    np.save(expected, array)
    assert path.read_bytes() == expected.getvalue()
    assert store.verify(digest) == path


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=20)), max_size=8), st.none() | st.integers(0, 30))
def test_digest_is_that_of_the_file_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], size: int | None
) -> None:
    def write(file: BinaryIO) -> None:
        for offset, data in writes:
            file.seek(offset)
            assert file.write(data) == len(data)
            assert file.tell() == offset + len(data)
        if size is not None:
            file.truncate(size)

    expected = io.BytesIO()
    for offset, data in writes:
        expected.seek(offset)
        expected.write(data)
    if size is not None:
        expected.truncate(size)
    digest, path, _ = ModelStore(tmp_path_factory.mktemp("m")).put(".npz", write)
    found = path.read_bytes()
    assert digest == hashlib.sha256(found).hexdigest()
    if size is None or size <= len(expected.getvalue()):  # a file grows by truncate, BytesIO does not
        assert found == expected.getvalue()


def test_failed_writer_leaves_nothing(store: ModelStore) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise FileNotFoundError("the caller's own file")

    with pytest.raises(FileNotFoundError, match="the caller's own file"):
        store.put(".npz", write)
    assert files(store) == []


def test_damaged_model_is_found_and_healed(store: ModelStore) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"precious weights")

    digest, path, _ = store.put(".npz", write)
    path.chmod(0o644)
    path.write_bytes(b"precious")
    with pytest.raises(StoreError, match="is damaged") as caught:
        store.verify(digest)
    assert "restore it" in str(caught.value)
    store.put(".npz", write)
    assert store.verify(digest).read_bytes() == b"precious weights"
    path.unlink()
    with pytest.raises(NotFound, match="is missing"):
        store.verify(digest)


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"cannot keep a model in .*models") as caught:
        ModelStore(tmp_path / "models").put(".npz", lambda file: None)
    assert "--home" in str(caught.value)


def test_suffix_cannot_lead_out_of_the_folder(store: ModelStore) -> None:
    with pytest.raises(ValueError, match="suffix"):
        store.put("./../x", lambda file: None)


@pytest.mark.parametrize("how", ["plain", "zip"])
def test_full_disk_is_an_error_and_leaves_no_partial_file(tmp_path: Path, how: str) -> None:
    # A limit on the size of files stands in for the full disk: a write is cut short, then fails.
    code = """
import resource, sys, zipfile
from pathlib import Path
from fedpkg.errors import StoreError
from fedpkg.stores.models import ModelStore
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def plain(file):
    file.write(b"x" * 70_000)
    file.write(b"x" * 70_000)
def zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w", b"x" * 140_000)
try:
    ModelStore(Path(sys.argv[1])).put(".npz", {"plain": plain, "zip": zip}[sys.argv[2]])
except StoreError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "models"), how],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "cannot keep a model" in output.stdout, output.stderr
    assert "free space" in output.stdout
    assert list((tmp_path / "models").iterdir()) == []
