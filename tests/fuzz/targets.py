"""What is fuzzed: functions that take any bytes, and may raise nothing but fedpkg's own errors."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedpkg.compute_package.app import read_app
from fedpkg.compute_package.signing import read_public_key, read_signature_file
from fedpkg.compute_package.spec import read_spec
from fedpkg.compute_package.unpack import open_package, package_problems
from fedpkg.config import LimitsConfig
from fedpkg.errors import FedpkgError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.metadata import num_examples, read_metadata, read_metrics
from fedpkg.formats.model_file import detect_form, read_model, read_seed_model, read_sets, write_model, write_sets
from fedpkg.shown import shown
from fedpkg.weights.weights import Weights

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """``run`` takes the bytes of a file; ``seeds`` are good files to start from."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@contextmanager
def _file(data: bytes, name: str) -> Iterator[Path]:
    """These bytes in a folder of their own, beside which nothing may appear."""
    place = Path(tempfile.mkdtemp(prefix="fedpkg-fuzz-"))
    try:
        path = place / "a" / "b" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        yield path
        assert {entry.name for entry in place.iterdir()} == {"a"}
        assert {entry.name for entry in (place / "a").iterdir()} == {"b"}
        assert {entry.name for entry in path.parent.iterdir()} <= {name, "cache"}
    finally:
        shutil.rmtree(place)


# ---- packages


def _spec(data: bytes) -> None:
    with _file(data, "fedn.yaml") as path:
        try:
            spec = read_spec(path)
        except FedpkgError as error:
            assert shown(error.message) == error.message, "it has hidden characters"
            return
    assert spec.entry_points
    assert all(entry_point.command.strip() for entry_point in spec.entry_points.values())


def _app(data: bytes) -> None:
    with _file(data, "pyproject.toml") as path:
        try:
            read_app(path)
        except FedpkgError as error:
            assert shown(error.message) == error.message, "it has hidden characters"
            assert len(error.message) < 3000


def _archive(data: bytes) -> None:
    with _file(data, "package.tar.gz") as path:
        cache = path.parent / "cache"
        try:
            package = open_package(path, cache, limits=LimitsConfig(package_bytes=MAX_BYTES, package_members=100))
        except FedpkgError as error:
            assert "\n" not in error.message and len(error.message) < 3000
            assert not cache.exists() or [entry.name for entry in cache.iterdir()] == [".lock"]
            return
        assert package_problems(package.root.parent) == []
        for found in package.root.rglob("*"):
            assert found.resolve().is_relative_to(package.root.resolve())
        # What is found in the cache is what would be unpacked.
        again = open_package(path, cache, limits=LimitsConfig(package_bytes=MAX_BYTES, package_members=100))
        assert again == package


def _tar(data: bytes) -> None:
    """Headers get the checksum that they should have, so that what is in them is looked at."""
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            total = sum(blocks[start : start + 148]) + sum(blocks[start + 156 : start + 512]) + 8 * 32
            blocks[start + 148 : start + 156] = b"%06o\0 " % total
    _archive(bytes(blocks))


def _signature(data: bytes) -> None:
    with _file(data, "package.tar.gz.sig") as path:
        for read in (read_signature_file, read_public_key):
            try:
                read(path)  # type: ignore[operator]
            except FedpkgError:
                pass


# ---- model files


def _model(data: bytes) -> None:
    with _file(data, "out.npz") as path:
        for read in (read_model, read_sets):
            try:
                found = read(path, max_bytes=MAX_BYTES)  # type: ignore[operator]
            except FedpkgError:
                continue
            for weights in [found] if isinstance(found, Weights) else found.values():
                assert weights.num_bytes <= MAX_BYTES
                weights.first_non_finite()
        try:
            detect_form(path)
        except FedpkgError:
            pass


def _bare(data: bytes) -> None:
    for suffix in (".f32", ".f64", ".txt"):
        with _file(data, f"out{suffix}") as path:
            try:
                assert read_model(path, max_bytes=MAX_BYTES).num_bytes <= MAX_BYTES
            except FedpkgError:
                pass


def _torch_file(data: bytes) -> None:
    with _file(data, "seed.pt") as path:
        try:
            weights, _form = read_seed_model(path)
        except FedpkgError:
            return
        assert weights.num_bytes <= 64 << 20
        weights.first_non_finite()


def _metadata(data: bytes) -> None:
    with _file(data, "out.npz-metadata") as path:
        try:
            read_metrics(path)
            assert num_examples(read_metadata(path.with_name("out.npz"))) > 0
        except FedpkgError:
            pass


# ---- good files


def _tars() -> list[bytes]:
    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, kind, content, target in (
                ("client/fedn.yaml", tarfile.REGTYPE, _specs()[0], ""),
                ("client/d", tarfile.DIRTYPE, b"", ""),
                ("client/l", tarfile.SYMTYPE, b"", "fedn.yaml"),
                ("client/h", tarfile.LNKTYPE, b"", "client/fedn.yaml"),
                ("client/d/" + ("ü" * 20 + "/") * 3 + "x", tarfile.REGTYPE, b"1" * 600, ""),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, len(content), target
                tar.addfile(info, io.BytesIO(content))
        found.append(buffer.getvalue().rstrip(b"\0") + bytes(1024 + (-len(buffer.getvalue().rstrip(b"\0")) % 512)))
    return found


def _apps() -> list[bytes]:
    """The module is missing, which is noticed last."""
    components = b'[tool.flwr.app.components]\nserverapp = "a.b:c"\nclientapp = "a.b:d"\n'
    config = b"[tool.flwr.app.config]\nrounds = 3\nlr = 1e-1\non = true\na.b = 'x'\n\"c.d\" = 'y'\n"
    config += b"[tool.flwr.app.config.e]\nf = 1\n"
    federations = b"[tool.flwr.federations]\ndefault = 'l'\n[tool.flwr.federations.l]\noptions.num-supernodes = 3\n"
    return [b'[project]\nname = "x"\n' + federations + config + components]


def _specs() -> list[bytes]:
    return [
        b"entry_points: {train: {command: python train.py}}\n",
        b"python_env: python_env.yaml\nentry_points:\n  build:\n    command: python model.py\n"
        b"  train:\n    command: |\n      python \"a b.py\" $X\n  validate: {command: 'x'}  # why\n",
    ]


def _signatures() -> list[bytes]:
    one = {"signer": f"ed25519:{'A' * 43}=", "signature": f"{'A' * 86}=="}
    document = {"format": "fedpkg package signature v1", "package": f"sha256:{'0' * 64}", "signatures": [one]}
    pem = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA" + b"A" * 43 + b"=\n-----END PUBLIC KEY-----\n"
    ssh = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + b"A" * 43 + b" who@where\n"
    return [json.dumps(document).encode(), pem, ssh]


def _weights() -> Weights:
    tensors = {"fc.weight": torch.rand(3, 4), "fc.bias": torch.rand(3).double(), "n": torch.tensor(7)}
    return Weights(
        {**tensors, "flag": torch.tensor([True, False]), "half": torch.rand(5).half(), "none": torch.rand(0, 2)}
    )


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / name)
        return (Path(place) / name).read_bytes()


def _npzs() -> list[bytes]:
    arrays = {name: tensor.numpy() for name, tensor in _weights().items()}
    return [
        _written(lambda path: write_model(path, _weights(), ModelForm(".npz")), "m.npz"),
        _written(lambda path: write_sets(path, {"x": _weights(), "y": _weights()}, ModelForm(".npz")), "m.npz"),
        _written(lambda path: np.savez(path, **arrays), "m.npz"),
        _written(lambda path: np.savez_compressed(path, **arrays), "m.npz"),
    ]


def _safetensors() -> list[bytes]:
    form = ModelForm(".safetensors")
    return [
        _written(lambda path: write_model(path, _weights(), form), "m.safetensors"),
        _written(lambda path: write_sets(path, {"x": _weights(), "y": _weights()}, form), "m.safetensors"),
    ]


def _torch_files() -> list[bytes]:
    tensors = {**_weights(), "expanded": torch.rand(1).expand(7), "parameter": torch.nn.Parameter(torch.rand(2))}
    return [
        _written(lambda path: torch.save(tensors, path), "m.pt"),
        _written(lambda path: torch.save({"state_dict": dict(_weights())}, path), "m.pt"),
        _written(lambda path: torch.save(dict(_weights()), path, _use_new_zipfile_serialization=False), "m.pt"),
    ]


TARGETS = {
    target.name: target
    for target in (
        Target("spec", _spec, _specs),
        Target("app", _app, _apps),
        Target("tar", _tar, _tars),
        Target("archive", _archive, lambda: [gzip.compress(data, mtime=0) for data in _tars()]),
        Target("signature", _signature, _signatures),
        Target("npz", _model, _npzs),
        Target("safetensors", _model, _safetensors),
        Target("bare", _bare, lambda: [b"1.5 nan\n-2e300 7\n", bytes(range(64))]),
        Target("torch", _torch_file, _torch_files),
        Target("metadata", _metadata, lambda: [b'{"num_examples": 600, "loss": [0.5, NaN], "a": {"b": null}}']),
    )
}


# ---- changes

_NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Some bytes, numbers or pieces of a file changed: to noise, to extremes, to something from elsewhere in it."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        other = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 8, 16, 512)), len(data))
        kind = rng.randrange(8)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            number, (code, mask) = rng.choice(_NUMBERS), rng.choice((("<H", 0xFFFF), ("<I", 0xFFFFFFFF), ("<Q", -1)))
            packed = struct.pack(code, number & mask if mask > 0 else number)
            data[at : at + len(packed)] = packed
        elif kind == 2:
            data[at : at + length] = b""
        elif kind == 3:
            data[at:at] = data[other : other + length]
        elif kind == 4:
            data[at : at + length] = data[other : other + length]
        elif kind == 5:
            data[at : at + length] = bytes(length)
        elif kind == 6:
            digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
            place = rng.choice(digits) if digits else 0
            data[place : place + 1] = rng.choice((b"9", b"-1", b"9" * 11, b"9" * 19, b"9" * 40, b"1e9", b"0x1", b"NaN"))
        else:
            data = data[:at] if rng.random() < 0.5 else data + data[other:]
        if not data:
            break
    return bytes(data)
